"""Named pairs of a model and the algorithm that trains it: `model, algorithm = recipe(key, x)`, then `fit`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import bijections, losses
from jaxgen.bijections import (
    Autoregressive,
    BlockAutoregressive,
    Chain,
    CircularSplineTransform,
    Coupling,
    Interval,
    Inverse,
    Reshape,
    Residual,
    SplineTransform,
)
from jaxgen.bijections.basics import is_periodic
from jaxgen.bijections.supports import Support, layer_of, real, to_real
from jaxgen.bijections.transforms import AFFINE, Transform
from jaxgen.core.inputs import as_array, floating
from jaxgen.core.methods import latent_shape
from jaxgen.fit.adversarial import Adversarial
from jaxgen.fit.averages import Average
from jaxgen.fit.contrastive import ContrastiveDivergence, default_optimizer
from jaxgen.fit.em import EM
from jaxgen.fit.gradient import Gradient
from jaxgen.models.chains.hmm import HMM
from jaxgen.models.densities.dequantized import Dequantized
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.densities.von_mises import VonMises
from jaxgen.models.energy.rbm import RBM
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.neural.flow import Flow
from jaxgen.models.neural.gan import Generator
from jaxgen.models.neural.vae import VAE
from jaxgen.nn.conv import ConvCritic, ConvGenerator
from jaxgen.nn.mlp import MLP
from jaxgen.ops import likelihoods

#: of the generators of `gan` and `dcgan`
GAN_AVERAGE, DCGAN_AVERAGE = Average(0.995), Average(0.999)


def gaussian_mixture(
    key: Any, x: Any, k: int = 3, *, leaf: Callable[[Any, Any], Any] = Gaussian.init
) -> tuple[Mixture, EM]:
    """A mixture of K Gaussians that starts from k-means, and EM.

    Args:
        key: typed key.
        x: events `[N, D]`.
        k: number of components, 1 to N.
        leaf: `(key, x) -> model`: `DiagonalGaussian.init` for independent coordinates.

    Raises:
        ModelError: k below 1 or above N. DataError: data that are not data.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.old_faithful().values
        >>> model, algorithm = gaussian_mixture(jax.random.key(0), x, 2)
        >>> fitted = jg.fit(jax.random.key(1), model, x, algorithm)
        >>> fitted.status.name, fitted.model.components.mean[:, 0].sort().round(1).tolist()
        ('CONVERGED', [2.0, 4.300000190734863])
    """
    return Mixture.init(key, x, k, leaf), EM()


def hidden_markov(
    key: Any, x: Any, k: int = 3, *, leaf: Callable[[Any, Any], Any] = Gaussian.init, stickiness: float = 0.9
) -> tuple[HMM, EM]:
    """A hidden Markov model of K states whose emissions start from k-means, and EM, which on it is Baum-Welch.

    Args:
        key: typed key.
        x: sequences `[N, T, *event]`.
        k: number of states.
        leaf: `(key, x [M, *event]) -> model` of one time step: `Poisson.init` for counts.
        stickiness: probability of staying in a state at the start.

    Raises:
        ModelError: k or stickiness out of range. ShapeError: one sequence without a batch axis.

    Example:
        >>> import jax, jaxgen as jg
        >>> from jaxgen.models.densities.poisson import Poisson
        >>> counts = jg.data.earthquakes().counts
        >>> model, algorithm = hidden_markov(jax.random.key(0), counts[None], 3, leaf=Poisson.init)
        >>> model.transition.shape
        (3, 3)
    """
    return HMM.init(key, x, k, leaf, stickiness=stickiness), EM()


def rbm(key: Any, x: Any, hidden: int = 16, *, step_size: float = 0.1) -> tuple[RBM, ContrastiveDivergence]:
    """A restricted Boltzmann machine, and persistent contrastive divergence with averaged iterates.

    Args:
        key: typed key.
        x: bits `[N, V]`.
        hidden: number of hidden units; up to 22 leave the likelihood exact.
        step_size: of the first step of gradient descent; it falls to zero.

    Raises:
        DataError: data that are not zeros and ones. ModelError: no hidden units.

    Source: Tieleman (2008), Training restricted Boltzmann machines using approximations to the likelihood gradient.

    Example:
        >>> import jax
        >>> model, algorithm = rbm(jax.random.key(0), [[0, 1, 1], [1, 0, 0]], 4)
        >>> model.weights.shape, algorithm.chains
        ((3, 4), 100)
    """
    return RBM.init(key, as_array(x), hidden), ContrastiveDivergence(default_optimizer(step_size))


def realnvp(
    key: Any, x: Any, *, base: Any = None, layers: int = 12, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A RealNVP flow, and Adam on the exact likelihood.

    Gradients are clipped to a norm of 1; the fitted model averages the iterates.

    Args:
        key: typed key.
        x: events `[N, D]`, D at least 2.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of coupling layers.
        features: hidden widths of each layer's network.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors of two or more coordinates. DataError: data outside of the
            support.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = realnvp(jax.random.key(0), x, layers=2)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(Coupling.init, features=tuple(features), context_shape=context_shape)
    return _flow(key, x, base, layer, layers, support, step_size, steps)


def neural_spline_flow(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64), bins: int = 16,
    bound: float = 5.0, autoregressive: bool = False, context_shape: tuple[int, ...] | None = None,
    support: Support = real, step_size: float = 4e-3, steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A flow of rational-quadratic splines, and Adam on the exact likelihood.

    The most accurate of the flows here, and about twice the cost of `realnvp`, with whose arguments it shares the
    meaning of its own.

    Args:
        key: typed key.
        x: events `[N, D]`, D at least 2, or any D where autoregressive.
        base: any density of events `[D]`; None is the standard normal, of angles the uniform density.
        layers: number of layers.
        features: hidden widths of each layer's network.
        bins: pieces of a spline.
        bound: splines act on the interval `[-bound, bound]`, in units of the data's scale and around where each network
            puts it; outside of it they are straight.
        autoregressive: False for couplings, which sample as fast as they score; True for autoregressive layers, more
            flexible, whose samples take several passes.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`; for angles `circle`, with circular splines.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no such vectors. DataError: data outside of the support.

    Source: Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = neural_spline_flow(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.log_prob(x).shape
        (100,)
    """
    periodic = is_periodic(support)
    transform: Transform = CircularSplineTransform(bins) if periodic else SplineTransform(bins, bound)
    layer = functools.partial(
        Autoregressive.init if autoregressive else Coupling.init, transform=transform, features=tuple(features),
        context_shape=context_shape,
    )  # fmt: skip
    return _flow(key, x, base, layer, layers, support, step_size, steps)


