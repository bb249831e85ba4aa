"""The Docker runtime: replicas are containers of one Docker Engine."""
