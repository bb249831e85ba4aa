"""Live state of one worker that outlasts a snapshot: routes, services, endpoints, limits."""
