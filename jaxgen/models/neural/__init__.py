"""Models whose work is done by layers or networks."""
