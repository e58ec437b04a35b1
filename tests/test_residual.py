"""Planar, radial, Sylvester, residual and block autoregressive layers against Jacobians of autodiff in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import as_dtype, grid

import jaxgen as jg
from jaxgen.bijections import BlockAutoregressive, Inverse, Planar, Radial, Residual, Sylvester
from jaxgen.core.pytree import combine, partition
from jaxgen.models.neural.flow import Flow

KEY = jax.random.key(0)
N, D = 64, 3
ROW = jnp.zeros((1, D))
CONTEXT = jnp.array([0.3, -1.0])
SHAPE = CONTEXT.shape
MAKE = {
    "planar": Planar.init,
    "radial": Radial.init,
    "sylvester": lambda key, x: Sylvester.init(key, x, units=2),
    "residual": lambda key, x: Residual.init(key, x, features=(8, 8), context_shape=SHAPE),
    "block": lambda key, x: BlockAutoregressive.init(key, x, hidden=4, context_shape=SHAPE),
}
NAMES = list(MAKE)


def unit(key, layer):
    """Trained leaves drawn from N(0, 1), matrices between layers of a network from N(0, 1 / fan in)."""
    leaves, tree = jax.tree.flatten(partition(layer)[0])
    fans = [leaf.shape[0] if leaf.ndim == 2 and isinstance(layer, Residual) else 1 for leaf in leaves]
    drawn = [jax.random.normal(k, leaf.shape) / fan**0.5
             for k, leaf, fan in zip(jax.random.split(key, len(leaves)), leaves, fans, strict=True)]  # fmt: skip
    return combine(jax.tree.unflatten(tree, drawn), partition(layer)[1])


def maps(layer):
    """The two directions for a batch, with a context where the layer takes one."""
    of = None if getattr(layer, "context_shape", None) is None else CONTEXT
    return (jax.vmap(lambda x, f=f: f(x, of)) for f in (layer.forward_and_log_det, layer.inverse_and_log_det))


@pytest.mark.parametrize("name", NAMES)
def test_inverse_log_det_and_derivatives_are_exact_in_float32(name):
    layer = unit(jax.random.key(1), MAKE[name](jax.random.key(2), ROW))
    x = jax.random.normal(jax.random.key(3), (N, D))

    @jax.jit
    def there_and_back(layer, x):
        forward, inverse = maps(layer)
        y, log_det = forward(x)
        return y, log_det, *inverse(y)

    @jax.jit
    def slope_of_nothing(layer, y):
        """forward(inverse(y)) is y for all parameters, so that the derivatives of both have to cancel."""

        def around(layer, y):
            forward, inverse = maps(layer)
            return forward(inverse(y)[0])[0]

        _, back = jax.vjp(around, layer, y)
        return back(jnp.ones_like(y))

    y, log_det, back, back_log_det = there_and_back(layer, x)
    assert {a.dtype for a in (y, log_det, back, back_log_det)} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        wide = as_dtype(layer, jnp.float64)
        of = None if getattr(layer, "context_shape", None) is None else CONTEXT
        jacobian = jax.jit(jax.vmap(jax.jacobian(lambda x: wide.forward_and_log_det(x, of)[0])))(x.astype(jnp.float64))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-5)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-5)
    by_layer, by_y = slope_of_nothing(layer, y)
    # sums over 64 events of terms of order one that cancel
    for leaf in jax.tree.leaves(by_layer):
        np.testing.assert_allclose(leaf, 0, atol=1e-3)
    np.testing.assert_allclose(by_y, 1, atol=1e-4)


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_starts_as_the_identity(name):
    layer, x = MAKE[name](KEY, ROW), jnp.array([0.5, -2.0, 3.0])
    y, log_det = layer.forward_and_log_det(x)
    # softplus(log(e - 1)) is one up to a rounding
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert abs(float(log_det)) < 1e-6


def test_planar_is_the_papers():
    layer = unit(KEY, Planar.init(KEY, ROW))
    w, u, b = (np.asarray(a, np.float64) for a in (layer.direction, layer.push, layer.bias))
    u = u + (np.log1p(np.exp(w @ u + np.log(np.e - 1))) - 1 - w @ u) * w / (w @ w)
    x = np.random.default_rng(0).normal(size=(N, D))
    expected = x + u * np.tanh(x @ w + b)[:, None]
    y, log_det = jax.vmap(layer.forward_and_log_det)(x.astype(np.float32))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(log_det, np.log(1 + (w @ u) / np.cosh(x @ w + b) ** 2), atol=1e-5)


@pytest.mark.parametrize("push", [-30.0, -5.0, 30.0])
def test_layers_at_their_bounds_invert(push):
    """Pushes that the constraint has to stop: the slope where it is smallest is softplus(push), next to zero."""
    x = jnp.linspace(-3, 3, 31)[:, None] * jnp.array([1.0, 0.0, 0.0]) + jnp.array([0.0, 0.2, 0.1])
    planar = Planar(jnp.array([1.0, 0.0, 0.0]), jnp.array([push, 0.5, 0.0]), jnp.zeros(()))
    for layer in (planar, Radial(jnp.zeros(3), jnp.zeros(()), jnp.array(push))):
        forward, inverse = map(jax.jit, maps(layer))
        y, log_det = forward(x)
        back, back_log_det = inverse(y)
        assert np.isfinite(log_det).all() and np.isfinite(back_log_det).all()
        again = forward(back)[0]
        # in the image: x itself cannot be told apart where the map is flat
        np.testing.assert_allclose(again, y, rtol=1e-6, atol=1e-5)


def test_gradients_at_the_edges_are_finite():
    at_center = Radial(jnp.zeros(3), jnp.zeros(()), jnp.ones(()))
    without_direction = Planar(jnp.zeros(3), jnp.ones(3), jnp.ones(()))
    for layer in (at_center, without_direction):
        for method in ("forward_and_log_det", "inverse_and_log_det"):
            gradient = jax.grad(
                lambda layer, x, m=method: sum(a.sum() for a in getattr(layer, m)(x)), (0, 1)
            )(layer, jnp.zeros(3))
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), (type(layer), method)
    moved = without_direction.forward_and_log_det(jnp.zeros(3))[0]
    np.testing.assert_allclose(moved, np.tanh(1) * np.ones(3), rtol=1e-6)


def test_contraction_keeps_its_bound():
    """However large the weights: against numpy's singular values, and the steepest slope that can be found."""
    layer = unit(KEY, Residual.init(KEY, ROW, features=(8, 8), bound=0.9))
    net = dataclasses.replace(layer.net, weights=tuple(100 * w for w in layer.net.weights))
    slopes = jax.jit(jax.vmap(jax.jacobian(net.given(None))))(3 * jax.random.normal(KEY, (2000, D)))
    assert np.linalg.norm(np.asarray(slopes, np.float64), 2, axis=(1, 2)).max() <= 0.9
    # one unit, straight: activations of large inputs have their slope 1 / 1.1, so that the bound is nearly reached
    one = jnp.full((1, 1), 50.0)
    straight = dataclasses.replace(net, weights=(one, one, one), biases=(jnp.full(1, 20.0),) * 2 + (jnp.zeros(1),))
    slope = jax.jacobian(straight.given(None))(jnp.zeros(1))[0, 0]
    np.testing.assert_allclose(slope, 0.9 / 1.1**2, rtol=1e-5)
    small = dataclasses.replace(net, weights=tuple(w / 1e4 for w in net.weights))
    assert np.linalg.norm(np.asarray(small.weights[0]), 2) < 0.9 ** (1 / 3), "weights below the bound stay"
    np.testing.assert_allclose(
        jax.jacobian(dataclasses.replace(small, log_sharpness=small.log_sharpness - 50).given(None))(jnp.zeros(D)),
        np.linalg.multi_dot([np.asarray(w, np.float64) for w in small.weights]).T / (4 * 1.1**2), rtol=1e-3,
    )  # fmt: skip


