"""Block Gibbs sampling of Ising models: flips per nanosecond on a random graph of degree 15, and what bounds them.

    python benchmarks/ising.py

Every site has 15 neighbours, as in the graphs of thermodynamic sampling units; spins start at random, and are drawn by
whole sweeps inside one compiled loop. A flip is one update of one spin of one chain. Beside it the parts that it cannot
do without: the random numbers of a sweep alone, and the sums over neighbours alone. Magnetisation and energy after a
thousand sweeps are compared with those of a plain sampler that goes from site to site, in numpy.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import interleaved, report

import jaxgen as jg
from jaxgen.models.energy.random_field import _field
from jaxgen.ops.noise import uniform

SITES, DEGREE, SWEEPS = 10_000, 15, 10


def regular(rng: np.random.Generator, n: int, degree: int) -> np.ndarray:
    """Edges of a random graph in which nearly every site has so many neighbours: stubs joined, doubles left out."""
    stubs = rng.permutation(np.repeat(np.arange(n), degree)).reshape(-1, 2)
    stubs = np.sort(stubs[stubs[:, 0] != stubs[:, 1]], axis=1)
    return np.unique(stubs, axis=0)


@jax.jit
def sweeps(key: Any, model: Any, x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, SWEEPS, lambda t, x: model.kernel(jax.random.fold_in(key, t), x), x)


@functools.partial(jax.jit, static_argnames="shape")
def noise(key: Any, shape: Any) -> jax.Array:
    return jax.lax.fori_loop(
        0, SWEEPS, lambda t, a: a + jnp.sum(uniform(jax.random.fold_in(key, t), shape)), jnp.zeros(())
    )


@jax.jit
def sums(model: Any, t: jax.Array) -> jax.Array:
    def sweep(_: Any, t: jax.Array) -> jax.Array:
        def colour(t: jax.Array, block: Any) -> Any:
            sites, others, weights = block
            return t.at[sites].set(_field(t, others, weights), mode="drop"), None

        return jax.lax.scan(colour, t, (model.sites, model.others, 0.01 * model._weights()))[0]

    return jax.lax.fori_loop(0, SWEEPS, sweep, t)


def speed(chains: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    edges = regular(rng, SITES, DEGREE)
    model = jg.RandomField.ising(edges, rng.normal(size=len(edges)).astype(np.float32) / DEGREE, np.zeros(SITES))
    x = jnp.asarray(rng.choice([-1.0, 1.0], (chains, SITES)), jnp.float32)
    key, slots = jax.random.key(0), (*model.sites.shape, chains)
    calls = {
        "sweeps": lambda: jax.block_until_ready(sweeps(key, model, x)),
        "random numbers alone": lambda: jax.block_until_ready(noise(key, slots)),
        "sums alone": lambda: jax.block_until_ready(sums(model, x.T[:, None])),
    }
    seconds = interleaved(calls, rounds)
    flips = SITES * chains * SWEEPS
    colours, most = model.sites.shape
    return {
        "chains": chains, "edges": len(edges), "colours": colours, "sites filled up": colours * most - SITES,
        "flips per ns": flips / seconds["sweeps"] / 1e9,
        "ns per flip": {name: 1e9 * t / flips for name, t in seconds.items()},
        # each neighbour is read, each site written; the caches serve most of it
        "gigabytes per second": 4 * flips * (DEGREE + 3) / seconds["sweeps"] / 1e9,
        "gigaflops per second": 2 * DEGREE * flips / seconds["sweeps"] / 1e9,
    }  # fmt: skip


def correct() -> dict[str, Any]:
    """A small graph: moments of 4000 chains beside numpy's, site by site."""
    rng = np.random.default_rng(1)
    n, chains = 60, 4000
    edges = regular(rng, n, DEGREE)
    couplings, field = rng.normal(size=len(edges)) / DEGREE**0.5 / 2, 0.3 * rng.normal(size=n)
    matrix = np.zeros((n, n))
    matrix[tuple(edges.T)] = couplings
    matrix += matrix.T
    spins = rng.choice([-1.0, 1.0], (chains, n))
    for _ in range(100):
        for i in range(n):
            up = 1 / (1 + np.exp(-2 * (spins @ matrix[i] + field[i])))
            spins[:, i] = np.where(rng.random(chains) < up, 1, -1)
    model = jg.RandomField.ising(edges, couplings.astype(np.float32), field.astype(np.float32))
    ours = model.sample(jax.random.key(0), (chains,), sweeps=100)
    errors = (ours.std(axis=0) ** 2 / chains + spins.std(axis=0) ** 2 / chains) ** 0.5
    away = np.abs(np.asarray(ours.mean(axis=0)) - spins.mean(axis=0)) / np.maximum(errors, 1e-3)
    energies = [np.asarray(model.energy(jnp.asarray(s, jnp.float32)), np.float64) for s in (ours, spins)]
    gap = energies[0].mean() - energies[1].mean()
    return {
        "largest difference of a mean, in standard errors": away.max(), "sites": n,
        "difference of mean energies, in standard errors": gap / (sum(e.var() for e in energies) / chains) ** 0.5,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Block Gibbs sampling of an Ising model.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chains", type=int, nargs="*", default=[1, 16, 64])
    args = parser.parse_args()
    row: dict[str, Any] = {"sites": SITES, "degree": DEGREE, "beside numpy": correct()}
    report("ising", {**row, "speed": [speed(chains, args.rounds) for chains in args.chains]})


if __name__ == "__main__":
    main()
