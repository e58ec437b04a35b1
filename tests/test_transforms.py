"""Splines, transforms, and the layers that networks make of them, against closed forms, float64 and autodiff."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_flow import data, equations, in_float64, unit_scale

import jaxgen as jg
from jaxgen.bijections import (
    AffineTransform,
    Autoregressive,
    CircularSplineTransform,
    Coupling,
    Inverse,
    LogisticMixtureTransform,
    SplineTransform,
)
from jaxgen.core.pytree import combine, partition
from jaxgen.models.neural.flow import Flow
from jaxgen.nn.made import MADE
from jaxgen.nn.net import Net
from jaxgen.ops.splines import (
    Knots,
    free_spline_forward,
    free_spline_inverse,
    free_spline_knots,
    spline_forward,
    spline_inverse,
)

TRANSFORMS = {
    "affine": AffineTransform(),
    "spline": SplineTransform(),
    "circular": CircularSplineTransform(),
    "logistic": LogisticMixtureTransform(4),
}
D = 4
#: inside of the circle and of the splines' interval, on both sides of its middle
X = np.random.default_rng(0).uniform(-3, 3, size=(40, D)).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)


def test_spline_has_the_published_values():
    knots = Knots(*map(jnp.array, ([-3.0, -1, 0.5, 3], [-3.0, -2, 1, 3], [1.0, 0.5, 2, 1])))
    x = jnp.array([-2, 0.2, 2, 3.5])
    y, log_slope = spline_forward(knots, x)
    np.testing.assert_allclose(y, [-2.4, 0.318181818182, 2.352112676056, 3.5], rtol=1e-6)
    np.testing.assert_allclose(log_slope, [-0.916290731874, 0.918354716095, -0.639278352307, 0], rtol=1e-6)
    back, inverse = spline_inverse(knots, y)
    np.testing.assert_allclose(back, x, rtol=1e-6)
    np.testing.assert_allclose(inverse, -log_slope, rtol=1e-6)


@pytest.mark.parametrize("circular", [False, True])
def test_splines_survive_any_parameters(circular):
    """2000 random splines at parameters of size 10, in float32: on a grid, at the knots and right beside them."""
    params = 10 * jax.random.normal(jax.random.key(0), (24 if circular else 23, 2000, 1))

    @jax.jit
    def there_and_back(params):
        knots = free_spline_knots(params, 5.0, circular)
        edges = knots.x[:, :, 0].T
        grid = jnp.broadcast_to(jnp.linspace(-5, 5, 301), (2000, 301))
        x = jnp.concatenate([grid, edges, jnp.nextafter(edges, 9.0), jnp.nextafter(edges, -9.0)], axis=1)
        # a circle has no outside: `CircularSplineTransform` brings what rounds to beyond its end to the other one
        x = jnp.clip(x, -4.9999, 4.9999) if circular else x
        y, log_slope = free_spline_forward(params, x, 5.0, circular)
        back = free_spline_inverse(params, y, 5.0, circular)
        return x, (y, log_slope), back, spline_forward(knots, x), spline_inverse(knots, y)

    x, (y, log_slope), (back, inverse), *by_knots = jax.tree.map(np.asarray, there_and_back(params))
    assert np.isfinite(log_slope).all()
    assert np.abs(back - x).max() < 1e-3
    assert np.abs(log_slope + inverse).max() < 1e-2
    assert (np.diff(y[:, 1:300], axis=1) > 0).all(), "it increases"
    # both sides of a knot agree: in float32, at slopes up to e^4
    assert np.abs(y[:, 310:319] - y[:, 301:310]).max() < 1e-3
    # the same through its knots, which are rounded: slopes up to e^5.5
    for got, (expected, _) in zip((y, back), by_knots, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3)


def value_slopes_and_their_slopes(f):
    """Of a function of two arguments, in one pass: forward over reverse, by the first."""
    return jax.jit(jax.jacfwd(lambda *args: (jax.value_and_grad(f, (0, 1))(*args),) * 2, has_aux=True))


def test_free_splines_are_those_of_their_knots():
    """In float64, with derivatives by parameters and numbers, forward over reverse."""
    rng = np.random.default_rng(0)
    for circular in (False, True):
        params, x = rng.normal(size=(15 if circular else 14, 6)), rng.uniform(-4, 4, 6)
        with jax.enable_x64(True):
            for free, by_knots in ((free_spline_forward, spline_forward), (free_spline_inverse, spline_inverse)):
                mine = lambda p, x: sum(jnp.sum(jnp.sin(a)) for a in free(p, x, 3.0, circular))  # noqa: E731, B023
                theirs = lambda p, x: sum(  # noqa: E731
                    jnp.sum(jnp.sin(a)) for a in by_knots(free_spline_knots(p, 3.0, circular), x)  # noqa: B023
                )
                got, expected = (value_slopes_and_their_slopes(f)(params, x) for f in (mine, theirs))
                for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_splines_have_finite_gradients_at_the_ends_and_outside():
    @functools.partial(jax.jit, static_argnums=0)
    def slopes(method, params, x):
        return jax.vmap(jax.grad(lambda p, x: sum(method(p, x, 5.0)), (0, 1)), (None, 0))(params, x)

    params = 10 * jax.random.normal(jax.random.key(0), (23,))
    for method in (free_spline_forward, free_spline_inverse):
        by_params, by_x = slopes(method, params, jnp.array([-5.0, 5.0, -1e30, 7.0, 0.0]))
        assert np.isfinite(by_params).all()
        np.testing.assert_array_equal(by_params[2:4], 0)
        np.testing.assert_array_equal(by_x[2:4], 1)
    assert np.isnan(free_spline_forward(params, jnp.nan, 5.0)[0]), "NaN is not hidden"


def test_a_circle_is_closed():
    transform, params = CircularSplineTransform(5), jax.random.normal(jax.random.key(1), (16,))
    y = jnp.linspace(-jnp.pi, jnp.pi, 4001)
    x, log_slope = transform.inverse(jnp.broadcast_to(params[:, None], (16, 4001)), y)
    assert float(jnp.abs(x).max()) <= np.pi + 1e-6
    # a density on the circle: the uniform one through the layer, by the trapezoidal rule
    total = np.trapezoid(np.exp(np.asarray(log_slope, np.float64)), np.asarray(y, np.float64)) / (2 * np.pi)
    assert total == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(log_slope[0], log_slope[-1], atol=1e-5)
    again = transform.inverse(params, y[7] + 2 * jnp.pi)[0]
    np.testing.assert_allclose(again, x[7], atol=1e-5)


def layer(kind, name, context_shape=(2,)):
    init = {"coupling": Coupling.init, "autoregressive": Autoregressive.init}[kind]
    made = init(jax.random.key(0), X, TRANSFORMS[name], features=(8, 8), context_shape=context_shape)
    return unit_scale(jax.random.key(1), made)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_layers_are_exact_in_float32(kind, name):
    """Against float64 and numpy's determinant of the Jacobian, at unit-scale parameters."""
    made = layer(kind, name)
    y, log_det = jax.jit(jax.vmap(made.forward_and_log_det))(X, CONTEXT)
    z, inverse_log_det = jax.jit(jax.vmap(made.inverse_and_log_det))(y, CONTEXT)
    with jax.enable_x64(True):
        exact = in_float64(made)
        wide = [jnp.asarray(a, jnp.float64) for a in (X, CONTEXT)]
        jacobian = np.asarray(jax.jit(jax.vmap(jax.jacobian(lambda x, c: exact.forward_and_log_det(x, c)[0])))(*wide))
    away = np.asarray(z - X)
    if name == "circular":
        away = np.angle(np.exp(1j * away))
    # the bound that the library states for float32; where the inverse is steep it magnifies the rounding of y
    steepest = np.maximum(1, 1 / np.linalg.svd(jacobian, compute_uv=False)[:, -1])
    assert np.all(np.abs(away).max(axis=1) <= 1e-5 * steepest)
    expected = np.linalg.slogdet(jacobian)[1]
    assert np.abs(np.asarray(log_det) - expected).max() <= 1e-5
    assert np.all(np.abs(np.asarray(inverse_log_det) + expected) <= 1e-5 * steepest)


