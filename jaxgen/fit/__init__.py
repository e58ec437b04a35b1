"""Algorithms, and the loop that runs them."""
