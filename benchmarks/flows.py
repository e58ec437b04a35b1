"""Flows: how near they come to known optima, how fast autoregressive ones sample, and training steps beside the peers.

    python benchmarks/flows.py            # optima, sampling
    python benchmarks/flows.py --peers    # the training step beside nflows, zuko, normflows and flowjax

The peers live in an environment of their own:

    python -m venv peers
    peers/bin/pip install torch==2.13.0
    peers/bin/pip install -c constraints.txt -e '.[test]' nflows zuko normflows flowjax

Optima are those of the true densities, on the same held-out events: a model more than 0.05 nats below one, or above it
by more than three standard errors of the difference, fails. One recipe serves all of them, at its defaults.

A step is the gradient of the mean log-likelihood of 512 events of 16 coordinates, and Adam; 8 coupling layers, each a
network of 128 x 128 with relu. Ours run as an epoch in one scan, the peers' as their own training loops do.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import interleaved, report

import jaxgen as jg
from jaxgen.bijections import AffineTransform, Autoregressive, Coupling, SplineTransform
from jaxgen.core.pytree import combine, partition
from jaxgen.ops.splines import Knots, spline_forward

EVENTS = 100_000
SIZE, BATCH, LAYERS, HIDDEN, BINS, BOUND, STEPS = 16, 512, 8, 128, 8, 4.0, 8


def checkerboard(key: Any, n: int) -> jax.Array:
    """Uniform on the dark half of a board of 4 x 4 squares with sides of 2: log 32 = 3.4657 nats."""
    square, place = jax.random.split(key)
    i = jax.random.randint(square, (n,), 0, 8)
    corner = jnp.stack([2 * (i % 2) + (i // 2) % 2, i // 2], axis=-1)
    return 2.0 * (corner + jax.random.uniform(place, (n, 2))) - 4


DENSITIES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "checkerboard": (checkerboard, lambda x: jnp.full(len(x), -jnp.log(32.0))),
    "eight Gaussians": (jg.data.eight_gaussians, jg.data.eight_gaussians_log_density),
    "two moons": (jg.data.two_moons, jg.data.two_moons_log_density),
}


def optimum(name: str, seed: int, steps: int) -> dict[str, Any]:
    """One fit of the recipe, beside the true density."""
    draw, log_density = DENSITIES[name]
    train_key, test_key, start, key = jax.random.split(jax.random.key(seed), 4)
    train, test = draw(train_key, EVENTS), draw(test_key, EVENTS)
    model, algorithm = jg.recipes.neural_spline_flow(start, train)
    fitted = jg.fit(key, model, train, algorithm, steps=steps, batch_size=512, progress=False)
    found, best = (np.asarray(f(test), np.float64) for f in (fitted.model.log_prob, log_density))
    error = float((found - best).std(ddof=1) / EVENTS**0.5)
    back = np.asarray(fitted.model.decode(fitted.model.encode(test)))
    return {
        "seed": seed, "test nats": found.mean(), "optimum": best.mean(), "difference": (found - best).mean(),
        "standard error": error, "passed": bool(-0.05 <= (found - best).mean() <= 3 * error),
        "round trip": float(np.abs(back - np.asarray(test)).max()), "fit s": fitted.seconds,
        "compile s": fitted.compile_seconds,
    }  # fmt: skip


def sequential(layer: Autoregressive, x: Any) -> Any:
    """What the parallel inverse replaces: one pass of the network for each coordinate, in order."""

    def place(d, y):
        params = layer._params(y, None)
        return y.at[d].set(layer.transform.forward(params[:, d], x[d])[0])

    return jax.lax.fori_loop(0, x.size, place, jnp.zeros_like(x))


def sampling(events: int = 1000, steps: int = 1000) -> dict[str, Any]:
    """A masked autoregressive flow of the 64 pixels of digits: samples by the fixed point and one by one."""
    noise, start, key, draw = jax.random.split(jax.random.key(0), 4)
    pixels = jnp.asarray(jg.data.digits().images).reshape(-1, 64)
    x = pixels + jax.random.uniform(noise, pixels.shape)
    model, algorithm = jg.recipes.maf(start, x, layers=5, features=(HIDDEN, HIDDEN), step_size=1e-3)
    model = jg.fit(key, model, x, algorithm, steps=steps, batch_size=256, progress=False).model
    z = jax.random.normal(draw, (events, 64))

    @jax.jit
    def one_by_one(model, z):
        def through(z, layer):
            moved, permutation = layer.layers
            return permutation.forward_and_log_det(sequential(moved, z))[0], None

        stack, units = model.bijection.layers
        return jax.vmap(lambda z: units.forward_and_log_det(jax.lax.scan(through, z, stack.layers)[0])[0])(z)

    calls = {
        "fixed point": lambda: jax.block_until_ready(model.decode(z)),
        "one by one": lambda: jax.block_until_ready(one_by_one(model, z)),
        "density": lambda: jax.block_until_ready(model.log_prob(x[:events])),
    }
    away = float(jnp.abs(calls["fixed point"]() - calls["one by one"]()).max())
    medians = interleaved(calls, rounds=9)
    return {
        **{f"{name} ms": 1e3 * t for name, t in medians.items()}, "largest difference, grey levels": away,
        "ratio": medians["one by one"] / medians["fixed point"],
        "bits per dimension": -float(model.log_prob(x).mean()) / 64 / np.log(2),
    }  # fmt: skip


def batches() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, BATCH, SIZE)).astype(np.float32)


def ours(transform: Any) -> tuple[Callable[[], Any], float]:
    """An epoch as one scan, and the seconds of the first call of a step."""
    x, optimizer = jnp.asarray(batches()), optax.adam(1e-3)
    layer = functools.partial(Coupling.init, transform=transform, features=(HIDDEN, HIDDEN), activation=jax.nn.relu)
    flow = jg.Flow.init(jax.random.key(0), x[0], jg.StandardNormal((SIZE,)), layer, layers=LAYERS)
    trained, rest = partition(flow)

    def step(state, x):
        trained, moments = state
        loss, slope = jax.value_and_grad(lambda t: -combine(t, rest).log_prob(x).mean())(trained)
        update, moments = optimizer.update(slope, moments, trained)
        return (optax.apply_updates(trained, update), moments), loss

    state = (trained, optimizer.init(trained))
    begun = time.perf_counter()
    jax.block_until_ready(jax.jit(step)(state, x[0]))
    first = time.perf_counter() - begun
    epoch = jax.jit(lambda state, x: jax.lax.scan(step, state, x)).lower(state, x).compile()
    return lambda: jax.block_until_ready(epoch(state, x)), first


def with_flowjax(kind: str) -> tuple[Callable[[], Any], float]:
    import equinox as eqx
    import paramax
    from flowjax.bijections import Affine, RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow
    from flowjax.train.losses import MaximumLikelihoodLoss
    from flowjax.train.train_utils import step

    x, optimizer = jnp.asarray(batches()), optax.adam(1e-3)
    flow = coupling_flow(
        jax.random.key(0), base_dist=Normal(jnp.zeros(SIZE)), flow_layers=LAYERS, nn_width=HIDDEN, nn_depth=2,
        transformer=Affine() if kind == "affine" else RationalQuadraticSpline(knots=BINS, interval=BOUND),
    )  # fmt: skip
    frozen = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    start, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=frozen)
    moments, loss = optimizer.init(start), MaximumLikelihoodLoss()

    def epoch():
        params, state = start, moments
        for batch in x:
            params, state, value = step(
                params, static, batch, optimizer=optimizer, opt_state=state, loss_fn=loss, key=jax.random.key(1)
            )
        jax.block_until_ready(value)

    begun = time.perf_counter()
    step(start, static, x[0], optimizer=optimizer, opt_state=moments, loss_fn=loss, key=jax.random.key(1))
    return epoch, time.perf_counter() - begun


def with_torch(model: Any, loss: Callable[[Any], Any]) -> Callable[[], Any]:
    import torch

    x, optimizer = torch.from_numpy(batches()), torch.optim.Adam(model.parameters(), 1e-3)

    def epoch():
        for batch in x:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()

    return epoch


def with_zuko(kind: str) -> Callable[[], Any]:
    import zuko

    options = dict(transforms=LAYERS, passes=2, hidden_features=(HIDDEN, HIDDEN))
    model = zuko.flows.MAF(SIZE, **options) if kind == "affine" else zuko.flows.NSF(SIZE, bins=BINS, **options)
    return with_torch(model, lambda x: -model().log_prob(x).mean())


def with_nflows(kind: str) -> Callable[[], Any]:
    import torch
    from nflows import distributions, flows, transforms
    from nflows.nn.nets import MLP

    class Network(torch.nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.net = MLP((inputs,), (outputs,), [HIDDEN, HIDDEN])

        def forward_and_log_det(self, x, context=None):
            return self.net(x)

    layers = []
    for i in range(LAYERS):
        mask = torch.zeros(SIZE)
        mask[i % 2 :: 2] = 1
        layers.append(
            transforms.AffineCouplingTransform(mask, Network) if kind == "affine"
            else transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask, Network, num_bins=BINS, tails="linear", tail_bound=BOUND
            )
        )  # fmt: skip
    model = flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal((SIZE,)))
    return with_torch(model, lambda x: -model.log_prob(x).mean())


def with_normflows(kind: str) -> Callable[[], Any]:
    import normflows

    half, layers = SIZE // 2, []
    for _ in range(LAYERS):
        net = normflows.nets.MLP([half, HIDDEN, HIDDEN, 2 * half], init_zeros=True)
        layers += [
            normflows.flows.AffineCouplingBlock(net) if kind == "affine"
            # its network is a residual one: one block is a layer more than the others have
            else normflows.flows.CoupledRationalQuadraticSpline(SIZE, 1, HIDDEN, num_bins=BINS, tail_bound=BOUND),
            normflows.flows.Permute(SIZE, mode="swap"),
        ]  # fmt: skip
    model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(SIZE, trainable=False), layers)
    return with_torch(model, model.forward_kld)


def spline_difference() -> float:
    """The largest difference of our spline and nflows', float64, at the same knots."""
    import torch
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    rng = np.random.default_rng(0)
    width, height = (rng.dirichlet(np.full(BINS, 2.0), 4096) for _ in range(2))
    slope, x = rng.uniform(0.1, 3, (4096, BINS - 1)), rng.uniform(-BOUND, BOUND, 4096)
    least = 1e-3
    raw = [np.log((w - least) / (1 - least * BINS)) for w in (np.maximum(a, 2 * least) for a in (width, height))]
    width, height = ((1 - least * BINS) * np.exp(r) / np.exp(r).sum(1, keepdims=True) + least for r in raw)
    theirs = unconstrained_rational_quadratic_spline(
        *(torch.from_numpy(a) for a in (x, *raw, np.log(np.expm1(slope - least)))), tail_bound=BOUND
    )
    edges = lambda a: 2 * BOUND * np.concatenate([np.zeros((4096, 1)), np.cumsum(a, 1)], 1) - BOUND  # noqa: E731
    with jax.enable_x64(True):
        slopes = np.pad(slope, ((0, 0), (1, 1)), constant_values=1.0)
        knots = Knots(*(jnp.asarray(a.T) for a in (edges(width), edges(height), slopes)))
        mine = spline_forward(knots, jnp.asarray(x))
        return max(float(np.abs(np.asarray(a) - b.numpy()).max()) for a, b in zip(mine, theirs, strict=True))


