"""Machines trained one on top of the other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import FitError
from jaxgen.core.inputs import as_array
from jaxgen.fit.driver import fit
from jaxgen.models.energy.deep_belief import DeepBelief
from jaxgen.models.energy.rbm import RBM
from jaxgen.units.discrete import Bernoulli


def fit_greedy(
    key: Any, x: Any, hidden: Any, algorithm: Any = None, *, log_z: Any = None, steps: int | None = None,
    batch_size: int | None = None, visible: Any = Bernoulli.init, centred: bool = False,
) -> DeepBelief:  # fmt: skip
    """A deep belief network, trained machine by machine: each on hidden values that the one below drew of the data.

    Args:
        key: typed key.
        x: data `[N, V]`.
        hidden: for each machine, from the data up, its number of hidden bits or a layer of units.
        algorithm: of `fit`; None is its default.
        log_z: `machine -> log Z` of the top machine, such as `lambda m: ais(key, m).log_z`; None enumerates it.
        steps: of each machine.
        batch_size: of each.
        visible: start of the visible units, `x -> units`.
        centred: as of `RBM.init`, for all machines.

    Raises:
        FitError: no hidden layer.

    Source: Hinton, Osindero & Teh (2006), A fast learning algorithm for deep belief nets.

    Example:
        >>> x = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 8)
        >>> fit_greedy(jax.random.key(0), x, (3, 2), steps=20).encode(x).shape
        (16, 2)
    """
    if not hidden:
        raise FitError("there is no layer to train", called="fit_greedy(key, x, hidden)", expected="hidden=(64, 16)")
    x = jnp.asarray(as_array(x))
    machines: list[Any] = []
    for number, layer in enumerate(hidden):
        first, train, up = jax.random.split(jax.random.fold_in(key, number), 3)
        if number:
            below = machines[-1].hidden
            # no data are looked at: the kind is that of the hidden units below, whose biases go on being trained
            visible = lambda x, below=below: below  # noqa: E731
        machine = RBM.init(first, x, layer, visible=visible, centred=centred)
        fitted = fit(train, machine, x, algorithm, steps=steps, batch_size=batch_size, progress=False)
        machines.append(fitted.model)
        x = fitted.model.sample_hidden(up, x)
    return DeepBelief.from_machines(machines, None if log_z is None else log_z(machines[-1]))
