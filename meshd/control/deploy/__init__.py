"""Deployments: admission, preview, start and progress."""
