"""EM over a memory map, from 1e5 to 1e7 events: seconds per iteration and peak memory, beside the same data in memory.

    python benchmarks/streaming.py

Each size runs in a process of its own, so that the peak is its own. Draws `notebooks/streaming.png`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
DIMS, COMPONENTS, REPEATS = 8, 16, 4
PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "streaming.png"


def write(path: Path, n: int, chunk: int = 250_000) -> None:
    """A mixture's draws, written in pieces."""
    rng = np.random.default_rng(0)
    centers = 4 * rng.normal(size=(COMPONENTS, DIMS))
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, DIMS))
    for start in range(0, n, chunk):
        size = min(chunk, n - start)
        out[start : start + size] = centers[rng.integers(0, COMPONENTS, size)] + rng.normal(size=(size, DIMS))
    out.flush()


def measure(path: str, way: str) -> dict[str, float]:
    """Seconds per EM iteration and the peak memory of this process."""
    import jax

    import jaxgen as jg

    stream = jg.data.Stream(path)
    head = stream.head(10_000).x
    data = stream if way == "streamed" else np.load(path)
    leaf = jg.DiagonalGaussian.from_values(head[:COMPONENTS], np.tile(head.std(axis=0), (COMPONENTS, 1)), floor=1e-6)
    model = jg.Mixture.from_components(leaf)
    steps = max(2, 1_000_000 // stream.events)
    # the best of some: other work on the machine only ever adds
    fits = [jg.fit(jax.random.key(0), model, data, jg.EM(), steps=steps, tolerance=0.0) for _ in range(REPEATS)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "seconds": min(fitted.seconds for fitted in fits) / steps,
        "peak MiB": peak,
        "log-likelihood": [float(v) for v in fits[0].history["log_likelihood"]],
    }


def child(path: Path, way: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, str(path), way], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def slope(sizes, seconds) -> float:
    """Of a line through the logarithms: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw(rows: list[dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n = [row["events"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for way, color, marker in (("in memory", "0.6", "s"), ("streamed", "tab:blue", "o")):
        style = {"color": color, "marker": marker, "markersize": 5, "label": way}
        left.loglog(n, [row[way]["seconds"] for row in rows], **style)
        right.semilogx(n, [row[way]["peak MiB"] for row in rows], **style)
    right.semilogx(n, [row["file MiB"] for row in rows], ":", color="0.3", label="the data's size")
    left.set(xlabel="events", ylabel="seconds per EM iteration", title="time grows with the data")
    right.set(xlabel="events", ylabel="peak memory of the process, MiB", title="memory does not")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=150)


def main() -> None:
    from common import report

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        for n in SIZES:
            write(path, n)
            row = {"events": n, "file MiB": path.stat().st_size / 2**20}
            for way in ("streamed", "in memory"):
                row[way] = child(path, way)
            streamed, whole = (row[way].pop("log-likelihood") for way in ("streamed", "in memory"))
            row["largest difference, nats per event"] = float(np.abs(np.subtract(streamed, whole)).max())
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    seconds, peaks = ([row["streamed"][name] for row in rows] for name in ("seconds", "peak MiB"))
    report(
        "streaming",
        {
            "model": f"{COMPONENTS} diagonal Gaussians, {DIMS} dimensions, float32",
            "slope of log seconds against log events, streamed": slope(SIZES, seconds),
            "slope of log seconds against log events, streamed, from 1e6": slope(SIZES[2:], seconds[2:]),
            "peak memory at 1e7 over that at 1e5, streamed": peaks[-1] / peaks[0],
            "sizes": rows,
        },
    )
    draw(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main()