def beside_peers(kind: str, rounds: int) -> dict[str, Any]:
    """Milliseconds per training step, in turns, and the seconds of first calls."""
    mine, first = ours(AffineTransform() if kind == "affine" else SplineTransform(BINS, BOUND))
    rival, rival_first = with_flowjax(kind)
    calls = {"jaxgen": mine, "flowjax": rival, "nflows": with_nflows(kind), "zuko": with_zuko(kind),
             "normflows": with_normflows(kind)}  # fmt: skip
    ms = {name: 1e3 * t / STEPS for name, t in interleaved(calls, rounds).items()}
    torch = min(ms[name] for name in ("nflows", "zuko", "normflows"))
    return {
        **{f"{name} ms": t for name, t in ms.items()}, "fastest torch peer / jaxgen": torch / ms["jaxgen"],
        "flowjax / jaxgen": ms["flowjax"] / ms["jaxgen"], "first call s": first, "flowjax first call s": rival_first,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Flows: optima, sampling, speed.")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    if args.peers:
        row: dict[str, Any] = {"spline, largest difference from nflows": spline_difference()}
        report("flows_peers", {**row, **{kind: beside_peers(kind, args.rounds) for kind in ("affine", "spline")}})
        return
    runs = {name: [optimum(name, seed, args.steps) for seed in range(args.seeds)] for name in DENSITIES}
    passed = all(run["passed"] for group in runs.values() for run in group)
    row = {"kind": "exact", "steps": args.steps, "events": EVENTS, "optima": runs, "sampling": sampling()}
    report("flows", {**row, "passed": passed})
    if not passed:
        raise SystemExit("flows: outside of the target")


if __name__ == "__main__":
    main()
