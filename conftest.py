"""Settings of the whole suite, made before JAX is imported."""

import copy
import gc
import importlib.metadata
import os

import pytest

# the suite proves numbers of the CPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# its programs are many, small and run once: two thirds of its time went into LLVM's optimiser. Code generation without
# it keeps the arithmetic; timings belong to benchmarks/, which run with XLA's defaults. XLA's older way to write fused
# loops halves what is left; later versions may not know it, and XLA refuses flags that it does not know.
flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)

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