def test_zero_parameters_are_the_identity():
    for transform in TRANSFORMS.values():
        for method in (transform.forward, transform.inverse):
            y, log_slope = method(jnp.zeros((transform.size, *X.shape)), jnp.asarray(X))
            np.testing.assert_allclose(y, X, atol=2e-6)
            np.testing.assert_allclose(log_slope, 0, atol=2e-6)


def test_a_mixture_of_logistics_is_its_distribution_function():
    import scipy.stats

    params = np.random.default_rng(3).normal(size=3 * 4 + 2)
    with jax.enable_x64(True):
        got = np.asarray(jax.vmap(lambda y: LogisticMixtureTransform(4).inverse(jnp.asarray(params), y)[0])(X[:, 0]))
    weight, speed = np.exp(2 * np.tanh(params[:4] / 2)), 2 * np.arange(1, 5) / 5
    parts = scipy.stats.logistic.cdf(
        X[:, :1], 2 * np.tanh(speed * params[4:8] / 2), np.exp(np.tanh(params[8:12]))
    )
    cdf = parts @ weight / weight.sum()
    expected = (np.log(cdf / (1 - cdf)) - params[12]) * np.exp(-2 * np.tanh(params[13] / 2))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "context", "features"), [(5, 0, (7, 3)), (5, 2, (16,)), (2, 0, (1,)), (1, 3, (4,))])
