"""Models whose density is known up to a constant."""
