"""The Swarm runtime: replicas are services of a Docker Swarm, each with one task."""
