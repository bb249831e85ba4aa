"""Frozen values that several packages share. Pure."""
