"""Settings of the whole suite, made before JAX is imported."""

import os

# the suite proves numbers of the CPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# its programs are many, small and run once: two thirds of its time went into LLVM's optimiser. Code generation without
# it keeps the arithmetic; timings belong to benchmarks/, which run with XLA's defaults.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
