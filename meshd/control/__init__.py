"""The operations that the API offers: commands and queries on a running mesh."""