def test_residual_at_its_bound_inverts():
    """x + 0.99 tanh-like: the inverse loses a factor of 1 / (1 - L), no more."""
    layer = unit(KEY, Residual.init(KEY, ROW, features=(8,), bound=0.99))
    net = dataclasses.replace(layer.net, weights=tuple(100 * w for w in layer.net.weights))
    layer, x = dataclasses.replace(layer, net=net), 3 * jax.random.normal(KEY, (N, D))
    y, log_det = jax.jit(jax.vmap(layer.forward_and_log_det))(x)
    back, back_log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(y)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-5)


def test_block_layers_are_triangular_and_reach_everywhere():
    layer = unit(KEY, MAKE["block"](KEY, ROW))
    forward, inverse = map(jax.jit, maps(layer))
    moved = lambda x: layer.forward_and_log_det(x, CONTEXT)[0]  # noqa: E731
    jacobian = jax.jit(jax.vmap(jax.jacobian(moved)))(jax.random.normal(KEY, (N, D)))
    assert not np.triu(jacobian, 1).any()
    assert (np.diagonal(jacobian, axis1=1, axis2=2) > 0).all()
    y = jnp.array([[1e4, -1e4, 0.0], [0.0, 1e4, 1e4], [-50.0, 3.0, -1e4]])
    x, _ = inverse(y)
    np.testing.assert_allclose(forward(x)[0], y, rtol=2e-6, atol=2e-3)  # 1e4 has a rounding of 1e-3


