"""Variational autoencoders on real images: bounds, labels, clusters, strangers, and training steps beside torch.

    python benchmarks/vae.py fashion --data-dir ../shared/data    # plain networks, at most 90 CPU seconds
    python benchmarks/vae.py best --data-dir ../shared/data       # a mixture for a prior, importance-weighted
    python benchmarks/vae.py labels --data-dir ../shared/data     # MNIST with 100 labels, five splits
    python benchmarks/vae.py clusters --data-dir ../shared/data   # MNIST without labels
    python benchmarks/vae.py strangers --data-dir ../shared/data  # MNIST scored by a model of clothes
    python benchmarks/vae.py speed                                # steps beside torch, in the peers' environment

Bits of Fashion-MNIST are drawn once, `x ~ Bernoulli(pixel / 255)`, by fixed seeds; nats are per image of these bits.
The drawing's own entropy is 189.9 nats, independent pixels cost 384.9. Nothing is chosen on the test images.

The peers' environment: `python -m venv peers; peers/bin/pip install torch==2.13.0; peers/bin/pip install -e .`
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import interleaved, report

import jaxgen as jg
from jaxgen.nn.conv import Conv

FLOOR, INDEPENDENT = 189.9, 384.9


class Clock:
    """Seconds of the wall and of all processors since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "cpu s, compilation included": time.process_time() - self.cpu,
            "wall s, compilation included": time.perf_counter() - self.wall,
        }


def grey(folder: Path, name: str, part: str) -> np.ndarray:
    """Images as numbers from 0 to 1, `[N, 28, 28]` float32."""
    return jg.data.read_idx(folder / name / f"{part}-images-idx3-ubyte.gz") / np.float32(255)


def labels(folder: Path, part: str) -> np.ndarray:
    return jg.data.read_idx(folder / "mnist" / f"{part}-labels-idx1-ubyte.gz").astype(np.int32)


def bits(images: np.ndarray, seed: int) -> np.ndarray:
    """Fixed bits of images, uint8."""
    return (np.random.default_rng(seed).random(images.shape, np.float32) < images).astype(np.uint8)


