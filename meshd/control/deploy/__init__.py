"""Deployments: what is rejected, what a deployment would do, its start, and its progress."""
