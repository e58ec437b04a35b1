"""What a step of an adversarial network costs: its gradient penalties, and a DCGAN beside torch.

    python benchmarks/gan.py penalties   # a step with and without R1 and R2
    python benchmarks/gan.py speed       # the step beside torch eager, in the peers' environment

The peers' environment: `python -m venv peers; peers/bin/pip install torch==2.13.0; peers/bin/pip install -e .`

The networks are those of `recipes.dcgan` for 28x28 pixels, the game is relativistic with R1 and R2. Before anything is
timed both libraries compute samples, outputs, penalties and gradients from the same numbers, which have to agree.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import interleaved, report

import jaxgen as jg
from jaxgen.games import R1, R2, Relativistic

BATCH, LATENT, WIDTH, STEPS, WEIGHT = 64, 64, 32, 4, 1.0


def loop_of(algorithm: Any, start: Any, batches: jax.Array) -> tuple[Any, float]:
    """A compiled loop of steps, one for each batch, and the seconds that compiling it took."""

    def epoch(key: Any, state: Any, batches: Any) -> Any:
        def step(state: Any, one: Any) -> Any:
            return algorithm.step(one[0], state, jg.Batch(one[1]))[0], None

        return jax.lax.scan(step, state, (jax.random.split(key, len(batches)), batches))[0]

    state, key = jax.jit(algorithm.init)(jax.random.key(1), start), jax.random.key(2)
    begun = time.perf_counter()
    compiled = jax.jit(epoch).lower(key, state, batches).compile()
    seconds = time.perf_counter() - begun
    return lambda: jax.block_until_ready(compiled(key, state, batches)), seconds


def images(steps: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((steps, BATCH, 28, 28)), jnp.float32)


def penalties(options: Any) -> None:
    """A step without penalties, with R1 and R2, and with both in every fourth step only."""
    x, row = images(STEPS), {}
    flat = jg.data.eight_gaussians(jax.random.key(0), 40 * 256).reshape((40, 256, 2))
    kinds = {"none": (), "R1 and R2": (R1(WEIGHT), R2(WEIGHT)), "every 4": (R1(WEIGHT, every=4), R2(WEIGHT, every=4))}
    for name, data, recipe in (
        ("perceptrons of 128", flat, jg.recipes.gan),
        ("DCGAN of 28x28", x, functools.partial(jg.recipes.dcgan, width=WIDTH)),
    ):
        calls = {}
        for kind, values in kinds.items():
            start, algorithm = recipe(jax.random.key(0), data[0])
            game = jg.Adversarial(algorithm.critic, game=Relativistic(), penalties=values)
            calls[kind], _ = loop_of(game, start, data)
        seconds = interleaved(calls, rounds=options.rounds)
        row |= {f"{name}, {kind}, ms a step": 1e3 * t / len(data) for kind, t in seconds.items()}
        row |= {f"{name}, {kind} / none": seconds[kind] / seconds["none"] for kind in kinds if kind != "none"}
    report("gan_penalties", row | {"batch of images": BATCH, "batch of points": 256})


# ---- a step beside torch


def torch_networks() -> Any:
    """The networks of `ConvGenerator` and `ConvCritic`, as torch lays them out."""
    import torch

    layers = torch.nn

    class Generator(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Linear(LATENT, 49 * 4 * WIDTH)
            self.convolutions = layers.ModuleList(
                [layers.Conv2d(4 * WIDTH, 2 * WIDTH, 3, padding=1), layers.Conv2d(2 * WIDTH, WIDTH, 3, padding=1),
                 layers.Conv2d(WIDTH, 1, 3, padding=1)]
            )  # fmt: skip

        def forward(self, z: Any) -> Any:
            x = torch.relu(self.dense(z)).reshape((-1, 7, 7, 4 * WIDTH)).permute(0, 3, 1, 2)
            for layer in self.convolutions[:2]:
                x = torch.relu(layer(layers.functional.interpolate(x, scale_factor=2, mode="nearest")))
            return torch.tanh(self.convolutions[2](x))[:, 0]

    class Critic(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = layers.ModuleList(
                [layers.Conv2d(1, WIDTH, 3, padding=1), layers.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2),
                 layers.Conv2d(2 * WIDTH, 4 * WIDTH, 3, stride=2)]
            )  # fmt: skip
            self.dense = layers.Linear(49 * 4 * WIDTH, 1)

        def forward(self, x: Any) -> Any:
            x = layers.functional.leaky_relu(self.convolutions[0](x[:, None]))
            for layer in self.convolutions[1:]:
                x = layers.functional.leaky_relu(layer(layers.functional.pad(x, (0, 1, 0, 1))))
            return self.dense(x.permute(0, 2, 3, 1).reshape((len(x), -1)))[:, 0]

    return Generator(), Critic()


def take_over(module: Any, params: Any) -> None:
    """Numbers of a linen network into its torch twin."""
    import torch

    tensor = lambda a: torch.from_numpy(np.array(a))  # noqa: E731
    with torch.no_grad():
        module.dense.weight.copy_(tensor(params["Dense_0"]["kernel"].T))
        module.dense.bias.copy_(tensor(params["Dense_0"]["bias"]))
        for i, layer in enumerate(module.convolutions):
            layer.weight.copy_(tensor(jnp.transpose(params[f"Conv_{i}"]["kernel"], (3, 2, 0, 1))))
            layer.bias.copy_(tensor(params[f"Conv_{i}"]["bias"]))


def torch_losses(generator: Any, critic: Any, real: Any, fake: Any) -> tuple[Any, Any]:
    """The critic's game and its penalties, both sides in one pass as ours."""
    import torch

    both = torch.cat([real, fake.detach()]).requires_grad_(True)
    logits = critic(both)
    (slope,) = torch.autograd.grad(logits.sum(), both, create_graph=True)
    game = torch.nn.functional.softplus(logits[len(real) :] - logits[: len(real)]).mean()
    return game, 0.5 * WEIGHT * slope.square().sum((1, 2)).reshape((2, -1)).mean(1).sum()


