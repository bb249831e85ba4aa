"""Which mesh owns which project on a shared engine."""
