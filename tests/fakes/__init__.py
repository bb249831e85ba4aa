"""What stands in below the seam of a pure unit test, and for parts a test is not about."""
