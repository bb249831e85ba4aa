"""Fuzz targets for the parsers, their corpus, and what runs them. No tests of pytest's are here."""