def test_block_inverse_is_the_sequential_one():
    """Coordinate by coordinate with scipy, in float64, against all at once in float32."""
    from scipy.optimize import brentq

    layer = unit(KEY, BlockAutoregressive.init(KEY, jnp.zeros((1, 6)), hidden=3, layers=1))
    y = jax.random.normal(KEY, (6,))
    found = np.asarray(jax.jit(layer.inverse_and_log_det)(y)[0])
    with jax.enable_x64(True):
        wide, x = as_dtype(layer, jnp.float64), np.zeros(6)
        forward = jax.jit(lambda x: wide.forward_and_log_det(x)[0])
        for i in range(6):

            def miss(t, i=i):
                return float(forward(jnp.asarray(np.where(np.arange(6) == i, t, x)))[i]) - float(y[i])

            x[i] = brentq(miss, -100, 100, xtol=1e-12)
    np.testing.assert_allclose(found, x, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "block"])
def test_context_matters_by_row(name):
    layer = unit(KEY, MAKE[name](KEY, ROW))
    flow = Flow(jg.StandardNormal((D,)), Inverse(layer))
    assert flow.context_shape == SHAPE
    x, context = jax.random.normal(KEY, (5, D)), jax.random.normal(KEY, (5, *SHAPE))
    rows = flow.log_prob(x, context=context)
    each = [flow.log_prob(x[i], context=context[i]) for i in range(2)]
    np.testing.assert_allclose(rows[:2], each, rtol=1e-5, atol=1e-5)
    assert np.abs(rows - flow.log_prob(x, context=context[0]))[1:].max() > 1e-3
    with pytest.raises(jg.ShapeError, match="context"):
        layer.forward_and_log_det(x[0])


def test_wrong_starts_are_refused():
    refused = (
        (lambda: Sylvester.init(KEY, ROW, units=4), "orthogonal directions"),
        (lambda: Sylvester.init(KEY, ROW, units=0), "orthogonal directions"),
        (lambda: Residual.init(KEY, ROW, bound=1.0), "no contraction"),
        (lambda: Residual.init(KEY, ROW, features=()), "no contraction"),
        (lambda: BlockAutoregressive.init(KEY, ROW, hidden=0), "without hidden units"),
        (lambda: BlockAutoregressive.init(KEY, ROW, layers=0), "without hidden units"),
    )
    for make, message in refused:
        with pytest.raises(jg.ModelError, match=message):
            make()
    for make in MAKE.values():
        with pytest.raises(jg.ShapeError, match="takes vectors"):
            make(KEY, jnp.zeros(3))
        with pytest.raises(jg.DataError, match="random key"):
            make(0, ROW)


@pytest.mark.parametrize(("recipe", "options"), [("residual_flow", {"features": (8,)}), ("bnaf", {"hidden": 4})])
def test_recipes_train(recipe, options):
    x = jg.data.two_moons(KEY, 400)
    model, algorithm = getattr(jg.recipes, recipe)(KEY, x, layers=2, steps=40, **options)
    fitted = jg.fit(KEY, model, x, algorithm, steps=40, batch_size=200, progress=False)
    assert fitted.status == jg.Status.FINISHED
    assert fitted.model.log_prob(x).mean() > model.log_prob(x).mean() + 0.05
    assert np.isfinite(fitted.model.sample(KEY, (400,))).all()


@pytest.mark.parametrize("name", NAMES)
def test_densities_integrate_to_one(name):
    """Both ways, but for layers whose inverse takes long, which are tested above."""
    make = {"sylvester": Sylvester.init, "block": BlockAutoregressive.init, "residual": Residual.init}
    layer = unit(jax.random.key(4), make.get(name, MAKE[name])(KEY, jnp.zeros((1, 2))))
    points, cell = grid(-30, 30, 600 if name == "block" else 300)  # it has the steepest places
    for bijection in (Inverse(layer),) if name in ("residual", "block") else (layer, Inverse(layer)):
        flow = Flow(jg.StandardNormal((2,)), bijection)
        total = np.exp(np.asarray(flow.log_prob(points.astype(np.float32)), np.float64)).sum() * cell
        assert total == pytest.approx(1, abs=1e-3)


def test_block_inverse_settles_where_the_map_is_steep():
    """Roots that move by a rounding from round to round, times a steep slope, would never come to rest."""
    layer = unit(KEY, BlockAutoregressive.init(KEY, ROW, hidden=4))
    layer = dataclasses.replace(layer, log_norms=tuple(norm + 1 for norm in layer.log_norms))
    y = 3 * jax.random.normal(KEY, (2000, D))
    forward, inverse = map(jax.jit, maps(layer))
    x, _ = inverse(y)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(forward(x)[0], y, atol=1e-4)  # numbers to ten, roundings of x times slopes to a hundred
