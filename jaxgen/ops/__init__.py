"""Free functions on arrays: numerics without models, usable alone."""
