"""Between processes on this machine: channels, sockets, shared memory, start-up configuration."""
