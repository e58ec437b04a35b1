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


def interleaved(
    calls: dict[str, Callable[[], Any]], rounds: int = 7, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median seconds of each call, timed in turns so that a noisy machine is as noisy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # compiles, warms caches
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begun = clock()
            call()
            times[name].append(clock() - begun)
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}


def undisturbed(
    calls: dict[str, Callable[[], Any]], rounds: int = 7, share: float = 0.05, patience: float = 600.0
) -> dict[str, float]:
    """As `interleaved`, of rounds in which other programs took less than a `share` of the machine; waits for them.

    Linux only. What it has after `patience` seconds it returns, and nothing where no round was quiet.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + patience
    while time.perf_counter() < end and len(next(iter(times.values()))) < rounds:
        wait = _others()
        time.sleep(0.3)
        if wait() > share:
            continue
        others, row = _others(), {}
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            row[name] = time.perf_counter() - begun
        if others() <= share:
            for name, seconds in row.items():
                times[name].append(seconds)
    return {name: sorted(t)[len(t) // 2] for name, t in times.items() if t}


def _others() -> Callable[[], float]:
    """The share of the machine that other programs take between this call and that of the result."""

    def busy() -> tuple[float, float]:
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        tick = os.sysconf("SC_CLK_TCK")
        idle = fields[3] + fields[4]
        return (sum(fields) - idle) / tick - time.process_time(), sum(fields) / tick

    begin = busy()

    def since() -> float:
        now = busy()
        return (now[0] - begin[0]) / max(now[1] - begin[1], 1e-9)

    return since
