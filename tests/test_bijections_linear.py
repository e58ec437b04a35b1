"""Linear layers against numpy's matrices, starts from data, and layers that follow a context."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import moved

import jaxgen as jg
from jaxgen.bijections import (
    Affine,
    Chain,
    Conditional,
    Coupling,
    Householder,
    LULinear,
    Permute,
    Scan,
    Standardize,
    initialize,
)
from jaxgen.core import algebra
from jaxgen.core.pytree import combine, partition
from jaxgen.models.neural.flow import Flow

KEY = jax.random.key(0)
N = 32


def unit(key, layer):
    """Trained leaves of one standard deviation; matrices of a layer's size of 1 / sqrt(D), as random matrices are."""
    trained, rest = partition(layer)
    size = layer.event_shape[0]

    def draw(leaf):
        return jax.random.normal(key, leaf.shape) / (size**0.5 if leaf.shape == (size, size) else 1)

    return combine(jax.tree.map(draw, trained), rest)


def matrix_of(layer, d):
    return np.asarray(jax.vmap(lambda x: layer.forward_and_log_det(x)[0])(jnp.eye(d)), np.float64).T


@pytest.mark.parametrize("d", [1, 3, 16])
def test_lu_is_its_matrix(d):
    layer = unit(KEY, LULinear.init(KEY, jnp.zeros((1, d))))
    x = np.random.default_rng(0).normal(size=(N, d)).astype(np.float32)
    lower, upper, log_diagonal = (np.asarray(a, np.float64) for a in (layer.lower, layer.upper, layer.log_diagonal))
    upper = np.triu(upper, 1) + np.diag(np.exp(log_diagonal))
    matrix = ((np.tril(lower, -1) + np.eye(d)) @ upper)[np.asarray(layer.order)]
    np.testing.assert_allclose(layer.matrix, matrix, atol=1e-5)
    y, log_det = jax.vmap(layer.forward_and_log_det)(x)
    np.testing.assert_allclose(y, x @ matrix.T, atol=2e-5)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], atol=1e-5)
    back, back_log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(y)
    # numpy's own solve in this precision loses as much: the rounding of y times the smallest singular value's inverse
    steepest = np.maximum(1, np.linalg.norm(np.linalg.inv(matrix), 2))
    np.testing.assert_allclose(back, x, atol=1e-6 * steepest * np.abs(y).max())
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-6)


def test_lu_starts_as_a_permutation_and_trains_to_a_rotation():
    layer = LULinear.init(KEY, jnp.zeros((1, 4)))
    assert sorted(map(tuple, matrix_of(layer, 4))) == sorted(map(tuple, np.eye(4)))
    gradient = jax.grad(lambda layer: layer.inverse_and_log_det(jnp.arange(4.0))[0].sum(), allow_int=True)(layer)
    assert not np.triu(gradient.lower).any() and not np.tril(gradient.upper).any()
    assert np.isfinite(gradient.log_diagonal).all()


def test_lu_of_given_factors():
    lower, upper = np.array([[9.0, 9, 9], [2, 9, 9], [-1, 0.5, 9]]), np.array([[9.0, 1, -2], [9, 9, 3], [9, 9, 9]])
    layer = LULinear.from_values(lower, upper, [1.0, 0.5, 4.0], [2, 0, 1])
    whole = (np.tril(lower, -1) + np.eye(3)) @ (np.triu(upper, 1) + np.diag([1, 0.5, 4]))
    np.testing.assert_allclose(matrix_of(layer, 3), whole[[2, 0, 1]], rtol=1e-6)
    for wrong in (([1.0, -1.0, 1.0], None), ([1.0, 1.0], None), ([1.0, 1.0, 1.0], [0, 0, 1])):
        with pytest.raises(jg.ModelError, match="factors"):
            LULinear.from_values(lower, upper, *wrong)


@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 2), (5, 7)])
def test_householder_is_orthogonal(d, k):
    layer = Householder.init(KEY, jnp.zeros((1, d)), reflections=k)
    q = matrix_of(layer, d)
    np.testing.assert_allclose(q @ q.T, np.eye(d), atol=2e-6)
    assert np.linalg.det(q) == pytest.approx((-1) ** k, abs=1e-5)
    expected = np.eye(d)
    for v in np.asarray(layer.vectors, np.float64):
        expected = (np.eye(d) - 2 * np.outer(v, v) / (v @ v)) @ expected
    np.testing.assert_allclose(q, expected, atol=2e-6)
    x = jax.random.normal(KEY, (d,))
    np.testing.assert_allclose(layer.inverse_and_log_det(layer.forward_and_log_det(x)[0])[0], x, atol=2e-6)
    assert float(layer.forward_and_log_det(x)[1]) == 0


