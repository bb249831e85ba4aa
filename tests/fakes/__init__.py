"""Fakes for unit tests: virtual time, a runtime and a data plane in it, and parts that a test needs
but does not test."""
