"""Notifications without a Prometheus: problems of services, nodes and disks, sent to webhooks.

`meshd.daemon.wiring` runs `watch` and `notifier`.

Belongs here: what is a problem that no event says yet (`burn`, `conditions`, `watch`), which events
are problems (`topics`), what is sent when (`grouping`), messages (`payload`), delivery (`webhook`)
and the parts together (`notifier`). Does not belong here: the event log (`meshd.store.events`).
"""
