"""A variational autoencoder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, plot, recipes
from jaxgen.fit.driver import fit
from jaxgen.metrics.likelihood import score
from jaxgen.models.densities.bernoulli import Bernoulli
from jaxgen.report import Row, drawn
from jaxgen.tour.shared import add_titles, new_figure, timing


def autoencoder(key: Any, quick: bool) -> Row:
    """VAE on binary pictures of clothes, against independent pixels."""
    start, train_key, rate, coins, held_coins = jax.random.split(key, 5)
    d = data.fashion_mnist()
    grey = jnp.asarray(d.images, jnp.float32) / 255
    # four coins for each training pixel: the same pictures, less to learn by heart
    train = jax.random.bernoulli(coins, grey[d.train], (4, len(d.train), 28, 28)).reshape(-1, 28, 28)
    test = jax.random.bernoulli(held_coins, grey[d.test])
    train, test, steps = (train[:200], test[:50], 5) if quick else (train, test, 700)
    model, algorithm = recipes.vae(start, train, 20)
    fitted = fit(train_key, model, train, algorithm, steps=steps, batch_size=128)
    elbo, found = score(key, fitted.model, test), score(key, fitted.model, test, samples=32)
    shown = 30
    rebuilt = fitted.model.reconstruct(test[:shown])
    times, samples = timing(rate, fitted, 1000)
    figure, axes = new_figure(2, 3.8, rows=2)
    # means are grey beside the grey pictures, samples are bits beside bits
    pictures = (grey[d.test][:shown], rebuilt, test[:shown], samples[:shown])
    for ax, each in zip(axes.flat, pictures, strict=True):
        plot.images(jnp.asarray(each, jnp.float32), ax, columns=10)
    add_titles(
        axes.flat, "held-out pictures, grey", "means of pixels, from the bits below left",
        "held-out data: bits drawn from the grey", "samples: bits",
    )  # fmt: skip
    z = fitted.model.encode(test)
    room, (left, right) = new_figure(2, 3.6)
    plot.latent_map(z, left, label=np.asarray(d.labels)[d.test][: len(test)])
    # the coordinates that say most: whose means move the most from picture to picture
    order = np.argsort(-np.var(np.asarray(z), axis=0))[:6].tolist()
    plot.traversals(fitted.model, z[3], right, coordinates=order, steps=9)
    add_titles((left, right), "held-out pictures, by class", "from one picture along six coordinates")
    curve, ax = new_figure(1, 2.6)
    plot.history(fitted, "loss", ax)
    baseline = score(key, Bernoulli.init(start, train, prior=1.5), test)
    return Row(
        data="Fashion-MNIST, binary", kind=found.kind, unit="image", held_out=found.mean,
        baselines={"independent pixels": baseline.mean}, timing=times, kept=fitted.model,
        text="A variational autoencoder with 20 latent dimensions and one hidden layer of 400 on either side, "
        f"{fitted.steps} steps of Adam on 4000 pictures of clothes, each pixel black with the probability of its "
        "brightness. The number is a lower bound of the log-likelihood of 1000 other pictures, importance weighted "
        f"over 32 draws (the plain bound, the ELBO, is {elbo.mean:.1f}); the baseline's is exact.",
        pictures=[
            drawn(
                figure, "Above: held-out pictures, and what remains of them after 20 numbers that the encoder saw in "
                "their bits. Below: these bits, and bits drawn from the model.",
            ),
            drawn(
                room, "Left: where the encoder puts the held-out pictures, along the two directions in which they "
                "differ most. Right: what the decoder makes of a picture's 20 numbers when one of them goes from 2.5 "
                "below to 2.5 above.",
            ),
            drawn(curve, "Training: minus the bound of each batch, and its running mean."),
        ],
    )  # fmt: skip