def falling(peak: float, steps: int) -> Any:
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, peak, min(100, steps // 4), steps))


def scored(model: Any, test: np.ndarray, options: Any) -> dict[str, Any]:
    """The bound of all test images, and the tighter one of some of them."""
    elbo = jg.metrics.score(jax.random.key(1), model, test)
    some = test[:: len(test) // options.iwae_events][: options.iwae_events]
    tight = jg.metrics.score(jax.random.key(2), model, some, samples=500)
    return {
        "negative elbo, test, nats": -elbo.mean, "standard error": elbo.standard_error,
        "negative iwae-500, subset, nats": -tight.mean, "standard error of the subset": tight.standard_error,
        "images of the subset": len(some), "entropy floor, nats": FLOOR, "independent pixels, nats": INDEPENDENT,
    }  # fmt: skip


def plain(folder: Path, epochs: int, batch: int = 200, mutated: float = 0.0) -> tuple[Any, dict[str, Any]]:
    """784-400-400-50 and back, its average over steps; of data a share of whose pixels are coins."""
    train = bits(grey(folder, "fashion_mnist", "train"), 0).reshape(-1, 784)
    if mutated:
        rng = np.random.default_rng(7)
        changed = rng.random(train.shape, np.float32) < mutated
        train = np.where(changed, rng.integers(0, 2, train.shape, np.uint8), train)
    clock, steps = Clock(), epochs * (len(train) // batch)
    vae = jg.VAE.init(jax.random.key(0), train, jg.StandardNormal((50,)), hidden=(400, 400))
    algorithm = jg.Gradient(jg.losses.negative_elbo, falling(2e-3, steps), average=jg.Average(0.995))
    fitted = jg.fit(jax.random.key(1), vae, train, algorithm, steps=steps, batch_size=batch)
    return fitted.model, clock.read() | {"epochs": epochs, "status": fitted.status.name}


def fashion(options: Any) -> None:
    model, cost = plain(options.data_dir, options.epochs or 12)
    test = bits(grey(options.data_dir, "fashion_mnist", "t10k"), 1).reshape(-1, 784)
    report("vae_fashion", scored(model, test, options) | cost)


def fresh(images: np.ndarray, batch: int, seed: int) -> Any:
    """Batches of images without end, their bits drawn anew."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for rows in order[: len(images) // batch * batch].reshape(-1, batch):
            chosen = images[rows]
            yield (rng.random(chosen.shape, np.float32) < chosen).astype(np.uint8)


def best(options: Any) -> None:
    """A mixture for a prior, and a second stage on the importance-weighted bound; bits are drawn anew each epoch."""
    images = grey(options.data_dir, "fashion_mnist", "train").reshape(-1, 784)
    batch, latent, per_epoch = 200, 50, len(images) // 200
    clock, first, second = Clock(), (options.epochs or 24) * per_epoch, (options.epochs or 5) * per_epoch
    normal = np.random.default_rng(0).normal(size=(2000, latent)).astype(np.float32)
    prior = jg.Mixture.init(jax.random.key(3), normal, 50, jg.DiagonalGaussian.init)
    vae = jg.VAE.init(jax.random.key(0), bits(images[:1000], 0), prior, hidden=(500, 500))
    loss = jg.losses.elbo(beta=optax.linear_schedule(0.2, 1.0, first // 4))
    stages = (loss, falling(2e-3, first), first), (jg.losses.iwae(8), falling(5e-4, second), second)
    seconds = []
    for stage, (loss, optimizer, steps) in enumerate(stages):
        algorithm = jg.Gradient(loss, optimizer, average=jg.Average(0.998))
        fitted = jg.fit(jax.random.key(1 + stage), vae, fresh(images, batch, stage), algorithm, steps=steps)
        vae, seconds = fitted.model, [*seconds, clock.read()]
        print(fitted.status, seconds[-1], flush=True)
    test = bits(grey(options.data_dir, "fashion_mnist", "t10k"), 1).reshape(-1, 784)
    report("vae_best", scored(vae, test, options) | seconds[-1] | {"of the first stage": seconds[0]})


def few(y: np.ndarray, seed: int, each: int = 10) -> np.ndarray:
    """Indices of ten images of each digit."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(y == k), each, replace=False) for k in range(10)])


def with_labels(key: Any, x: np.ndarray, y: np.ndarray, known: np.ndarray, hidden: int, likelihood: Any,
                steps: int) -> Any:  # fmt: skip
    """A semi-supervised model of events of which a hundred have a label: at first of these, then of all.

    Labels are a sixth of each batch. Widths, step size and the first 300 steps were chosen on split 100.
    """
    vae = jg.VAE.init(key, x, jg.StandardNormal((8,)), hidden=(hidden,), context_shape=(10,), likelihood=likelihood)
    start = jg.SemiSupervised.init(key, x, vae, hidden=(hidden, hidden), alpha=10.0)
    few_steps = jg.Gradient(jg.losses.own, falling(1e-3, 300))
    model = jg.fit(key, start, {"x": x[known], "label": y[known]}, few_steps, steps=300, batch_size=100).model
    times = len(x) // 600
    label = np.concatenate([np.full(len(x), -1), np.repeat(y[known], times)]).astype(np.int32)
    rows = np.concatenate([x, np.repeat(x[known], times, axis=0)])
    algorithm = jg.Gradient(jg.losses.own, falling(3e-3, steps), average=jg.Average(0.998))
    return jg.fit(key, model, {"x": rows, "label": label}, algorithm, steps=steps, batch_size=300).model


def few_labels(options: Any) -> None:
    """M1 and M2, and labels spread over M1: features of a plain autoencoder, those that it uses.

    Of 50 latent dimensions some are as the prior says, whatever the image: in units of their deviations they are noise.
    """
    train, test = (grey(options.data_dir, "mnist", part).reshape(-1, 784) for part in ("train", "t10k"))
    y, truth = labels(options.data_dir, "train"), labels(options.data_dir, "t10k")
    clock, steps = Clock(), (options.epochs or 20) * 300
    first = jg.VAE.init(jax.random.key(0), train, jg.StandardNormal((50,)), hidden=(600, 600))
    algorithm = jg.Gradient(jg.losses.negative_elbo, falling(2e-3, steps), average=jg.Average(0.995))
    first = jg.fit(jax.random.key(1), first, train, algorithm, steps=steps, batch_size=200).model
    x, held = (np.concatenate([np.asarray(first.encode(a[i : i + 10_000])) for i in range(0, len(a), 10_000)])
               for a in (train, test))  # fmt: skip
    used = x.std(axis=0) > 0.2
    x, held = x[:, used], held[:, used]
    error = lambda found: 100 * float((np.asarray(found).argmax(axis=1) != truth).mean())  # noqa: E731
    errors: dict[str, list[float]] = {"M1+M2": [], "M1, labels spread over all features, those of the test too": []}
    if options.pixels:
        errors["M2 of pixels"] = []
    for split in range(options.splits):
        key, known = jax.random.key(split), few(y, split)
        model = with_labels(key, x, y, known, 100, jg.likelihoods.gaussian, options.steps or 5000)
        errors["M1+M2"].append(error(model.classify(held)))
        label = np.full(len(x) + len(held), -1)
        label[known] = y[known]
        spread = jg.tasks.spread_labels(np.concatenate([x, held]), label)[len(x) :]
        errors["M1, labels spread over all features, those of the test too"].append(error(spread))
        if options.pixels:
            pixels = with_labels(key, train, y, known, 300, jg.likelihoods.bernoulli, options.steps or 5000)
            errors["M2 of pixels"].append(error(pixels.classify(test)))
        print({name: found[-1] for name, found in errors.items()}, flush=True)
    report("vae_labels", {"error, %, of each split": errors, "mean": {k: np.mean(v) for k, v in errors.items()},
                          "dimensions used of 50": int(used.sum())} | clock.read())  # fmt: skip


def clusters(options: Any) -> None:
    """A mixture of ten normals for a prior: started by EM on the means of a plain autoencoder, then trained with it."""
    images, y = grey(options.data_dir, "mnist", "t10k" if options.quick else "train"), labels(
        options.data_dir, "t10k" if options.quick else "train")  # fmt: skip
    x, found = images.reshape(-1, 784), []
    clock = Clock()
    for seed in range(options.splits):
        keys, steps = jax.random.split(jax.random.key(seed), 4), (options.epochs or 12) * (len(x) // 200)
        start = jg.VAE.init(keys[0], x, jg.StandardNormal((10,)), hidden=(500, 500))
        warm = jg.Gradient(jg.losses.elbo(beta=optax.linear_schedule(0.0, 1.0, steps)), falling(2e-3, steps))
        model = jg.fit(keys[1], start, x, warm, steps=steps, batch_size=200).model
        means = np.asarray(model.encode(x))
        prior = jg.fit(keys[2], jg.Mixture.init(keys[2], means, 10, jg.Gaussian.init), means, restarts=5).model
        before = jg.tasks.agreement(y, prior.predict(means)).accuracy
        model = jg.VAE(prior, model.encoder, model.decoder, model.likelihood, model.event_shape)
        train = jg.Gradient(jg.losses.elbo(), falling(1e-3, steps), average=jg.Average(0.998))
        model = jg.fit(keys[3], model, x, train, steps=steps, batch_size=200).model
        after = jg.tasks.agreement(y, model.prior.predict(model.encode(x))).accuracy
        found.append((before, after))
        print(found, flush=True)
    report("vae_clusters", {"accuracy of EM on the means": [a for a, _ in found], "accuracy": [b for _, b in found],
                            "mean accuracy": np.mean([b for _, b in found])} | clock.read())  # fmt: skip


def auroc(strange: np.ndarray, usual: np.ndarray) -> float:
    """The probability that a stranger scores above a usual image."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([strange, usual]))[: len(strange)]
    return float((ranks.sum() - len(strange) * (len(strange) + 1) / 2) / (len(strange) * len(usual)))


def strangers(options: Any) -> None:
    """A model of clothes scores digits higher than clothes; what a posterior of their own would gain tells them apart.

    The ratio is that of Ren et al. (2019), Likelihood ratios for out-of-distribution detection, at the share of mutated
    pixels in the middle of the range that they tried.
    """
    import zlib

    model, cost = plain(options.data_dir, options.epochs or 10)
    usual, strange = (bits(grey(options.data_dir, name, "t10k"), 1).reshape(-1, 784)[:2000]
                      for name in ("fashion_mnist", "mnist"))  # fmt: skip
    train = bits(grey(options.data_dir, "fashion_mnist", "train"), 0).reshape(-1, 784)
    score = lambda x: np.asarray(model.iwae(jax.random.key(3), x, samples=20))  # noqa: E731
    a, b = score(strange), score(usual)
    # complexity: the length of the picture in a general code (Serra et al. 2020), nats
    length = lambda x: np.array([8 * np.log(2) * len(zlib.compress(np.packbits(row).tobytes(), 9)) for row in x])  # noqa: E731
    typical = np.asarray(model.iwae(jax.random.key(4), train[:2000], samples=20)).mean()
    background = jg.Bernoulli.init(jax.random.key(0), train, prior=1.5)
    other, _ = plain(options.data_dir, options.epochs or 10, mutated=0.2)
    background_score = lambda x: np.asarray(other.iwae(jax.random.key(3), x, samples=20))  # noqa: E731
    ratio = lambda x, s: s - np.asarray(background.log_prob(x))  # noqa: E731
    report("vae_strangers", {
        "AUROC by minus the likelihood": auroc(-a, -b),
        "AUROC by typicality": auroc(np.abs(a - typical), np.abs(b - typical)),
        "AUROC by complexity": auroc(-a - length(strange), -b - length(usual)),
        "AUROC by likelihood regret": auroc(
            *(jg.tasks.LikelihoodRegret()(jax.random.key(5), model, x.astype(np.float32)) for x in (strange, usual))),
        "AUROC by the ratio to a model of mutated clothes": auroc(
            background_score(strange) - a, background_score(usual) - b),
        "AUROC by the ratio to independent pixels": auroc(-ratio(strange, a), -ratio(usual, b)),
    } | cost)  # fmt: skip


# ---- steps beside torch


def torch_step(network: Any, batches: np.ndarray, fused: bool) -> Any:
    """An epoch of a torch training loop."""
    import torch

    torch.set_num_threads(2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=fused)
    data = torch.from_numpy(batches)

    def epoch() -> None:
        for x in data:
            optimizer.zero_grad(set_to_none=True)
            network(x).backward()
            optimizer.step()

    return epoch


def torch_mlp() -> Any:
    import torch

    layers = torch.nn

    class Network(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = layers.Sequential(layers.Linear(784, 400), layers.ReLU(), layers.Linear(400, 40))
            self.decoder = layers.Sequential(layers.Linear(20, 400), layers.ReLU(), layers.Linear(400, 784))

        def forward(self, x: Any) -> Any:
            mean, log_scale = self.encoder(x).chunk(2, dim=1)
            z = mean + torch.exp(log_scale) * torch.randn_like(mean)
            logits = self.decoder(z)
            score = layers.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            rate = 0.5 * (mean**2 + torch.expm1(2 * log_scale)).sum() - log_scale.sum()
            return (score + rate) / len(x)

    return Network()


def torch_conv(width: int) -> Any:
    import torch

    layers = torch.nn

    class Network(layers.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = functools.partial(layers.Conv2d, kernel_size=4, stride=2, padding=1)
            wide = functools.partial(layers.Conv2d, kernel_size=3, padding=1)
            self.encoder = layers.Sequential(
                conv(1, width), layers.ReLU(), conv(width, 2 * width), layers.ReLU(), layers.Flatten(),
                layers.Linear(98 * width, 40),
            )  # fmt: skip
            self.dense = layers.Linear(20, 98 * width)
            self.decoder = layers.Sequential(
                layers.ReLU(), wide(2 * width, 4 * width), layers.PixelShuffle(2), layers.ReLU(), wide(width, 4),
                layers.PixelShuffle(2),
            )  # fmt: skip
            self.width = width

        def forward(self, x: Any) -> Any:
            mean, log_scale = self.encoder(x[:, None]).chunk(2, dim=1)
            z = mean + torch.exp(log_scale) * torch.randn_like(mean)
            logits = self.decoder(self.dense(z).reshape(-1, 2 * self.width, 7, 7))[:, 0]
            score = layers.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            rate = 0.5 * (mean**2 + torch.expm1(2 * log_scale)).sum() - log_scale.sum()
            return (score + rate) / len(x)

    return Network()


class ConvEncoder(nn.Module):
    """Two convolutions of stride two and a dense layer, as in the peer."""

    width: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = x.reshape((-1, 28, 28, 1))
        y = nn.relu(Conv(self.width, size=4, stride=2)(y))
        y = nn.relu(Conv(2 * self.width, size=4, stride=2)(y))
        y = nn.Dense(40)(y.reshape((len(y), -1)))
        return y.reshape((*x.shape[:-2], 2, 20))


class ConvDecoder(nn.Module):
    """A dense layer and two convolutions whose channels become pixels, as in the peer."""

    width: int

    @nn.compact
    def __call__(self, z: Any) -> Any:
        y = nn.relu(nn.Dense(98 * self.width)(z.reshape((-1, 20)))).reshape((-1, 7, 7, 2 * self.width))
        y = nn.relu(shuffled(Conv(4 * self.width)(y)))
        y = shuffled(Conv(4)(y))
        return y.reshape((*z.shape[:-1], 1, 28, 28))


def shuffled(x: Any) -> Any:
    """Channels as pixels: `[N, H, W, 4 C] -> [N, 2 H, 2 W, C]`."""
    n, h, w, c = x.shape
    return x.reshape((n, h, w, 2, 2, c // 4)).transpose((0, 1, 3, 2, 4, 5)).reshape((n, 2 * h, 2 * w, c // 4))


def epoch_of(algorithm: Any, model: Any, batches: Any, seeds: int = 1) -> tuple[Any, float]:
    """One epoch in one scan, of several seeds side by side, and the seconds that it took to compile."""

    def epoch(key: Any, state: Any) -> Any:
        step = lambda state, each: algorithm.step(each[0], state, jg.Batch(each[1]))  # noqa: E731
        return jax.lax.scan(step, state, (jax.random.split(key, len(batches)), batches))[0]

    one = epoch if seeds == 1 else jax.vmap(epoch)
    key = jax.random.key(0) if seeds == 1 else jax.random.split(jax.random.key(0), seeds)
    start = functools.partial(algorithm.init, jax.random.key(0))
    state = start(model) if seeds == 1 else jax.vmap(lambda _: start(model))(jnp.arange(seeds))
    begun = time.perf_counter()
    run = jax.jit(one).lower(key, state).compile()
    seconds = time.perf_counter() - begun
    return lambda: jax.block_until_ready(run(key, state)), seconds


def gflops(run: Any, flops: float) -> float:
    begun = time.perf_counter()
    run()
    return flops / (time.perf_counter() - begun) / 1e9


def speed(options: Any) -> None:
    """Steps of the same networks, batches and optimiser, in turns."""
    steps, batch, width = 30, 128, options.width
    x = (np.random.default_rng(0).random((steps, batch, 28, 28)) < 0.3).astype(np.float32)
    algorithm = jg.Gradient(jg.losses.negative_elbo, optax.adam(1e-3))
    flat = x.reshape((steps, batch, 784))
    vae = jg.VAE.init(jax.random.key(0), flat[0], jg.StandardNormal((20,)), hidden=(400,))
    conv = jg.VAE.init(jax.random.key(0), x[0], jg.StandardNormal((20,)), encoder=ConvEncoder(width),
                       decoder=ConvDecoder(width))  # fmt: skip
    row: dict[str, Any] = {}
    calls, compiled = {}, {}
    calls["mlp, jaxgen"], compiled["mlp"] = epoch_of(algorithm, vae, jnp.asarray(flat))
    calls["conv, jaxgen"], compiled["conv"] = epoch_of(algorithm, conv, jnp.asarray(x))
    calls["mlp, 8 seeds, jaxgen"], compiled["8 seeds"] = epoch_of(algorithm, vae, jnp.asarray(flat), 8)
    for name, make, data in (("mlp", torch_mlp, flat), ("conv", functools.partial(torch_conv, width), x)):
        calls[f"{name}, torch eager"] = torch_step(make(), data, False)
        calls[f"{name}, torch fused Adam"] = torch_step(make(), data, True)
    seconds = interleaved(calls, rounds=options.rounds)
    row |= {f"{name}, ms a step": 1e3 * t / steps for name, t in seconds.items()}
    for name in ("mlp", "conv"):
        for peer in ("torch eager", "torch fused Adam"):
            row[f"{name}: {peer} / jaxgen"] = seconds[f"{name}, {peer}"] / seconds[f"{name}, jaxgen"]
    row["8 seeds / one"] = seconds["mlp, 8 seeds, jaxgen"] / seconds["mlp, jaxgen"]
    row |= {f"{name}, compile s": t for name, t in compiled.items()}
    # multiplications and additions of a step, forward and twice as many backward
    flops = {
        "mlp": 3 * 2 * batch * (784 * 400 + 400 * 40 + 20 * 400 + 400 * 784),
        "conv": 3 * 2 * batch * (196 * 16 * width + 49 * 16 * width * 2 * width + 98 * width * 60
                                 + 49 * 9 * 2 * width * 4 * width + 196 * 9 * width * 4),
    }  # fmt: skip
    a = jnp.asarray(np.random.default_rng(0).normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    limit = max(gflops(lambda: jax.block_until_ready(product(a)), 2 * 2048**3) for _ in range(5))
    row["matrix product, GFlop/s"] = limit
    for name, count in flops.items():
        row[f"{name}: share of the matrix product"] = count / (seconds[f"{name}, jaxgen"] / steps) / 1e9 / limit
    report("vae_speed", row | {"width of the convolutions": width, "batch": batch})


ROWS = {
    "fashion": fashion, "best": best, "labels": few_labels, "clusters": clusters, "strangers": strangers,
    "speed": speed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=tuple(ROWS))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--pixels", action="store_true", help="labels: a model of pixels too, minutes a split")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iwae-events", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="the small set in place of the large one")
    options = parser.parse_args()
    ROWS[options.row](options)


if __name__ == "__main__":
    main()
