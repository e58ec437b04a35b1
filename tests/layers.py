"""Bijections of small events, for the laws of `test_laws.py`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from case import moved
from cases import batch_of

from jaxgen.bijections import (
    Affine,
    Autoregressive,
    BlockAutoregressive,
    Bounded,
    Chain,
    Conditional,
    Coupling,
    DistraxBijector,
    Exp,
    Householder,
    Inverse,
    LULinear,
    MultiScale,
    OptionalContext,
    Permute,
    Planar,
    Predicted,
    Radial,
    Reshape,
    Residual,
    Scan,
    Sigmoid,
    Simplex,
    SoftClip,
    Softplus,
    SplineTransform,
    Squeeze,
    Standardize,
    Sylvester,
    Tanh,
    Vmap,
    Wrap,
    glow,
)
from jaxgen.core.exchange import distrax


def shift_and_scale(params):
    return distrax().Block(distrax().ScalarAffine(params["shift"], log_scale=params["log_scale"]), 1)


#: a row of events `[3]`, for the shape of layers
ROW = jnp.zeros((1, 3))


def coupling(key, scale=1.0):
    return moved(key, Coupling.init(key, ROW, features=(8,)), scale)


#: bijections of small events, one or more of every class
BIJECTIONS = {
    "affine": lambda key: moved(key, Affine(jnp.ones(3), jnp.zeros(3))),
    "standardize": lambda key: Standardize.from_data(jax.random.normal(key, (9, 3)) * 3 + 1),
    "sigmoid": lambda key: Sigmoid((3,)),
    "tanh": lambda key: Tanh((3,)),
    "softplus": lambda key: Softplus((3,)),
    "exp": lambda key: Exp((3,)),
    "bounded": lambda key: Bounded.from_values([-1.0, 2.0, -jnp.inf], [4.0, jnp.inf, 0.5]),
    "soft clip": lambda key: SoftClip.from_values([-1.0, -2.0, -jnp.inf], [4.0, jnp.inf, 0.5], [0.8, 1.0, 1.2]),
    "wrap": lambda key: Wrap((2,)),
    "simplex": lambda key: Simplex(4),
    "permute": lambda key: Permute.from_values([2, 0, 1]),
    "lu": lambda key: moved(key, LULinear.init(key, ROW), 0.5),
    "householder": lambda key: Householder.init(key, ROW, reflections=2),
    "predicted": lambda key: Predicted.from_data(
        np.random.default_rng(0).normal(size=(9, 3)) * [1.0, 2.0, 3.0], np.linspace(-1, 1, 9)[:, None] ** [1, 2]
    ),
    "planar": lambda key: moved(key, Planar.init(key, ROW), 1.0),
    "radial": lambda key: moved(key, Radial.init(key, ROW), 1.0),
    "sylvester": lambda key: moved(key, Sylvester.init(key, ROW, units=2), 0.5),
    "residual": lambda key: moved(key, Residual.init(key, ROW, features=(8,), context_shape=(2,))),
    "block": lambda key: moved(key, BlockAutoregressive.init(key, ROW, hidden=3)),
    "reshape": lambda key: Reshape.from_values((2, 3), (6,)),
    "squeeze": lambda key: Squeeze.from_values((4, 2, 3)),
    "multiscale": lambda key: MultiScale.from_levels(
        (Squeeze.from_values((4, 4, 1)), Vmap(Vmap(moved(key, LULinear.init(key, ROW)), 2), 2))
    ),
    "glow": lambda key: moved(key, glow(key, jax.random.normal(key, (9, 4, 4, 1)), levels=1, steps=2, width=4), 0.1),
    "conditional": lambda key: moved(key, Conditional.init(key, LULinear.init(key, ROW), (2,), features=(8,))),
    "optional context": lambda key: OptionalContext(
        moved(key, Coupling.init(key, ROW, features=(8,), context_shape=(3,)), 1.0)
    ),
    "coupling": coupling,
    "each": lambda key: Vmap(coupling(key), 2),
    # moved less: a steep inverse magnifies the rounding of y beyond the law's bound
    "autoregressive": lambda key: moved(key, Autoregressive.init(key, ROW, SplineTransform(4), features=(8,)), 0.3),
    "inverse": lambda key: Inverse(coupling(key)),
    "chain": lambda key: Chain((Permute.from_values([1, 2, 0]), moved(key, Affine(jnp.ones(3), jnp.zeros(3))))),
    "scan": lambda key: Scan(batch_of(functools.partial(coupling, scale=0.5), 4)(key)),
    "distrax": lambda key: DistraxBijector(
        moved(key, {"shift": jnp.ones(3), "log_scale": jnp.zeros(3)}), shift_and_scale, (3,)
    ),
}