def test_a_reflection_along_nothing_is_none():
    layer = Householder(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(layer.forward_and_log_det(jnp.arange(3.0))[0], np.arange(3))
    assert np.isfinite(jax.grad(lambda layer: layer.forward_and_log_det(jnp.arange(3.0))[0].sum())(layer).vectors).all()


def test_wrong_starts_are_refused():
    for make in (lambda: LULinear.init(KEY, jnp.zeros(3)), lambda: Householder.init(KEY, jnp.zeros((1, 2, 2)))):
        with pytest.raises(jg.ShapeError, match="takes vectors"):
            make()
    with pytest.raises(jg.ModelError, match="without reflections"):
        Householder.init(KEY, jnp.zeros((1, 2)), reflections=0)
    with pytest.raises(jg.DataError, match="random key"):
        LULinear.init(3, jnp.zeros((1, 2)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def deep(key, d=3, layers=4):
    """Layers that each have other units: without a start from data the last sees numbers far from one."""

    def one(key):
        row = jnp.zeros((1, d))
        coupling = moved(key, Coupling.init(key, row, features=(8,)), 1.0)
        return Chain((coupling, moved(key, LULinear.init(key, row), 0.3), Affine(jnp.ones(d), jnp.ones(d))))

    stack = Scan(jax.vmap(one)(jax.random.split(key, layers)))
    return Chain((Affine(jnp.zeros(d), jnp.zeros(d)), Permute.from_values([2, 0, 1]), stack))


def test_initialize_gives_every_affine_unit_data():
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32) * [1, 10, 100] + [5, 0, -300]
    bijection = initialize(deep(KEY), x)
    assert jax.tree.structure(bijection) == jax.tree.structure(deep(KEY))
    at = jnp.asarray(x, jnp.float32)

    inverse = jax.jit(lambda layer, at: jax.vmap(layer.inverse_and_log_det)(at)[0])

    def unit_data(z):
        # the rounding of layers in float32; a normal has its last decile at 1.28
        low, middle, high = np.quantile(np.asarray(z, np.float64), [0.1, 0.5, 0.9], axis=0)
        np.testing.assert_allclose(middle, 0, atol=1e-4)
        np.testing.assert_allclose(high - low, 2 * 1.2815516, atol=1e-4)

    for i in reversed(range(4)):
        layer = algebra.take(bijection.layers[2].layers, i)
        unit_data(inverse(layer.layers[2], at))
        at = inverse(layer, at)
    unit_data(inverse(bijection, at=jnp.asarray(x, jnp.float32)))
    before, after = deep(KEY).layers[2].layers.layers[0], bijection.layers[2].layers.layers[0]
    jax.tree.map(np.testing.assert_array_equal, before, after)  # other parameters stay


def test_affine_from_data_is_the_trained_standardize():
    x = np.random.default_rng(0).normal(size=(50, 2)) * 3 + 1
    a, b = Affine.from_data(x), Standardize.from_data(x)
    ours, theirs = (jax.vmap(layer.inverse_and_log_det)(x)[0] for layer in (a, b))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf: leaf is not None, partition(a)[0])))


def test_initialize_checks_its_data():
    layer = Affine(jnp.zeros(2), jnp.zeros(2))
    given = Conditional.init(KEY, layer, (3,), features=(4,))
    x = np.ones((5, 2))
    for wrong in (
        lambda: initialize(layer, np.ones((5, 3))), lambda: initialize(layer, np.ones(2)),
        lambda: initialize(layer, x, np.ones((5, 3))), lambda: initialize(given, x),
        lambda: initialize(given, x, np.ones((4, 3))),
    ):  # fmt: skip
        with pytest.raises(jg.ShapeError):
            wrong()
    with pytest.raises(jg.DataError, match="finite"):
        initialize(layer, x * np.nan)


def test_initialize_with_contexts():
    coupling = moved(KEY, Coupling.init(KEY, jnp.zeros((1, 2)), features=(4,), context_shape=(3,)), 1.0)
    x, context = jax.random.normal(KEY, (200, 2)), jax.random.normal(KEY, (200, 3))
    bijection = initialize(Chain((Affine(jnp.zeros(2), jnp.zeros(2)), coupling)), x, context)
    z = jax.vmap(bijection.inverse_and_log_det)(x, context)[0]
    low, middle, high = np.quantile(np.asarray(z, np.float64), [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_allclose([middle, high - low], [[0, 0], [2.5631, 2.5631]], atol=1e-4)


def test_conditional_layers():
    lu = jax.jit(lambda key: unit(key, LULinear.init(key, jnp.zeros((1, 3)))))(KEY)
    layer = Conditional.init(KEY, lu, (2,), features=(8,))
    x, context = jax.random.normal(KEY, (N, 3)), jax.random.normal(jax.random.key(1), (N, 2))
    # starts as the layer itself
    np.testing.assert_allclose(
        jax.vmap(layer.forward_and_log_det)(x, context)[0], jax.vmap(layer.layer.forward_and_log_det)(x)[0],
        rtol=1e-6, atol=1e-6
    )
    layer = jax.jit(moved)(jax.random.key(2), layer)
    flow = Flow(jg.StandardNormal((3,)), layer)
    assert flow.context_shape == (2,)
    # by hand: the network's numbers are added to the leaves in their order
    added = layer.net(context[0])
    lu = layer.layer
    own = dataclasses.replace(
        lu, lower=lu.lower + added[:9].reshape(3, 3), upper=lu.upper + added[9:18].reshape(3, 3),
        log_diagonal=lu.log_diagonal + added[18:],
    )  # fmt: skip
    np.testing.assert_allclose(
        flow.log_prob(x[0], context=context[0]), Flow(flow.base, own).log_prob(x[0]), rtol=1e-5, atol=1e-5
    )
    rows = flow.log_prob(x, context=context)
    assert np.abs(rows - flow.log_prob(x, context=context[0]))[1:].max() > 0.1
    with pytest.raises(jg.ShapeError, match="context"):
        layer.forward_and_log_det(x[0])
    for wrong in (Permute.from_values([1, 0]), layer):
        with pytest.raises(jg.ModelError, match="cannot follow a context"):
            Conditional.init(KEY, wrong, (2,))
