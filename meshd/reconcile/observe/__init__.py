"""What runs now, and what the reconciler remembers between passes."""
