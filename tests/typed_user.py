"""A script as users write it: `test_typing.py` runs it, and asks pyright and mypy for errors, which are none."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxgen as jg
from jaxgen.watch import CSV, Progress


@jg.model
class Exponential:
    """A family of one's own."""

    log_rate: jax.Array
    event_shape = ()

    @jg.per_event
    def log_prob(self, x: jax.Array, *, context: jax.Array | None = None) -> jax.Array:
        return self.log_rate - jnp.exp(self.log_rate) * x

    @jg.per_sample
    def sample(self, key: jax.Array, shape: tuple[int, ...] = (), *, context: jax.Array | None = None) -> jax.Array:
        return jax.random.exponential(key) * jnp.exp(-self.log_rate)


@jg.model
class Held:
    """A container of one's own, with fields of all kinds."""

    scale: jax.Array
    base: jg.Density = jg.part()
    members: Any = jg.parts()
    center: jax.Array | None = jg.fixed(default=None)
    optional: jg.Density | None = jg.part(default=None)
    power: int = jg.static(default=2)


def nats_per_event(model: jg.Density, events: jax.Array) -> float:
    return float(model.log_prob(events).mean())


def done(progress: Progress[jg.Mixture]) -> bool:
    return progress.step >= 2 and bool(progress.model.weights.min() > 0)


def main() -> None:
    key, x = jax.random.key(0), jg.data.old_faithful().values[:40]
    mixture = jg.Mixture.init(key, x, 2, jg.Gaussian.init)
    fitted = jg.fit(key, mixture, x, jg.EM(), steps=2, progress=False, watch=[jg.watch.Every(1, done)])
    print(CSV, jg.watch.JSONL)
    by_gradient = jg.Gradient(jg.losses.nll, optax.adam(1e-2))
    gaussian: jg.Gaussian = jg.Gaussian.init(key, x)
    rows = gaussian.sample(key, (2, 3)).reshape(6, 2)
    print(nats_per_event(gaussian, rows), nats_per_event(mixture, rows), fitted.model.sample(key, (3,)))
    print(mixture.responsibilities(x).max(axis=-1), jg.score(key, fitted.model, x), jg.Status.CONVERGED.message)
    slow = dataclasses.replace(Exponential(jnp.zeros(())), log_rate=-jnp.ones(()))
    print(nats_per_event(slow, slow.sample(key, (5,))), isinstance(slow, jg.Density), by_gradient, jg.__version__)
    held = Held(jnp.ones(()), slow, jg.Poisson.from_values(jnp.ones(3)))
    print(nats_per_event(held.base, rows[:, 0]), held.power + 1, dataclasses.replace(held, optional=slow))
    print(jg.summary(held))
    hmm = jg.HMM.init(key, x[None], 2, jg.Gaussian.init)
    print(hmm.viterbi(x[None], best=2), hmm.sample(key, length=4).shape, jg.recipes.realnvp, jg.samplers.MALA(0.1))


if __name__ == "__main__":
    main()
