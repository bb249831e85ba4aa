"""The scaling path in the control process: reports → autoscaler → store.

Belongs here: what a spec asks of the autoscaler (`ask`), what a second looked like to it
(`signals`, with what `meter`, `external` and `schedule` add), what is allowed of its wish
(`verdict`, `limits`, `room`, `cold`), what is kept of it (`learned`, `record`), and the step
that puts all of it together (`scaling`). Besides the simulator nothing else knows the
autoscaler. Does not belong here: how a number is decided (`autoscaler`), and what becomes of it
(`meshd.reconcile`).
"""
