"""What the benchmarks share: one JSON row each, printed and written, that names the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """Cores, device and versions."""
    import jax
    import jaxlib

    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
    }


def report(name: str, row: dict[str, Any]) -> None:
    """Prints the row and writes it to `benchmarks/results/<name>.json`."""
    row = {"benchmark": name, **row, "machine": machine()}
    text = json.dumps(row, indent=2, default=float)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """The median seconds of each call, timed in turns so that a noisy machine is as noisy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # compiles, warms caches
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}
