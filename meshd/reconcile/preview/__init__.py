"""What a deployment will do, before it happens. Pure."""
