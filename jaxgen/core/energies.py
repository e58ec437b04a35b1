"""The protocols of energies, unnormalised densities: a part of the page `core.protocols`, where code finds them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax

Key = jax.Array
Shape = tuple[int | None, ...]


@runtime_checkable
class Energy(Protocol):
    """Has an unnormalised density: a Boltzmann machine."""

    @property
    def event_shape(self) -> Shape: ...

    def energy(self, x: Any) -> jax.Array:
        """`-log p(x)` up to a constant of the model, in nats, `[*batch, *event] -> [*batch]`."""

    def kernel(self, key: Key, x: Any) -> jax.Array:
        """One Markov step, `[*batch, *event] -> [*batch, *event]`, that leaves `p` invariant."""


# ---- optional capabilities


class Tractable(Energy, Protocol):
    """Small enough to be summed over: an exact log-partition function, nats."""

    def log_partition(self) -> jax.Array: ...


class Annealed(Energy, Protocol):
    """Has a path of models from one that is tractable, for estimates of its partition function (`annealing`)."""

    def annealing_path(self) -> Any: ...


class Reversible(Energy, Protocol):
    """Has a kernel whose steps in reverse order are the reverse of `kernel`. Default: `kernel` is its own reverse."""

    def reverse_kernel(self, key: Key, x: Any) -> jax.Array: ...


class Layered(Energy, Protocol):
    """A machine of two layers, which can be stacked."""

    @property
    def transposed(self) -> Any:
        """The machine with its layers exchanged."""

    def sample_hidden(self, key: Key, x: Any) -> jax.Array: ...


class HiddenFields(Energy, Protocol):
    """Has a kernel in two halves, of which the energy computes the first.

    Law: `kernel_from(key, energy_and_field(x)[1])` is a step of `kernel`.
    """

    def energy_and_field(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """The energy `[*batch]`, and what x makes of the hidden units before they are drawn."""

    def kernel_from(self, key: Key, field: jax.Array) -> jax.Array:
        """The rest of the step, from the field."""


class PseudoLikelihood(Energy, Protocol):
    """Has conditionals of each coordinate given the others."""

    def pseudo_log_likelihood(self, x: Any) -> jax.Array: ...
