"""How long a new process waits: the import, and the first small start and fit of each family with their compilation,
without and with JAX's persistent compilation cache; in seconds, and in those of the processor, which a busy machine
changes less.

    python benchmarks/startup.py [--rounds 3] [--before OTHER_CHECKOUT] [name ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import report

HERE = Path(__file__).resolve().parent.parent
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
#: prints the seconds of the start and of the fit, and those of the processor
FIRST = """
import time
import jax, numpy as np, jaxgen as jg
rng = np.random.default_rng(0)
x = rng.normal(size=(5000, 2)).astype(np.float32)
x[:2500] += 4
bits = (rng.random((2000, 64)) < 0.3).astype(np.float32)
first, second = jax.random.split(jax.random.key(0))
jax.block_until_ready(second)
t, c = time.perf_counter(), time.process_time()
made = {start}
model, algorithm = made if isinstance(made, tuple) else (made, None)
jax.block_until_ready(jax.tree.leaves(model))
middle, half = time.perf_counter(), time.process_time()
{fit}
print(middle - t, time.perf_counter() - middle, half - c, time.process_time() - half)
"""
FIT = "jg.fit(second, model, {}, algorithm, steps=50)"
#: name: (start, fit)
CASES = {
    "mixture, 5000 x 2, K=5": ("jg.Mixture.init(first, x, 5, jg.Gaussian.init)", FIT.format("x")),
    "HMM, 10 x 500 x 2, K=4": (
        "jg.HMM.init(first, x.reshape(10, 500, 2), 4, jg.Gaussian.init)", FIT.format("x.reshape(10, 500, 2)"),
    ),
    "RBM, 2000 x 64, 32 hidden": ("jg.recipes.rbm(first, bits, 32)", FIT.format("bits")),
    "RealNVP, 5000 x 2": ("jg.recipes.realnvp(first, x, steps=50)", FIT.format("x")),
    "spline flow, 5000 x 2": ("jg.recipes.neural_spline_flow(first, x, steps=50)", FIT.format("x")),
    "VAE, 2000 x 64": ("jg.recipes.vae(first, bits, 4, hidden=(64,), steps=50)", FIT.format("bits")),
    "select, 1000 x 2, K=1..4": ("None", "jg.select(first, x[::5], range(1, 5))"),
}  # fmt: skip


def run(code: str, cache: str | None = None, checkout: Path = HERE) -> list[float]:
    """The numbers that a new Python prints, of a checkout's jaxgen; `cache` is a folder for compiled programs."""
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment["PYTHONPATH"] = str(checkout)
    if cache:
        environment |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", code]  # whose first place to look for packages is the folder it starts in
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=checkout)
    return [float(word) for word in done.stdout.split()]


def medians(code: str, rounds: int, cache: str | None = None, checkouts: tuple[Path, ...] = (HERE,)) -> list[float]:
    """Of each number that the code prints, of one checkout after the other, which take turns."""
    rows = [sum((run(code, cache, checkout) for checkout in checkouts), []) for _ in range(rounds)]
    return [round(sorted(column)[rounds // 2], 3) for column in zip(*rows, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names; none is all, and the import")
    parser.add_argument("--rounds", type=int, default=3, help="processes, of which the median counts")
    parser.add_argument("--before", type=Path, help="a checkout of another version, to stand beside this one")
    options = parser.parse_args()
    row: dict[str, object] = {}
    if not options.names:
        jax, both = (medians(IMPORT.format(what), options.rounds)[0] for what in ("jax", "jax, jaxgen"))
        row = {"import jax, s": jax, "import jaxgen over import jax, s": both - jax}
    chosen = [name for name in CASES if not options.names or any(name.startswith(n) for n in options.names)]
    checkouts = (HERE,) if options.before is None else (HERE, options.before.resolve())
    names = ("start, cold", "fit, cold", "start, cold, processor", "fit, cold, processor")
    columns = [f"{which}{name}, s" for which in ("", "before: ")[: len(checkouts)] for name in names]
    total = [0.0] * len(columns)
    for name in chosen:
        code = FIRST.format(start=CASES[name][0], fit=CASES[name][1])
        cold = medians(code, options.rounds, checkouts=checkouts)
        with tempfile.TemporaryDirectory() as cache:
            run(code, cache)
            cached = sum(medians(code, options.rounds, cache)[:2])
        row[name] = dict(zip(columns, cold, strict=True)) | {"both with the persistent cache, s": cached}
        total = [a + b for a, b in zip(total, cold, strict=True)]
        print(f"{name:28s}", "  ".join(f"{value:6.2f}" for value in cold), flush=True)
    row["all"] = dict(zip(columns, total, strict=True))
    row["load of the machine, programs at work"] = os.getloadavg()[1]
    print(f"{'all':28s}", "  ".join(f"{value:6.2f}" for value in total))
    report("startup", row) if not options.names else print(row)


if __name__ == "__main__":
    main()