def torch_loop(generator: Any, critic: Any, batches: Any) -> Any:
    import torch

    own, other = (torch.optim.Adam(m.parameters(), 1e-4, betas=(0.0, 0.99)) for m in (generator, critic))

    def epoch() -> None:
        for real in batches:
            with torch.no_grad():
                fake = generator(torch.randn(BATCH, LATENT))
            game, penalty = torch_losses(generator, critic, real, fake)
            other.zero_grad()
            (game + penalty).backward()
            other.step()
            for parameter in critic.parameters():
                parameter.requires_grad_(False)
            with torch.no_grad():
                beside = critic(real)
            loss = torch.nn.functional.softplus(beside - critic(generator(torch.randn(BATCH, LATENT)))).mean()
            own.zero_grad()
            loss.backward()
            own.step()
            for parameter in critic.parameters():
                parameter.requires_grad_(True)

    return epoch


def compared(game: Any, state: Any, generator: Any, critic: Any, real: np.ndarray) -> dict[str, float]:
    """The largest differences of both libraries' numbers, relative to the largest number."""
    import torch

    z = np.random.default_rng(1).normal(size=(BATCH, LATENT)).astype(np.float32)
    model, judge = state.players
    fake = (model.decode(jnp.asarray(z)) - model.scaling[0]) / model.scaling[1]
    seen = model.standardize(jnp.asarray(real))

    def loss(critic: Any) -> Any:
        found, penalty, _ = jg.losses.critics.penalised(
            jax.random.key(0), lambda x: critic(x).reshape(len(x)), (seen,), (fake,), game.penalties, ((), ()), 0
        )
        return game.game.critic(found.real_logit, found.fake_logit) + penalty, penalty

    (value, penalty), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(judge)
    made = generator(torch.from_numpy(z))
    played, steep = torch_losses(generator, critic, torch.from_numpy(np.array(seen)), made)
    (played + steep).backward()
    kernel = critic.convolutions[1].weight.grad.permute(2, 3, 1, 0).numpy()
    pairs = {
        "samples": (fake, made.detach().numpy()), "critic's loss": (value, (played + steep).item()),
        "penalty": (penalty, steep.item()), "gradient": (slope.params["Conv_1"]["kernel"], kernel),
    }  # fmt: skip
    return {name: float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for name, (a, b) in pairs.items()}


def speed(options: Any) -> None:
    """Steps of the same networks, batches, penalties and optimisers, in turns."""
    import torch

    torch.set_num_threads(2)
    x = images(STEPS)
    start, algorithm = jg.recipes.dcgan(jax.random.key(0), x[0], LATENT, width=WIDTH)
    game = jg.Adversarial(algorithm.critic, game=Relativistic(), penalties=(R1(WEIGHT), R2(WEIGHT)), average=None)
    state = jax.jit(game.init)(jax.random.key(1), start)
    generator, critic = torch_networks()
    take_over(generator, state.players.generator.net.params)
    take_over(critic, state.players.critic.params)
    apart = compared(game, state, generator, critic, np.asarray(x[0]))
    assert max(apart.values()) < 1e-3, apart  # float32, and gradients of gradients
    ours, compile_seconds = loop_of(game, start, x)
    real = torch.from_numpy(np.array(start.standardize(x)))
    a = jnp.asarray(np.random.default_rng(0).normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    calls = {"jaxgen": ours, "torch eager": torch_loop(generator, critic, real),
             "product of 2048": lambda: jax.block_until_ready(product(a))}  # fmt: skip
    seconds = interleaved(calls, rounds=options.rounds)
    limit = 2 * 2048**3 / seconds["product of 2048"] / 1e9
    # multiplications and additions of one image: of the plain convolutions, forward
    of_generator = 2 * (LATENT * 49 * 4 * WIDTH + 9 * (196 * 8 + 784 * 2) * WIDTH**2 + 784 * 9 * WIDTH)
    of_critic = 2 * (784 * 9 * WIDTH + 9 * (196 * 2 + 49 * 8) * WIDTH**2)
    # samples, and six passes of the critic on both sides for its gradient with that of its slopes; then forward and
    # twice as much backward for the generator, whose way back leads through the critic
    count = BATCH * (of_generator + 6 * 2 * of_critic + 3 * of_generator + 2 * of_critic)
    row = {f"{name}, ms a step": 1e3 * seconds[name] / STEPS for name in ("jaxgen", "torch eager")}
    report("gan_speed", {
        **row, "torch eager / jaxgen": seconds["torch eager"] / seconds["jaxgen"],
        "GFlop a step, as plain convolutions": count / 1e9, "matrix product, GFlop/s": limit,
        "share of the matrix product": count * STEPS / seconds["jaxgen"] / 1e9 / limit,
        "differences before timing": apart, "compile s": compile_seconds, "batch": BATCH, "width": WIDTH,
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=("penalties", "speed"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    {"penalties": penalties, "speed": speed}[options.row](options)


if __name__ == "__main__":
    main()
