"""Settings of the whole suite, made before JAX is imported."""

import copy
import functools
import gc
import importlib.metadata
import os
import pathlib

import pytest

# the suite proves numbers of the CPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# its programs are many, small and run once: two thirds of its time went into LLVM's optimiser. Code generation without
# it keeps the arithmetic; timings belong to benchmarks/, which run with XLA's defaults. One piece of code to a program,
# not one to a thread, takes a quarter less, and a third fewer memory maps. XLA's older way to write fused loops halves
# what is left; later versions may not know it, and XLA refuses flags that it does not know.
flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
flags.append("--xla_cpu_parallel_codegen_split_count=1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)
# what one worker compiled, the other one, the notebooks' kernels and the next run read: all of it, however small. JAX
# makes the key of a program of its text, its flags, the version of XLA and the features of the machine.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent / ".pytest_cache" / "d" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# where in Python an operation was written is in no answer, and costs a walk up the stack for each
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# two processes on as many cores: threads of a reference's linear algebra wait for each other, spinning
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# tracing makes and drops objects by the million: looking for cycles every 700 of them was a sixteenth of the time
gc.set_threshold(50_000)

#: memory maps of a process, an eighth of what Linux allows (of memory they are about two gigabytes); and tests between
#: two looks
MAPS, TESTS = 8_000, 10
_DONE = 0
_FRESH: dict[str, object] = {}


#: run by tests in processes of their own
collect_ignore = ["tests/mesh_script.py"]

#: files whose tests belong together by the first of their parameters: laws by their case, which comes before the dtype
BY_CASE = ("tests/test_laws.py", "tests/test_docs.py")


def group(nodeid):
    """Tests of one group share models and programs: those of a file, or of a case."""
    path, _, name = nodeid.partition("::")
    return (path, name.rstrip("]").partition("[")[2].partition("-")[0] if path.endswith(BY_CASE) else "")


def pytest_collection_finish():
    """What was imported and collected stays to the end: it is not looked through for cycles again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """The tests of a group run one after the other, also in a single process; groups in the order of their files."""
    order = {}
    items.sort(key=lambda item: order.setdefault(group(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker takes all tests of a group. xdist's own groups, by marks, are lost on later versions of pytest."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "::".join(group(nodeid))

    return Groups(config, log)


def maps():
    """Memory maps of this process; where none can be counted, as many as one may have."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return MAPS


@pytest.fixture(autouse=True)
def few_programs():
    """Drops compiled programs now and then: a process that keeps thousands runs out of memory maps, and dies."""
    yield
    global _DONE
    _DONE += 1
    if _DONE % TESTS == 0 and maps() >= MAPS:
        import jax  # not before the environment is set

        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def one_context():
    """JAX lowers a file's programs in one context: to make one for each is a fifth of what a small program takes."""
    from jax._src.interpreters import mlir

    with pytest.MonkeyPatch.context() as patch:
        if hasattr(mlir, "make_ir_context"):  # a private name, which another version may not have
            patch.setattr(mlir, "make_ir_context", functools.cache(mlir.make_ir_context))
        yield


@pytest.fixture(autouse=True)
def same_draws(request):
    """Gives a test its module's `RNG` as it was after the import: what a test draws does not depend on those before."""
    module = getattr(request, "module", None)
    if hasattr(module, "RNG"):
        fresh = _FRESH.setdefault(module.__name__, copy.deepcopy(module.RNG))
        module.RNG = copy.deepcopy(fresh)