def maf(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A masked autoregressive flow of affine maps, and Adam on the exact likelihood.

    Densities take one pass of each network, samples several. Arguments as of `realnvp`; D may be 1.

    Raises:
        ModelError, ShapeError: events that are no vectors. DataError: data outside of the support.

    Source: Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = maf(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.sample(jax.random.key(1), (5,)).shape
        (5, 2)
    """
    layer = functools.partial(Autoregressive.init, features=tuple(features), context_shape=context_shape)
    return _flow(key, x, base, layer, layers, support, step_size, steps)


def iaf(
    key: Any, x: Any, *, base: Any = None, layers: int = 8, features: tuple[int, ...] = (64, 64),
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 4e-3,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """An inverse autoregressive flow of affine maps, and Adam on the exact likelihood.

    Samples and their densities take one pass of each network, which makes it the one for `losses.reverse_kl`; the
    density of given events takes several. Arguments as of `realnvp`; D may be 1.

    Raises:
        ModelError, ShapeError: events that are no vectors. DataError: data outside of the support.

    Source: Kingma et al. (2016), Improving variational inference with inverse autoregressive flow.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = iaf(jax.random.key(0), x, layers=2, features=(8,))
        >>> model.sample(jax.random.key(1), (5,)).shape
        (5, 2)
    """
    layer = functools.partial(Autoregressive.init, features=tuple(features), context_shape=context_shape)
    return _flow(key, x, base, functools.partial(_inverse, layer), layers, support, step_size, steps)


def residual_flow(
    key: Any, x: Any, *, base: Any = None, layers: int = 16, features: tuple[int, ...] = (32, 32), bound: float = 0.9,
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 1e-2,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A flow of invertible residual blocks, and Adam on the exact likelihood.

    The log-determinant of each block is exact, by its Jacobian: made for up to a hundred coordinates. `log_prob` takes
    the direct way, samples a fixed point in each block.

    Args:
        key: typed key.
        x: events `[N, D]`.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of blocks.
        features: hidden widths of each block's network.
        bound: of each network's Lipschitz constant, between 0 and 1.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors, a bound out of range. DataError: data outside of the
            support.

    Source: Behrmann et al. (2019), Invertible residual networks; Chen et al. (2019), Residual flows for invertible
    generative modeling.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = residual_flow(jax.random.key(0), x, layers=2)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(Residual.init, features=tuple(features), bound=bound, context_shape=context_shape)
    return _flow(key, x, base, functools.partial(_inverse, layer), layers, support, step_size, steps)


def bnaf(
    key: Any, x: Any, *, base: Any = None, layers: int = 6, hidden: int = 16, depth: int = 1,
    context_shape: tuple[int, ...] | None = None, support: Support = real, step_size: float = 2e-2,
    steps: int | None = None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    """A block neural autoregressive flow, and Adam on the exact likelihood.

    `log_prob` takes the direct way, samples a search in each layer.

    Args:
        key: typed key.
        x: events `[N, D]`.
        base: any density of events `[D]`, in units of the data's scale; None is the standard normal.
        layers: number of layers, with permutations between them.
        hidden: hidden units of each coordinate in each layer.
        depth: hidden layers of each layer's network.
        context_shape: shape of one context for a conditional density; None for none.
        support: what values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ModelError, ShapeError: events that are no vectors, no hidden units. DataError: data outside of the support.

    Source: De Cao, Titov and Aziz (2019), Block neural autoregressive flow.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.two_moons(jax.random.key(1), 100)
        >>> model, algorithm = bnaf(jax.random.key(0), x, layers=2, hidden=4)
        >>> model.event_shape
        (2,)
    """
    layer = functools.partial(BlockAutoregressive.init, hidden=hidden, layers=depth, context_shape=context_shape)
    return _flow(key, x, base, functools.partial(_inverse, layer), layers, support, step_size, steps)


def glow(
    key: Any, x: Any, *, highest: int | None = None, levels: int = 2, depth: int = 8, width: int = 32,
    transform: Transform = AFFINE, context_shape: tuple[int, ...] | None = None, support: Support = real,
    step_size: float = 5e-3, steps: int | None = None,
) -> tuple[Flow | Dequantized, Gradient]:  # fmt: skip
    """Glow for images, and Adam on the likelihood: exact for real numbers, a bound for pixels of whole numbers.

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`; the first thousand start the units of the layers.
        highest: the highest level of pixels that are whole numbers from 0, such as 255. The model is then `Dequantized`
            with uniform noise, on the support that this takes. None for real numbers.
        levels: scales; `2^levels` divides H and W.
        depth: steps of each level.
        width: hidden channels of each step's network.
        transform: what a coupling does to a number.
        context_shape: shape of one context for a conditional density; None for none.
        support: what real values x can take, as in `Flow.init`.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        ShapeError: events that are no images. ModelError: sides that cannot be halved so often. DataError: data outside
            of the support, pixels that are no levels.

    Source: Kingma and Dhariwal (2018), Glow: generative flow with invertible 1x1 convolutions.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.digits().images[:100]
        >>> model, algorithm = glow(jax.random.key(0), x, highest=16, levels=1, depth=1, width=4)
        >>> model.event_shape
        (8, 8)
    """
    x = as_array(x)[:1000]
    if highest is not None:
        support = Interval(0.0, highest + 1.0)

    def make(key: Any, x: Any) -> Flow:
        z, bounds = to_real(support, x, "glow(key, x)")
        z, shape = (z[..., None], (Reshape.from_shapes(z.shape[1:], (*z.shape[1:], 1)),)) if z.ndim == 3 else (z, ())
        layers = bijections.glow(
            key, z, transform, levels=levels, steps=depth, width=width, context_shape=context_shape
        )  # fmt: skip
        bijection = Chain((layers, *shape, *(() if bounds is None else (bounds,))))
        return Flow(StandardNormal(layers.latent_shape), bijection)

    algorithm = functools.partial(
        Gradient, optimizer=_adam(step_size, clip=1.0), average=Average(0.99), steps=steps
    )  # fmt: skip
    if highest is None:
        return make(key, x), algorithm(losses.nll)
    return Dequantized.init(key, x, make, high=highest), algorithm(losses.negative_elbo)


def vae(
    key: Any, x: Any, latent: int = 20, *, prior: Any = None, hidden: tuple[int, ...] = (400,),
    likelihood: Callable[..., Any] = likelihoods.bernoulli, step_size: float = 2e-3,
    steps: int | None = None,
) -> tuple[VAE, Gradient]:  # fmt: skip
    """A variational autoencoder of multilayer perceptrons, and Adam on its bound.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        latent: L, the number of latent dimensions.
        prior: any density of vectors `[L]`; None is the standard normal.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: `likelihoods.bernoulli` for bits, `likelihoods.gaussian` for real numbers.
        step_size: the first; it falls along half a cosine, to a hundredth.
        steps: of the fit, over which the step size falls; None is 2000. `fit(..., steps=)` overrides it for both.

    Raises:
        DataError: data outside the likelihood's support. ModelError: a prior that is no density of vectors.

    Source: Kingma and Welling (2014), Auto-encoding variational Bayes.

    Example:
        >>> import jax
        >>> model, algorithm = vae(jax.random.key(0), jnp.ones((10, 4, 4)), 2, hidden=(8,))
        >>> model.event_shape, model.latent_shape
        ((4, 4), (2,))
    """
    prior = StandardNormal((latent,)) if prior is None else prior
    model = VAE.init(key, as_array(x), prior, hidden=hidden, likelihood=likelihood)
    return model, Gradient(losses.negative_elbo, _adam(step_size, clip=100.0), steps=steps)


def gan(
    key: Any, x: Any, latent: int = 32, *, hidden: tuple[int, ...] = (256, 256), average: Any = GAN_AVERAGE
) -> tuple[Generator, Adversarial]:
    """A generative adversarial network of multilayer perceptrons, both with the same hidden widths.

    Args:
        key: typed key.
        x: events `[N, *event]`.
        latent: number of noise dimensions.
        hidden: widths of the hidden layers.
        average: of the generator's iterates, which is the fitted model; None keeps none.

    Raises:
        DataError: data that are not data.

    Source: Goodfellow et al. (2014), Generative adversarial nets.

    Example:
        >>> import jax, jaxgen as jg
        >>> x = jg.data.eight_gaussians(jax.random.key(0), 100)
        >>> model, algorithm = gan(jax.random.key(1), x, 2, hidden=(16,))
        >>> jg.fit(jax.random.key(2), model, x, algorithm, steps=3).model.sample(jax.random.key(3), (5,)).shape
        (5, 2)
    """
    x = as_array(x)
    model = Generator.init(key, x, StandardNormal((latent,)), hidden=hidden)
    return model, Adversarial(MLP((*hidden, 1), jax.nn.leaky_relu, in_shape=model.event_shape), average=average)


def dcgan(
    key: Any, x: Any, latent: int = 64, *, width: int = 32, average: Any = DCGAN_AVERAGE
) -> tuple[Generator, Adversarial]:
    """A generative adversarial network of convolutions, for images. On a CPU `gan` is many times faster.

    Args:
        key: typed key.
        x: images `[N, H, W]` or `[N, H, W, C]`, sides of 4 or more.
        latent: number of noise dimensions.
        width: channels of the largest grid.
        average: of the generator's iterates, which is the fitted model; None keeps none.

    Raises:
        ShapeError: events that are no images.

    Source: Radford, Metz and Chintala (2016), Unsupervised representation learning with deep convolutional generative
    adversarial networks.

    Example:
        >>> import jax
        >>> model, algorithm = dcgan(jax.random.key(0), jnp.arange(640.0).reshape(10, 8, 8), 4, width=2)
        >>> model.event_shape
        (8, 8)
    """
    x = as_array(x)
    event = tuple(map(int, x.shape[1:]))
    model = Generator.init(key, x, StandardNormal((latent,)), module=ConvGenerator(event, width))
    return model, Adversarial(ConvCritic(event, width), average=average)


def _inverse(make: Callable[[Any, Any], Any], key: Any, x: Any) -> Inverse:
    """For layers whose fast way should be the other one."""
    return Inverse(make(key, x))


def _flow(
    key: Any, x: Any, base: Any, layer: Callable[[Any, Any], Any], layers: int, support: Support, step_size: float,
    steps: int | None,
) -> tuple[Flow, Gradient]:  # fmt: skip
    x = jnp.asarray(as_array(x))
    base = _normal(x, support) if base is None else base
    model = Flow.init(key, x, base, layer, layers=layers, support=support)
    return model, Gradient(losses.nll, _adam(step_size, clip=1.0), average=Average(0.99), steps=steps)


def _normal(x: Any, support: Support) -> Any:
    """The standard normal of the unbounded numbers of a support; of angles, the uniform density."""
    if is_periodic(support):
        return VonMises.from_loc(jnp.zeros_like(floating(x)[0]), 0.0)
    layer = layer_of(support, x, "recipe(key, x, support=support)")
    shape: Any = x.shape[1:] if layer is None else latent_shape(layer)
    return StandardNormal(shape)


def _adam(step_size: float, clip: float) -> Callable[..., Any]:
    return functools.partial(_falling_adam, step_size, clip)


def _falling_adam(step_size: float, clip: float, steps: int) -> Any:
    import optax

    # half a cosine to a hundredth (Loshchilov and Hutter 2017, SGDR), so that a longer fit still moves
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.adam(optax.cosine_decay_schedule(step_size, steps, alpha=0.01))
    )
