"""Real processes for integration tests: supervisors, origins, clients under load.

Everything started here listens on loopback and ends with its test.
"""