def test_masks_let_nothing_through(size, context, features):
    net = Net.init(jax.random.key(0), MADE(size, features, 2, 2, context, jax.nn.silu), (2 * size + context,))
    net = unit_scale(jax.random.key(1), net)
    jacobian = np.abs(np.asarray(jax.jacobian(net)(jnp.ones(2 * size + context)))).reshape(2, size, -1)
    for feature in np.split(jacobian[..., : 2 * size], 2, axis=-1):
        assert not np.triu(feature).any(), "a coordinate does not depend on itself or those after it"
    if context:
        assert (jacobian[..., 2 * size :].sum(axis=-1) > 0).all(), "every coordinate sees the context"
    if min(features) >= size:
        assert (jacobian[0][np.tril_indices(size, -1)] > 0).all(), "every coordinate sees all before it"


def test_the_parallel_inverse_is_the_sequential_one():
    """Values and gradients against D passes one after the other, which autodiff goes through."""
    made = layer("autoregressive", "spline")

    def sequential(made, x, context):
        y = jnp.zeros_like(x)
        for d in range(D):
            params = made._params(y, context)
            y = y.at[d].set(made.transform.forward(params[:, d], x[d])[0])
        return y, jnp.sum(made.transform.forward(made._params(y, context), x)[1])

    def loss(method, made, x, context):
        y, log_det = jax.vmap(functools.partial(method, made))(x, context)
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_det), y

    parallel = lambda made, x, context: made.forward_and_log_det(x, context)  # noqa: E731
    gradient = jax.jit(jax.value_and_grad(loss, (1, 2, 3), has_aux=True), static_argnums=0)
    (_, y), got = gradient(parallel, made, X[:8], CONTEXT[:8])
    (_, expected_y), expected = gradient(sequential, made, X[:8], CONTEXT[:8])
    np.testing.assert_allclose(y, expected_y, atol=2e-6)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


class Conv(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Conv(self.outputs, (3, 3), precision="highest")(x)


def test_images_split_their_channels():
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    context = jnp.ones(2)
    made = Coupling.init(
        jax.random.key(0), images, SplineTransform(4), split=1, context_shape=(2,), network=Conv
    )
    assert made.event_shape == (4, 4, 3)
    y, log_det = jax.jit(made.forward_and_log_det)(images[0], context)
    np.testing.assert_array_equal(y[..., :1], images[0][..., :1])
    np.testing.assert_allclose(made.inverse_and_log_det(y, context)[0], images[0], atol=1e-5)
    jacobian = jax.jit(jax.jacobian(lambda x: made.forward_and_log_det(x, context)[0]))(images[0]).reshape(48, 48)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian, np.float64))[1], atol=1e-5)
    assert np.abs(np.asarray(jacobian)).reshape(4, 4, 3, 4, 4, 3)[1, 1, 1, 2, 2, 0] > 0, "neighbours are seen"


