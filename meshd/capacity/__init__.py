"""What fits on the nodes and into the quotas. Pure."""
