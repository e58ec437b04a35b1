"""Protocols of amortised inference: what a posterior, a prior and a model with hidden variables can be asked.

A posterior `q(z | c)` is any density of hidden variables that takes a context, which a network makes of an event: so a
conditional flow is one. Its draws are to be differentiable in the context. `core.protocols` is the page on which these
stand with all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax


class Centered(Protocol):
    """A posterior that has one point to stand for all of it: its mean, or its mode. Default: it has none."""

    def center(self, context: Any) -> jax.Array:
        """Return that point for one context, `[*event]`."""


class Divergent(Protocol):
    """A posterior that knows its divergence from some priors, which then needs no draws in a bound.

    Default: `log q(z) - log p(z)` of one draw. Law: their mean is the divergence.
    """

    def has_divergence(self, prior: Any) -> bool:
        """True for the priors that it knows."""

    def divergence(self, prior: Any, context: Any) -> jax.Array:
        """`KL(q || p)` of one context, nats: by coordinate where it is a sum over them, else a scalar."""


class Factored(Protocol):
    """A posterior whose coordinates are independent. Default: they are not. Law: the entries sum to `log_prob`."""

    def entries(self, z: Any, context: Any) -> jax.Array:
        """`log q` of each coordinate, nats, `[*event]`, of one event and context."""


class NormalDivergence(Protocol):
    """A prior that knows its divergence from a diagonal Gaussian. Default: one draw."""

    def kl_from_normal(self, mean: Any, log_scale: Any) -> jax.Array:
        """`KL(N(mean, exp(log_scale)^2) || p)` of each coordinate, nats, `[*event]`."""


class Enumerated(Protocol):
    """A discrete density of few outcomes, over which a bound sums in place of draws. Default: draws.

    Law: their probabilities sum to one.
    """

    def outcomes(self) -> jax.Array:
        """All values, `[S, *event]`."""


class Completed(Protocol):
    """A prior that is a density by a model's own encoder and posterior alone. Default: it is one by itself."""

    @property
    def event_shape(self) -> tuple[int | None, ...]: ...

    def given(self, infer: Callable[[Any], Any], posterior: Any) -> Any:
        """The density, from `infer`, an event to the posterior's context; once for all events of a batch."""


class Inference(Protocol):
    """All that a bound of one event is made of: `log p(x, z)` with its two terms, and the posterior.

    Functions of traced arrays, for use inside of a compiled function: `jax.vmap` takes them over events.
    """

    #: the posterior, a density given a context
    posterior: Any
    #: its context for this event, what the encoder said
    parameters: Any

    def propose(self, key: Any) -> tuple[Any, jax.Array]:
        """A draw of `q(z | x)`, differentiable, and `log q(z | x)`, nats."""

    def expect(self, key: Any, function: Callable[[Any, Any], Any], samples: int = 1) -> Any:
        """`E_q function(z, log q(z | x))`: the mean over so many draws, or the exact sum where q is `Enumerated`."""

    def log_posterior(self, z: Any) -> jax.Array:
        """`log q(z | x)`, nats."""

    def log_prior(self, z: Any) -> jax.Array:
        """`log p(z)`, nats."""

    def log_likelihood(self, z: Any) -> jax.Array:
        """`log p(x | z)`, nats."""

    def divergence(self) -> jax.Array | None:
        """`KL(q(z | x) || p(z))`, nats, by coordinate where it is a sum over them; None where it is not known."""

    def at(self, parameters: Any) -> Inference:
        """The same with another context of the posterior."""

    def held(self, factor: Any) -> Inference:
        """The same, seen by gradients otherwise: draws pass `factor` times their gradient back to the posterior, whose
        density is held. With 1 this is the path gradient; with the normalised weight of a draw the doubly
        reparametrised one."""

    def fixed(self) -> Inference:
        """The same with `p(x, z)` held: gradients reach the posterior alone."""


class Inferring(Protocol):
    """A model with hidden variables and a posterior for them: losses, bounds and diagnostics are made of its terms.

    Default: of a bound nothing but `elbo` is known. Law: with the divergence, or `log q - log p` of a draw,
    `log_likelihood - divergence` has the mean of `elbo`.
    """

    def inference(self, x: Any, *, context: Any = None) -> Inference:
        """Return the terms of one event, inside of a compiled function; NaN is an entry that was not seen, where the
        model says so."""

    def sample_with_latent(self, key: Any, *, context: Any = None, length: Any = None) -> tuple[Any, jax.Array]:
        """A draw of `p(z, x)`, of one event, of so many steps where their number is free: z is then an exact draw of
        `p(z | x)`."""


class Reconstructing(Protocol):
    """Makes events anew from their own latents: an autoencoder."""

    def reconstruct(self, x: Any, *, context: Any = None) -> jax.Array:
        """The mean event at the latent of each, `[*batch, *event] -> [*batch, *event]`."""


class Quantizing(Protocol):
    """Has codes for latents, and a vector for each code. Default: its latents are vectors."""

    def quantize(self, x: Any, *, context: Any = None) -> jax.Array:
        """`[*batch, *event] -> [*batch, *grid, C]`."""


class Guessing(Protocol):
    """Has a network that guesses an event's class. Default: none."""

    def classify(self, x: Any) -> jax.Array:
        """`q(y | x)`, `[*batch, *event] -> [*batch, K]`."""
