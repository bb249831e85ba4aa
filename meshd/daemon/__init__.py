"""The control process: wiring, signals, and the loops that run every second."""
