"""Bounded, positive and compositional numbers: the maps far out and at their edges, and their densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.bijections import (
    Affine,
    Bounded,
    Exp,
    Interval,
    Sigmoid,
    Simplex,
    Softplus,
    Tanh,
    circle,
    positive,
    real,
    simplex,
)
from jaxgen.bijections.supports import to_real

FAR = np.array([-60.0, -20.0, -9.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 9.0, 20.0, 60.0])
LOG1P = lambda x: np.log1p(np.exp(-np.abs(x)))  # noqa: E731
#: layer, image, log-slope in float64, and the ends of the image
MAPS = {
    "sigmoid": (Sigmoid(()), scipy.special.expit, lambda x: -np.abs(x) - 2 * LOG1P(x), (0, 1)),
    "tanh": (Tanh(()), np.tanh, lambda x: 2 * (np.log(2) - np.abs(x) - LOG1P(2 * x)), (-1, 1)),
    "softplus": (Softplus(()), lambda x: np.maximum(x, 0) + LOG1P(x), lambda x: -np.maximum(-x, 0) - LOG1P(x),
                 (0, np.inf)),
    "exp": (Exp(()), np.exp, lambda x: x, (0, np.inf)),
    "bounded": (Bounded.from_values(-2.0, 6.0), lambda x: -2 + 8 * scipy.special.expit(x),
                lambda x: np.log(8) - np.abs(x) - 2 * LOG1P(x), (-2, 6)),
    "below": (Bounded.from_values(-np.inf, 1.0), lambda x: 1 - np.exp(-x), lambda x: -x, (-np.inf, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_exact_far_out(name):
    layer, image, log_slope, (low, high) = MAPS[name]
    x = FAR.astype(np.float32)
    y, log_det = map(np.asarray, jax.vmap(layer.forward_and_log_det)(x))
    np.testing.assert_allclose(y, image(x.astype(float)), rtol=2e-6, atol=2e-7 if name in ("bounded", "below") else 0)
    np.testing.assert_allclose(log_det, log_slope(x.astype(float)), rtol=2e-7, atol=2e-7)
    assert (y > low).all()
    assert (y < high).all()
    back, back_log_det = map(np.asarray, jax.vmap(layer.inverse_and_log_det)(y))
    # of the y that there is: the inverse of the rounded image, in float64, from its distance to either end
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), layer)
        exact, exact_log_det = map(np.asarray, jax.vmap(wide.inverse_and_log_det)(y.astype(np.float64)))
    np.testing.assert_allclose(back, exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back_log_det, exact_log_det, rtol=1e-6, atol=1e-6)
    near = np.abs(FAR) < 2
    np.testing.assert_allclose(back[near], x[near], atol=1e-6)


def test_tanh_at_twenty():
    assert float(Tanh(()).forward_and_log_det(jnp.float32(20.0))[1]) == pytest.approx(-38.613705638880, rel=1e-7)


@pytest.mark.parametrize("name", MAPS)
def test_edges_have_no_density_and_no_nan(name):
    layer, _, _, ends = MAPS[name]
    flow = jg.Flow(jg.StandardNormal(()), layer)
    out = np.array([e for end in ends if np.isfinite(end) for e in (end, end + np.sign(end - 0.5))], np.float32)
    value, gradient = jax.vmap(jax.value_and_grad(flow.log_prob))(out)
    assert (np.asarray(value) == -np.inf).all()
    assert (np.asarray(gradient) == 0).all()
    assert np.isnan(jax.jit(flow.log_prob)(np.float32(np.nan)))
    huge = np.array([-1e15, -200.0, 200.0, 1e15], np.float32)
    y = flow.decode(huge)
    assert np.isfinite(flow.log_prob(y)).all(), "what a flow can draw has a density"
    slopes = jax.vmap(jax.grad(lambda x: layer.forward_and_log_det(x)[0] + layer.forward_and_log_det(x)[1]))(huge)
    assert np.isfinite(np.asarray(slopes)).all()


def test_densities_are_those_of_scipy():
    x = np.array([0.01, 0.3, 1.0, 4.0, 50.0], np.float32)
    flow = jg.Flow(jg.StandardNormal(()), Exp(()))
    np.testing.assert_allclose(flow.log_prob(x), scipy.stats.lognorm(1).logpdf(x.astype(float)), rtol=1e-6, atol=1e-6)
    u = np.array([1e-6, 0.2, 0.5, 0.999], np.float32)
    uniform = jg.Flow(jg.Flow(jg.StandardNormal(()), Sigmoid(())), Affine(jnp.float32(3.0), jnp.log(2.0)))
    expected = scipy.stats.norm.logpdf(scipy.special.logit(u.astype(float))) - np.log(u) - np.log1p(-u.astype(float))
    # the ends 3 and 5 cost float32 the digits of what lies next to them
    np.testing.assert_allclose(uniform.log_prob(3 + 2 * u)[1:], expected[1:] - np.log(2), rtol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 40])
def test_simplex_by_the_jacobian(size):
    layer = Simplex(size)
    x = 3 * jax.random.normal(jax.random.key(0), (50, size - 1))
    y, log_det = jax.vmap(layer.forward_and_log_det)(x)
    np.testing.assert_allclose(np.asarray(y, np.float64).sum(axis=1), 1, atol=1e-6)
    back, back_log_det = jax.vmap(layer.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(back_log_det, -log_det, rtol=2e-6, atol=1e-5)
    with jax.enable_x64(True):
        wide = x.astype(jnp.float64)
        jacobian = np.asarray(jax.vmap(jax.jacobian(lambda x: layer.forward_and_log_det(x)[0]))(wide))[:, :-1]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=2e-6, atol=1e-5)


def test_simplex_integrates_to_one_and_is_zero_outside():
    flow = jg.Flow(jg.StandardNormal((2,)), Simplex(3))
    n = 400
    first, second = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2)
    points = np.stack([first, second, 1 - first - second], -1).reshape(-1, 3)
    log_prob = np.asarray(flow.log_prob(points.astype(np.float32)), np.float64)
    assert (log_prob[points[:, 2] <= 0] == -np.inf).all()
    assert np.exp(log_prob).sum() / n**2 == pytest.approx(1, abs=1e-3)  # of the midpoint rule
    assert flow.log_prob(jnp.array([0.2, 0.3, 0.4])) == -jnp.inf, "the sum is not one"
    corner = flow.decode(jnp.array([[80.0, -90.0], [-1e4, 0.0]]))
    assert bool(jnp.isfinite(flow.log_prob(corner)).all())


def test_flows_are_densities_of_the_users_own_numbers(tmp_path):
    """Mass inside of the support is one, for a flow that was moved off its start; it trains and stays finite."""
    rng = np.random.default_rng(1)
    x = rng.gamma(3.0, 0.4, size=(80, 2)).astype(np.float32)
    key = jax.random.key(0)
    n = 300
    first, second = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2)
    unit = np.stack([first, second], -1).reshape(-1, 2)
    parts = x / x.sum(axis=1, keepdims=True)
    spaces = {
        "positive": (positive, x, 12 * unit, 144),  # up to 12 is all but 1e-4 of it
        "interval": (Interval((0.0, -1.0), 9.0), x, unit * [9, 10] - [0, 1], 90),
        "simplex": (simplex, np.stack([parts[:, 0] * 0.6, parts[:, 1] * 0.6, np.full(80, 0.4)], 1),
                    np.concatenate([unit, 1 - unit.sum(axis=1, keepdims=True)], 1), 1),
    }  # fmt: skip
    for name, (support, data, points, volume) in spaces.items():
        flow, algorithm = jg.recipes.realnvp(key, data, layers=2, features=(8,), support=support)
        if name == "positive":
            fitted = jg.fit(key, flow, data, algorithm, steps=40)
            assert fitted.status == jg.Status.FINISHED
            flow = fitted.model
        log_prob = np.asarray(flow.log_prob(points.astype(np.float32)), np.float64)
        assert not np.isnan(log_prob).any()
        # of the midpoint rule near the edges, where densities are steep
        assert np.exp(log_prob).sum() * volume / n**2 == pytest.approx(1, abs=1e-2), name
        jg.save(flow, tmp_path / name)
        np.testing.assert_array_equal(jg.load(tmp_path / name).log_prob(points[:9]), flow.log_prob(points[:9]))
        assert bool(jnp.isfinite(flow.log_prob(flow.sample(key, (200,)))).all())
    with pytest.raises(jg.ModelError, match="no support"):
        jg.recipes.realnvp(key, x, support="positive")
    with pytest.raises(jg.DataError, match="edge"):
        jg.recipes.realnvp(key, x - 2, support=positive)


def test_flows_of_angles_close_on_the_circle():
    """Two angles that turn together: mass one over a turn, equal after whole turns, better than each angle alone."""
    rng = np.random.default_rng(0)
    first = rng.uniform(-np.pi, np.pi, 600)
    x = np.stack([first, first + rng.vonmises(0.0, 8.0, 600)], 1).astype(np.float32)  # of more than one turn
    key = jax.random.key(0)
    flow, algorithm = jg.recipes.neural_spline_flow(key, x, layers=2, features=(16,), bins=8, support=circle)
    alone = jg.VonMises.init(key, x)
    np.testing.assert_allclose(flow.log_prob(x), -2 * np.log(2 * np.pi), atol=1e-4)  # where it starts
    fitted = jg.fit(key, flow, x, algorithm, steps=100).model
    assert fitted.log_prob(x).mean() > alone.log_prob(x).mean() + 0.5
    n = 100
    axis = (np.arange(n) + 0.5) / n * 2 * np.pi
    points = np.stack(np.meshgrid(axis - np.pi, axis - np.pi), -1).reshape(-1, 2).astype(np.float32)
    log_prob = np.asarray(fitted.log_prob(points), np.float64)
    assert np.exp(log_prob).sum() * (2 * np.pi / n) ** 2 == pytest.approx(1, abs=5e-3)
    np.testing.assert_allclose(fitted.log_prob(points + 2 * np.pi), log_prob, atol=1e-3)  # float32 angles up to 3 pi
    seam = np.stack([np.full(9, np.pi), np.linspace(-3, 3, 9)], 1).astype(np.float32)
    step = np.array([1e-4, 0.0], np.float32)
    np.testing.assert_allclose(fitted.log_prob(seam - step), fitted.log_prob(seam + step), atol=5e-3)
    assert np.abs(fitted.sample(key, (100,))).max() <= np.pi + 1e-6
    with pytest.raises(jg.ModelError, match="close on the circle"):
        jg.recipes.realnvp(key, x, support=circle)


def test_data_go_to_real_numbers_or_are_refused():
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, size=(20, 2)).astype(np.float32)
    z, layer = to_real(positive, x, "test")
    np.testing.assert_allclose(z, np.log(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(layer.forward_and_log_det)(z)[0], x, rtol=1e-6)
    assert to_real(real, x, "test")[1] is None
    columns = Interval((0.0, -np.inf), (np.inf, np.inf))
    np.testing.assert_allclose(to_real(columns, x, "test")[0], np.stack([np.log(x[:, 0]), x[:, 1]], 1), rtol=1e-6)
    parts = (x / x.sum(axis=1, keepdims=True)).astype(np.float32)
    assert to_real(simplex, parts, "test")[0].shape == (20, 1)
    for support, data, error, message in (
        (positive, np.where(x > 2, 0, x), jg.DataError, "edge"),
        (Interval(0.0, 1.0), x, jg.DataError, "edge"),
        (simplex, x, jg.DataError, "edge"),
        (simplex, x[:, :1], jg.ModelError, "two or more"),
        (Interval(1.0, 1.0), x, jg.ModelError, "empty"),
        (Interval((0.0, 0.0, 0.0), 1.0), x, jg.ModelError, "fit the events"),
        ("positive", x, jg.ModelError, "no support"),
    ):
        with pytest.raises(error, match=message):
            to_real(support, data, "test")


def test_points_of_the_simplex_that_were_rounded():
    """(.2, .3, .5) in float32 does not sum to one in float64: its density is that of the point divided by the sum."""
    row, n = np.float32([0.2, 0.3, 0.5]).astype(float), 40
    many = np.random.default_rng(0).dirichlet(np.full(n, 0.3)).astype(np.float32).astype(float)
    with jax.enable_x64(True):
        flow = jg.Flow(jg.StandardNormal((2,)), Simplex(3))
        np.testing.assert_allclose(flow.log_prob(row), flow.log_prob(np.array([0.2, 0.3, 0.5])), atol=1e-6)
        np.testing.assert_allclose(flow.log_prob(row * (1 + 8e-6)), flow.log_prob(row / row.sum()), rtol=1e-12)
        assert jg.Flow(jg.StandardNormal((n - 1,)), Simplex(n)).log_prob(many) > -np.inf
        assert to_real(simplex, row[None], "test")[0].shape == (1, 2)
        assert flow.log_prob(row * 1.001) == -np.inf
    slope = jax.grad(lambda y: Simplex(3).inverse_and_log_det(y)[1])(jnp.array([0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(slope, 0)


def test_what_an_error_of_a_support_tells_to_do_works():
    x = np.random.default_rng(0).gamma(2.0, size=(20, 3))
    names = {"np": np, "jaxgen": jg, "Interval": Interval}
    for support, data, says in (
        (simplex, x, "(x).sum(-1, keepdims=True)"), (simplex, np.where(x > 2, 0, x), "np.maximum"),
        (simplex, (x / x.sum(-1, keepdims=True)).astype(np.float16), "float32"),
        (Interval(0.0, 1.0), x, "Interval(0, "), (positive, x - 1, "Interval(-"),
        (Interval((0.0, -1.0, -np.inf), 2.0), x, "Interval(-np.inf"), (Interval(0, 9), x.round(), "Dequantized"),
    ):  # fmt: skip
        with pytest.raises(jg.DataError) as caught:
            to_real(support, data, "test")
        fix = str(caught.value).split("fix:")[1].strip()
        assert says in fix, fix
        if support is simplex:
            to_real(simplex, eval(fix, names, {"x": data}), "test")  # noqa: S307
        elif fix.startswith("support="):
            to_real(eval(fix.removeprefix("support="), names), data, "test")  # noqa: S307
