"""Tables made like real ones: abalones and others, and what privacy costs.

    python benchmarks/tables.py report --data-dir ../shared/data            # four tables
    python benchmarks/tables.py report --data-dir ../shared/data --only abalone --seeds 3
    python benchmarks/tables.py private                                     # private EM on 48,842 made rows

Half of the rows, drawn by the seed, are fitted; as many are made; the other half is held out. All choices of the model
are made on the rows that are fitted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from common import report

import jaxgen as jg

ABALONE = ["sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "rings"]
WINE = ["fixed", "volatile", "citric", "sugar", "chlorides", "free", "total", "density", "pH", "sulphates", "alcohol",
        "quality"]  # fmt: skip
#: by name the file, its columns, and what is to be told: the target, and from which number on
TABLES: dict[str, tuple[str, list[str], str, float | None]] = {
    "abalone": ("uci_small/abalone.csv", ABALONE, "rings", 10),
    "red wine": ("uci_small/winequality-red.csv", WINE, "quality", 6),
    "banknotes": ("uci_small/banknote_authentication.csv", ["variance", "skewness", "curtosis", "entropy", "forged"],
                  "forged", None),
    "concrete": ("uci_regression/concrete.csv.gz", [f"x{i}" for i in range(8)] + ["strength"], "strength", None),
}  # fmt: skip


def measured(name: str, folder: Path, seed: int) -> tuple[dict[str, Any], Any]:
    """The report of one split."""
    path, columns, target, above = TABLES[name]
    frame = pd.read_csv(folder / path, header=None, names=columns)
    order = np.random.default_rng(seed).permutation(len(frame))
    half = len(frame) // 2
    train, holdout = (frame.iloc[rows].reset_index(drop=True) for rows in (order[:half], order[half:]))
    fitted, drawn, judged = jax.random.split(jax.random.key(seed), 3)
    begun = time.perf_counter()
    model = jg.tasks.synthesizer(fitted, train)
    seconds = time.perf_counter() - begun
    found = jg.tasks.fidelity(judged, model.draw(drawn, len(train)).frame, train, holdout, target=target, above=above)
    print(f"{name}, seed {seed}, {len(model.model.logits)} components, {seconds:.0f} s\n{found}\n", flush=True)
    p, u = found.privacy, found.utility
    return {
        "components": len(model.model.logits), "C2ST": found.c2st.accuracy, "AUC, made": u.auc, "AUC, real": u.real_auc,
        "closest row was fitted": p.closer, "expected": p.expected,
        "standard errors off": (p.closer - p.expected) / p.standard_error, "membership advantage": p.membership,
        "by chance": p.membership_by_chance, "copies": p.copies, "copies, held out": p.holdout_copies,
        "columns alike": float(np.mean(list(found.columns.values()))),
        "pairs alike": float(np.mean(list(found.pairs.values()))), "wall s of the fit": seconds,
    }, found  # fmt: skip


def tables(options: Any) -> None:
    """The report of each table, the mean over splits and each of them."""
    result: dict[str, Any] = {}
    for name in TABLES:
        if options.only is None or options.only in name:
            rows = [measured(name, options.data_dir, seed)[0] for seed in range(options.seeds)]
            result[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {"splits": rows}
    report("tables", result)


def private(options: Any) -> None:
    """Held-out log-likelihood of a private fit less that of a plain one, in nats per row."""
    means = np.array([[28, 9, 25, 50, 2, 10], [45, 13, 45, 150, 8, 40], [60, 8, 20, 80, 15, 70],
                      [38, 11, 55, 250, 4, 20]], float)  # fmt: skip
    scale, factor = np.array([4, 1, 4, 15, 1, 5.0]), np.linalg.cholesky(0.6 * np.eye(6) + 0.4)
    low, high = [10, 2, 0, 0, -2, -10], [80, 20, 80, 320, 20, 100]
    rows = []
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        x = means[rng.choice(4, 60_842, p=[0.3, 0.3, 0.2, 0.2])] + scale * (rng.normal(size=(60_842, 6)) @ factor.T)
        train, test = x[:48_842], x[48_842:]
        found = jg.tasks.private_mixture(jax.random.key(seed), train, 4, low=low, high=high, epsilon=1.0, delta=1e-5)
        start = lambda key, train=train: jg.Mixture.init(key, train, 4, jg.Gaussian.init)  # noqa: E731
        plain = jg.fit(jax.random.key(seed), start, train, restarts=4, progress=False).model
        nats = [float(np.mean(np.asarray(model.log_prob(test), np.float64))) for model in (found.model, plain)]
        rows.append({"private": nats[0], "plain": nats[1], "lost": nats[1] - nats[0]})
        print(found, rows[-1], flush=True)
    report("tables_private", {"promise": str(found), "lost at most": max(row["lost"] for row in rows), "seeds": rows})


ROWS: dict[str, Callable[[Any], None]] = {"report": tables, "private": private}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=tuple(ROWS))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", help="a part of a table's name")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.row == "report" and options.data_dir is None:
        parser.error("--data-dir is the folder with uci_small and uci_regression")
    ROWS[options.row](options)


if __name__ == "__main__":
    main()
