"""Features: vectors that a model makes of events, for whatever comes after."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import algebra
from jaxgen.core.errors import ModelError
from jaxgen.core.inputs import as_batch
from jaxgen.core.protocols import Classifier, Encoder, Guessing, Permutable, Quantizing, Sequential, has
from jaxgen.metrics.events import by_chunks, events_of
from jaxgen.nn.critic_features import Critic, critic_features


class Kind(NamedTuple):
    """A kind of features.

    Args:
        has: tells if a model has them.
        of: `(model, x, context) -> [n, ...]`, of a chunk of events.
        needs: the capability in words.
        steps: they are of each step of a sequence, and not of an event.
    """

    has: Callable[[Any], bool]
    of: Callable[[Any, Any, Any], jax.Array]
    needs: str
    steps: bool = False


def _given(context: Any) -> dict[str, Any]:
    return {} if context is None else {"context": context}


def _local(model: Any, x: Any, context: Any) -> jax.Array:
    """`p(k | x) E[z | x, k]` of all components, `[n, K, L]`."""
    within = jnp.concatenate(algebra.per_kind(
        lambda batch: jax.vmap(lambda one: one.encode(x).reshape(len(x), -1))(batch), model.classes))  # fmt: skip
    return model.responsibilities(x, **_given(context))[..., None] * jnp.moveaxis(within, 0, 1)


def _has_local(model: Any) -> bool:
    if not (has(model, Classifier) and has(model, Permutable)):
        return False
    kinds = algebra.kinds(model.classes)
    return len(kinds) == 1 and has(kinds[0], Encoder)


#: by name, the default first where a model has several
KINDS = {
    "vectors": Kind(lambda m: has(m, Quantizing), lambda m, x, c: m.quantize(x, **_given(c)), "quantize(x)"),
    "latents": Kind(lambda m: has(m, Encoder), lambda m, x, c: m.encode(x, **_given(c)), "encode(x)"),
    "responsibilities": Kind(lambda m: has(m, Classifier), lambda m, x, c: m.responsibilities(x, **_given(c)),
                             "responsibilities(x)"),
    "guesses": Kind(lambda m: has(m, Guessing), lambda m, x, c: m.classify(x), "classify(x)"),
    "states": Kind(lambda m: has(m, Sequential), lambda m, x, c: m.smooth(x, **_given(c)), "smooth(x)", True),
    "local latents": Kind(_has_local, _local, "responsibilities(x), and encode(x) of all components"),
    "critic": Kind(lambda m: isinstance(m, Critic), lambda m, x, c: critic_features(m, x, *_given(c).values()),
                   "a network whose last layer is linear"),
}  # fmt: skip


def features(model: Any, x: Any, *, which: str | None = None) -> np.ndarray:
    """Return the features that a model has of events.

    - `latents`: means of what is hidden, `encode(x)`: a VAE's posterior means, a machine's hidden means, the factors of
      a `LowRankGaussian`, a flow's place in its base;
    - `vectors`: those of a `VQVAE`'s codes;
    - `responsibilities`: `p(k | x)` of mixtures;
    - `guesses`: `q(y | x)` of a semi-supervised model;
    - `states`: `p(z_t | x)` of a hidden Markov model, of each step;
    - `local latents`: `p(k | x) E[z | x, k]` of a mixture whose components have latents, side by side: where an event
      lies on the components' planes;
    - `critic`: what the last layer of a game's critic sees, `fitted.state.critic.model`, given events as it saw them.

    Args:
        model: any that has one of these.
        x: events `[N, *event]`, or with what comes with them, `dict(x=x, context=context)`.
        which: a name of the list, for a model that has several; None is the first that it has, in the order `vectors`,
            `latents`, `responsibilities`, `guesses`, `states`.

    Returns:
        `[N, F]`, and of states `[N, T, K]`, in the model's floating type.

    Raises:
        ModelError: a model that has no features, or not those. DataError, ShapeError: events that do not fit the model.

    Example:
        >>> import jaxgen as jg
        >>> x = jax.random.normal(jax.random.key(0), (50, 3))
        >>> planes = jg.Mixture.init(jax.random.key(1), x, 4, lambda key, x: jg.LowRankGaussian.init(key, x, rank=1))
        >>> features(planes, x).shape, features(planes, x, which="local latents").shape
        ((50, 4), (50, 4))
        >>> features(jg.RBM.init(jax.random.key(2), x > 0, 6), x > 0).shape
        (50, 6)
    """
    called = f"features({type(model).__name__}, x)"
    kind = _kind(model, which, called)
    batch = as_batch(x, name="x", called=called) if isinstance(model, Critic) else events_of(model, x, called)
    batch = batch._replace(weight=None, label=None)
    made = lambda key, x, context: _made(kind, model, x, context)  # noqa: E731
    found = by_chunks(made, jax.random.key(0), batch, dtype=None)
    return found if kind.steps else found.reshape(len(found), -1)


@functools.partial(jax.jit, static_argnums=0)
def _made(kind: Kind, model: Any, x: Any, context: Any) -> jax.Array:
    return kind.of(model, x, context)


def _kind(model: Any, which: str | None, called: str) -> Kind:
    own = [name for name, kind in KINDS.items() if kind.has(model)]
    if which is not None and which not in KINDS:
        raise ModelError("there are no such features", called=called, expected=", ".join(map(repr, KINDS)),
                         got=f"which={which!r}", fix=_choice(own))  # fmt: skip
    if not own or (which is not None and which not in own):
        needed = KINDS[which].needs if which else " or ".join(kind.needs for kind in KINDS.values())
        raise ModelError(
            "the model has no features" + (f" called {which!r}" if which else ""), called=called, expected=needed,
            got=f"{type(model).__name__}, which has {', '.join(own) or 'none of them'}",
            fix=_choice(own),
        )  # fmt: skip
    return KINDS[own[0] if which is None else which]


def _choice(own: list[str]) -> str:
    return f"jaxgen.tasks.features(model, x, which={own[0]!r})" if own else "another model, such as a mixture of these"
