"""Deep belief networks: restricted machines on top of each other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import ModelError
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.protocols import Layered, has
from jaxgen.core.pytree import fixed, float_type, model


@model
class DeepBelief:
    """A machine over the hidden values of machines below it: `p(v) = sum_h p(v | h_1) p(h_1 | h_2) ... p(h_L-1)`.

    The top machine is a Boltzmann machine, the ones below give only `p(v | h)`. Nothing in it trains: it is the outcome
    of training one machine after the other (`fit.greedy`), and `log_z` is that of its top as it is.

    Args:
        machines: from the data up, such as `RBM`: with `energy`, `transposed`, `sample_hidden`, `encode`, `sample`.
        log_z: log of the partition function of the top one, nats.

    Source: Hinton, Osindero & Teh (2006), A fast learning algorithm for deep belief nets.

    Example:
        >>> from jaxgen.models.energy.rbm import RBM
        >>> rbm = RBM.from_values(jnp.zeros(2), jnp.zeros(2), jnp.zeros((2, 2)))
        >>> dbn = DeepBelief.from_machines([rbm, rbm])
        >>> round(float(dbn.elbo(jax.random.key(0), jnp.array([0, 1])) / jnp.log(2.0)), 4)
        -2.0
    """

    machines: tuple[Any, ...] = fixed()
    log_z: jax.Array = fixed()

    @classmethod
    def from_machines(cls, machines, log_z=None) -> DeepBelief:
        """From machines, the data's first.

        Args:
            machines: one or more; the hidden values of each are events of the next.
            log_z: of the last one, such as `ais(key, top).log_z`; None enumerates it.

        Raises:
            ModelError: no machines, machines that do not fit, or a top one too large to be enumerated.
        """
        machines, called = tuple(machines), "DeepBelief.from_machines(machines)"
        if not machines or not all(has(m, Layered) for m in machines):
            raise ModelError(
                "a belief network is made of machines", called=called, expected="one RBM or more",
                got=", ".join(type(m).__name__ for m in machines) or "none",
            )  # fmt: skip
        for below, above in zip(machines[:-1], machines[1:], strict=True):
            if below.transposed.event_shape != above.event_shape:
                raise ModelError(
                    "the hidden values of a machine are no events of the next", called=called,
                    expected=str(list(below.transposed.event_shape)), got=str(list(above.event_shape)),
                )  # fmt: skip
        log_z = machines[-1].log_partition() if log_z is None else log_z
        return cls(machines, jnp.asarray(log_z, float_type(machines)))

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.machines[0].event_shape

    def check_data(self, x) -> None:
        """Refuses what the lowest machine refuses."""
        self.machines[0].check_data(x)

    @per_event
    def elbo(self, key, x, *, context=None) -> jax.Array:
        """An unbiased estimate of a lower bound of `log p(v)`, nats, `[*batch, V] -> [*batch]`.

        `log p(v) >= E_q [log p(v | h) + log p(h)] + H(q)` with the machine's own `q = p(h | v)`, of which entropy and
        energies make `-F(v) + E_q [G(h) + log p(h)]`: F and G are the free energies of the machine's two sides, and
        `log p(h)` is bounded in turn by the machines above. Where `log_z` is an estimate, so is the bound.

        Source: Salakhutdinov & Murray (2008), On the quantitative analysis of deep belief networks, section 4.2.
        """
        bound = jnp.zeros((), float_type(self))
        for number, machine in enumerate(self.machines[:-1]):
            h = machine.sample_hidden(jax.random.fold_in(key, number), x)
            bound = bound - machine.energy(x) + machine.transposed.energy(h)
            x = h
        return bound - self.machines[-1].energy(x) - self.log_z

    @per_event
    def encode(self, x) -> jax.Array:
        """Features, the means of the top hidden layer with means passed up in place of values, `[*batch, H]`."""
        for machine in self.machines[:-1]:
            x = machine.hidden.to_values(machine.encode(x))
        return self.machines[-1].encode(x)

    @per_sample
    def sample(self, key, shape=(), *, context=None, sweeps=1000) -> jax.Array:
        """Draws `[*shape, V]`: `sweeps` of the top machine, and down from there."""
        start, down = jax.random.split(key)
        x = self.machines[-1].sample(start, sweeps=sweeps)
        for number, machine in enumerate(self.machines[-2::-1]):
            x = machine.transposed.sample_hidden(jax.random.fold_in(down, number), x)
        return x
