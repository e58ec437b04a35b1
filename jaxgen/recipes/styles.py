"""Style-based generative adversarial networks: the game, growth from coarse images to fine ones, and truncation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_array
from jaxgen.fit.adversarial import Adversarial
from jaxgen.fit.averages import Average
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.neural.gan import Generator
from jaxgen.nn.net import Net
from jaxgen.nn.style import StyleCritic, StyleGenerator, mapping_of, noise_size

#: of the generator of `style_gan`
STYLE_AVERAGE = Average(0.999)
#: noise vectors whose mean style `truncated` takes
MEAN_OF = 10_000


def style_gan(
    key: Any, x: Any, latent: int = 64, *, width: int = 64, noise: bool = True,
    context_shape: tuple[int, ...] | None = None, average: Any = STYLE_AVERAGE,
) -> tuple[Generator, Adversarial]:  # fmt: skip
    """A style-based generative adversarial network, for images. It can start on small ones and be `grown`.

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`, sides of 4 or more.
        latent: number of noise dimensions behind the style.
        width: channels of the smallest grid; half as many with each doubling.
        noise: whether there is noise at every pixel too.
        context_shape: shape of one context `[C]`, for images that depend on it, which the critic sees too.
        average: of the generator's iterates, which is the fitted model; None keeps none.

    Raises:
        ShapeError: events that are no images.

    Source: Karras, Laine and Aila (2019), A style-based generator architecture for generative adversarial networks;
    Karras et al. (2020), Analyzing and improving the image quality of StyleGAN.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, algorithm = style_gan(jax.random.key(0), jnp.arange(160.0).reshape(10, 4, 4), 4, width=8)
        >>> model.event_shape
        (4, 4)
    """
    x = as_array(x)
    event = tuple(map(int, x.shape[1:]))
    module = StyleGenerator(event, latent, noise, width)
    base = StandardNormal((latent + (noise_size(event) if noise else 0),))
    model = Generator.init(key, x, base, module=module, context_shape=context_shape)
    return model, Adversarial(StyleCritic(event, width), average=average)


def grown(key: Any, model: Generator, critic: Net) -> tuple[Generator, Net]:
    """Return a style-based generator and its critic for images of twice the side, with all that they learnt.

    What they draw and say is the same at first: the generator's pictures have every pixel four times, and the critic
    sees means of 2 by 2 pixels. The new layers start at zero, and train on.

    Args:
        key: typed key of the new layers.
        model: of `style_gan`, fitted: `fitted.model`.
        critic: its critic, `fitted.state.critic.model`.

    Returns:
        the model to fit on images of twice the side, and the critic to put into the algorithm.

    Raises:
        ModelError: networks of another kind.

    Source: Karras et al. (2018), Progressive growing of GANs for improved quality, stability, and variation.

    Example:
        >>> import dataclasses, jax, jax.numpy as jnp
        >>> model, game = style_gan(jax.random.key(0), jnp.arange(160.0).reshape(10, 4, 4), 4, width=8)
        >>> state = game.init(jax.random.key(1), model)  # or that of a fit, `fitted.state`
        >>> model, critic = grown(jax.random.key(2), model, state.critic.model)
        >>> finer = dataclasses.replace(game, critic=critic)  # fit(key, model, finer images, finer)
        >>> model.event_shape, critic.module.in_shape
        ((8, 8), (8, 8))
    """
    called = "grown(key, model, critic)"
    coarse = _module(model.net, StyleGenerator, called)
    judge = _module(critic, StyleCritic, called)
    event = tuple(2 * side for side in model.event_shape[:2]) + tuple(model.event_shape[2:])
    module = dataclasses.replace(coarse, out_shape=event)
    base = StandardNormal((coarse.latent + (noise_size(event) if coarse.noise else 0),))
    context = model.net.params["styles"]["Dense_0"]["kernel"].shape[0] - coarse.latent
    more = [(context,)] if context else []
    of_generator, of_critic = jax.random.split(key)
    net = _carried(of_generator, module, model.net, base.event_shape, *more)
    finer = dataclasses.replace(judge, in_shape=event)
    return (
        dataclasses.replace(model, base=base, net=net, event_shape=event),
        _carried(of_critic, finer, critic, event, *more),
    )


def truncated(key: Any, model: Generator, psi: float, *, context: Any = None) -> Generator:
    """Return a style-based generator whose styles lie nearer to the mean one: likelier images, less of a variety.

    `w' = center + psi (w - center)`, the center a mean over 10,000 styles.

    Args:
        key: typed key of these.
        model: of `style_gan`.
        psi: 1 leaves the styles, 0 is the mean one for all.
        context: of these styles, `[*context]` or `[10_000, *context]`, where the model takes one.

    Raises:
        ModelError: a model of another kind.

    Source: Karras, Laine and Aila (2019), A style-based generator architecture for generative adversarial networks,
    section 2.1 and appendix B.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, _ = style_gan(jax.random.key(0), jnp.arange(160.0).reshape(10, 4, 4), 4, width=8)
        >>> truncated(jax.random.key(1), model, 0.5).net.module.truncation
        0.5
    """
    module = _module(model.net, StyleGenerator, "truncated(key, model, psi)")
    z = jax.random.normal(key, (MEAN_OF, module.latent), model.net.params["constant"].dtype)
    rows = [] if context is None else [jnp.broadcast_to(context, (MEAN_OF, jnp.shape(context)[-1]))]
    styles = Net(model.net.params["styles"], mapping_of(module))(z, *rows)
    params = {name: value for name, value in model.net.params.items() if name != "center"}
    if psi != 1:
        params["center"] = styles.mean(axis=0)
    net = Net(params, dataclasses.replace(module, truncation=float(psi)))
    return dataclasses.replace(model, net=net)


def _module(net: Any, kind: type, called: str) -> Any:
    if not (isinstance(net, Net) and isinstance(net.module, kind)):
        raise ModelError(
            "the network is of another kind", called=called, expected=f"a Net of a {kind.__name__}",
            got=repr(net)[:200], fix="the generator of jaxgen.recipes.style_gan, and the critic of its fit",
        )  # fmt: skip
    return net.module


def _carried(key: Any, module: Any, net: Net, *shapes: tuple[int, ...]) -> Net:
    """A larger network with the parameters of a smaller one in the places of the same names."""
    new = Net.init(key, module, *(jnp.zeros(shape, jax.tree.leaves(net.params)[0].dtype) for shape in shapes))
    return Net({**new.params, **net.params}, module)
