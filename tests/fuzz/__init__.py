"""Fuzz targets for the parsers, their corpus, and the runner. It contains no pytest tests."""
