"""Carries out a plan on the runtime and records the results."""