LAYERS = {
    "spline coupling": functools.partial(Coupling.init, transform=SplineTransform(5), features=(8,)),
    "logistic coupling": functools.partial(Coupling.init, transform=LogisticMixtureTransform(3), features=(8,)),
    "spline autoregressive": functools.partial(Autoregressive.init, transform=SplineTransform(5), features=(8,)),
}


def inverse_autoregressive(key, x):
    return Inverse(Autoregressive.init(key, x, features=(8,)))


@pytest.mark.parametrize("name", [*LAYERS, "inverse autoregressive"])
def test_densities_integrate_to_one(name):
    made = LAYERS.get(name, inverse_autoregressive)
    x = np.random.default_rng(2).normal(size=(64, 2)).astype(np.float32)
    flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((2,)), made, layers=3)
    trained, rest = partition(flow.bijection)
    noisy = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), trained)
    flow = Flow(flow.base, combine(noisy, rest))
    # the scales of a mixture, and the frames of splines, carry tails further out
    high, n = {"logistic coupling": (45.0, 450), "inverse autoregressive": (12.0, 700)}.get(name, (40.0, 1000))
    low = -high
    axis = low + (high - low) / n * (np.arange(n) + 0.5)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)
    total = np.exp(np.asarray(flow.log_prob(points), np.float64)).sum() * ((high - low) / n) ** 2
    assert total == pytest.approx(1, abs=1e-3)  # of the midpoint rule at bends of the density


def test_one_coordinate_is_enough_for_an_autoregressive_layer():
    x = data(1)
    flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((1,)), LAYERS["spline autoregressive"], layers=2)
    np.testing.assert_allclose(flow.decode(flow.encode(x)), x, atol=1e-5)


def stacked(kind, transform, layers=2, seed=0):
    init = {"coupling": Coupling.init, "autoregressive": Autoregressive.init}[kind]
    layer = functools.partial(init, transform=transform, features=(8,), context_shape=(2,))
    return Flow.init(jax.random.key(seed), data(), jg.StandardNormal((2,)), layer, layers=layers)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_programs_do_not_grow_with_depth_and_are_found_again(kind):
    x, context, traces = data(), np.ones((64, 2), np.float32), []

    @jax.jit
    def score(flow, x, context):
        traces.append(1)
        return flow.log_prob(x, context=context)

    def count(layers):
        flow = stacked(kind, SplineTransform(4), layers)
        return equations(jax.make_jaxpr(lambda flow: flow.log_prob(x, context=context))(flow).jaxpr)

    assert count(2) == count(9) > 20
    for seed in range(3):
        score(stacked(kind, SplineTransform(4), seed=seed), x, context)
    assert len(traces) == 1


@pytest.mark.parametrize("name", TRANSFORMS)
def test_flows_are_saved_with_their_transforms(name, tmp_path):
    flow = stacked("autoregressive", TRANSFORMS[name])
    jg.save(flow, tmp_path / "flow")
    assert jax.tree.structure(jg.load(tmp_path / "flow")) == jax.tree.structure(flow)


def test_errors_name_what_was_wrong():
    key = jax.random.key(0)
    for wrong in (
        lambda: AffineTransform(0.0), lambda: SplineTransform(1), lambda: SplineTransform(8, -1.0),
        lambda: SplineTransform(2.5), lambda: CircularSplineTransform(0), lambda: LogisticMixtureTransform(0),
        lambda: Coupling.init(key, X, split=D), lambda: Autoregressive.init(key, X, features=(0,)),
    ):  # fmt: skip
        with pytest.raises(jg.ModelError):
            wrong()
    with pytest.raises(jg.ShapeError, match="reshape"):
        Autoregressive.init(key, X[None])
    with pytest.raises(jg.ShapeError, match="MADE"):
        Net.init(key, MADE(3, (4,), 2), (4,))
    made = layer("autoregressive", "affine")
    for x, context in ((X[0], None), (X[0], jnp.zeros(3)), (X, CONTEXT[0])):
        with pytest.raises(jg.ShapeError):
            made.forward_and_log_det(x, context)
