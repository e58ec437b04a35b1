"""Games of a generator against a critic. Each is two losses of what the critic says, and anyone can write another.

A loss is `(real, fake, real_weight=None, fake_weight=None) -> scalar`: outputs D(x) of the critic on data and D(x') on
samples, `[N]` each, with their weights, `[N]` or None for equal ones. Below, `s(a) = log(1 + exp(a))`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxgen.core.value import algorithm
from jaxgen.losses.base import weighted_mean


@runtime_checkable
class Game(Protocol):
    """A pair of losses, one for each player: a frozen value that hashes by value, as under `core.value.algorithm`.

    Example:
        >>> @algorithm
        ... class Flat:
        ...     paired = True
        ...     def critic(self, real, fake, real_weight=None, fake_weight=None):
        ...         return weighted_mean(jnp.tanh(fake), fake_weight) - weighted_mean(jnp.tanh(real), real_weight)
        ...     def generator(self, real, fake, real_weight=None, fake_weight=None):
        ...         return -weighted_mean(jnp.tanh(fake), fake_weight)
        >>> isinstance(Flat(), Game)
        True
    """

    #: True where only differences of outputs mean something, so that the critic ranks and does not classify
    paired: ClassVar[bool]

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return what the critic minimises."""
        ...

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return what the generator minimises. Outputs on data that it does not use are not computed."""
        ...


@algorithm
class Minimax:
    """The game of one value: the critic minimises minus the log-likelihood of which is which, the generator maximises.

    Critic `mean s(-D(x)) + mean s(D(x'))`, generator `-mean s(D(x'))`, whose gradient vanishes where the critic is
    sure. At the critic's best `-loss = 2 JSD - log 4`, D the log-ratio of the densities.

    Source: Goodfellow et al. (2014), Generative adversarial nets, equation 1.

    Example:
        >>> round(float(Minimax().critic(jnp.zeros(3), jnp.zeros(3))), 4)  # 2 log 2
        1.3863
    """

    paired: ClassVar[bool] = False

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean s(-D(x)) + mean s(D(x'))`."""
        told = weighted_mean(jax.nn.softplus(-real), real_weight)
        return told + weighted_mean(jax.nn.softplus(fake), fake_weight)

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `-mean s(D(x'))`."""
        return -weighted_mean(jax.nn.softplus(fake), fake_weight)


@algorithm
class NonSaturating:
    """The critic of `Minimax`, and a generator that minimises `mean s(-D(x'))`, whose gradient does not vanish.

    Source: Goodfellow et al. (2014), Generative adversarial nets, section 3.

    Example:
        >>> round(float(NonSaturating().generator(jnp.zeros(3), jnp.zeros(3))), 4)
        0.6931
    """

    paired: ClassVar[bool] = False

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean s(-D(x)) + mean s(D(x'))`."""
        return Minimax().critic(real, fake, real_weight, fake_weight)

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean s(-D(x'))`."""
        return weighted_mean(jax.nn.softplus(-fake), fake_weight)


@algorithm
class Hinge:
    """The critic minimises `mean max(0, 1 - D(x)) + mean max(0, 1 + D(x'))`, the generator `-mean D(x')`.

    Source: Lim and Ye (2017), Geometric GAN, equations 15 and 16.

    Example:
        >>> float(Hinge().critic(jnp.zeros(3), jnp.zeros(3)))
        2.0
    """

    paired: ClassVar[bool] = False

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean max(0, 1 - D(x)) + mean max(0, 1 + D(x'))`."""
        return weighted_mean(jax.nn.relu(1 - real), real_weight) + weighted_mean(jax.nn.relu(1 + fake), fake_weight)

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `-mean D(x')`."""
        return -weighted_mean(fake, fake_weight)


@algorithm
class LeastSquares:
    """The critic fits 1 to data and 0 to samples, the generator fits 1 to its samples.

    Critic `mean (D(x) - 1)^2 / 2 + mean D(x')^2 / 2`, generator `mean (D(x') - 1)^2 / 2`. The critic is shifted by 1/2
    inside, so that as in the other games it is at a loss where its output is 0.

    Source: Mao et al. (2017), Least squares generative adversarial networks, equation 9.

    Example:
        >>> float(LeastSquares().critic(jnp.zeros(3), jnp.zeros(3)))
        0.25
    """

    paired: ClassVar[bool] = False

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean (D(x) - 1/2)^2 / 2 + mean (D(x') + 1/2)^2 / 2`."""
        return 0.5 * (
            weighted_mean(jnp.square(real - 0.5), real_weight) + weighted_mean(jnp.square(fake + 0.5), fake_weight)
        )

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean (D(x') - 1/2)^2 / 2`."""
        return 0.5 * weighted_mean((fake - 0.5) ** 2, fake_weight)


@algorithm
class Wasserstein:
    """The critic minimises `mean D(x') - mean D(x)`, the generator `-mean D(x')`.

    For critics of bounded slope, by `games.Interpolated` or `nn.Spectral`; others run away. At the best critic
    of slope 1 minus its loss is the distance.

    Source: Arjovsky, Chintala and Bottou (2017), Wasserstein generative adversarial networks.

    Example:
        >>> float(Wasserstein().critic(jnp.ones(3), jnp.zeros(3)))
        -1.0
    """

    paired: ClassVar[bool] = True

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean D(x') - mean D(x)`."""
        return weighted_mean(fake, fake_weight) - weighted_mean(real, real_weight)

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `-mean D(x')`."""
        return -weighted_mean(fake, fake_weight)


@algorithm
class Relativistic:
    """Each sample is judged beside an event: `mean_n s(D(x'_n) - D(x_n))`, the generator with the other sign.

    The landscape has no minimum where modes are dropped; with `R1` and `R2` the game converges locally. A pair weighs
    as its event.

    Source: Jolicoeur-Martineau (2019), The relativistic discriminator; Huang et al. (2024), The GAN is dead; long live
    the GAN! A modern baseline GAN, equation 2.

    Example:
        >>> round(float(Relativistic().critic(jnp.zeros(3), jnp.zeros(3))), 4)  # log 2
        0.6931
    """

    paired: ClassVar[bool] = True

    def critic(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean_n s(D(x'_n) - D(x_n))`."""
        return weighted_mean(jax.nn.softplus(fake - real), real_weight)

    def generator(self, real: Any, fake: Any, real_weight: Any = None, fake_weight: Any = None) -> jax.Array:
        """Return `mean_n s(D(x_n) - D(x'_n))`."""
        return weighted_mean(jax.nn.softplus(real - fake), real_weight)


def margins(game: Game, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return numbers that are positive where the critic takes data, and samples, for what they are.

    `D(x), -D(x')`; in games where only differences mean something `D(x) - D(x')` for both.

    Example:
        >>> [found.tolist() for found in margins(Relativistic(), jnp.array([2.0]), jnp.array([3.0]))]
        [[-1.0], [-1.0]]
    """
    return (real - fake, real - fake) if game.paired else (real, -fake)
