"""Settings of the whole suite, made before JAX is imported."""

import copy
import gc
import os

import pytest

# the suite proves numbers of the CPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# its programs are many, small and run once: two thirds of its time went into LLVM's optimiser. Code generation without
# it keeps the arithmetic; timings belong to benchmarks/, which run with XLA's defaults.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

_DONE = 0
_FRESH: dict[str, object] = {}


@pytest.fixture(autouse=True)
def few_programs():
    """Drops compiled programs now and then: a process that keeps thousands runs out of memory maps, and dies."""
    yield
    global _DONE
    _DONE += 1
    if _DONE % 50 == 0:
        import jax  # not before the environment is set

        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def same_draws(request):
    """Gives a test its module's `RNG` as it was after the import: what a test draws does not depend on those before."""
    module = getattr(request, "module", None)
    if hasattr(module, "RNG"):
        fresh = _FRESH.setdefault(module.__name__, copy.deepcopy(module.RNG))
        module.RNG = copy.deepcopy(fresh)
