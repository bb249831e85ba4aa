"""From the tree to the model: reads and checks every key of a service."""
