"""Settings of the whole suite."""

import os

# the suite proves numbers of the CPU; two host threads are what a small machine has
os.environ.setdefault("JAX_PLATFORMS", "cpu")
