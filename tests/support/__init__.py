"""Helpers that tests share: waiting, origins, raw HTTP, a whole mesh, and a load that counts."""
