"""Distribution functions and quantiles: scipy's in float64, the density as their slope, and closed forms."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.core.methods import context_shape
from jaxgen.ops.roots import reach
from jaxgen.ops.tails import beta_cdf, gamma_tails


def logistic(params):
    return distrax.Logistic(params["loc"], params["scale"])


LEVELS = np.array([1e-6, 1e-3, 0.05, 0.5, 0.9, 0.999, 1 - 1e-6], np.float32)
ONE = np.array([1.0], np.float32)
#: `name: (a model of one coordinate, scipy's)`, with parameters that float32 has exactly
CONTINUOUS = {
    "standard normal": (jg.StandardNormal((1,)), scipy.stats.norm()),
    "gaussian": (jg.Gaussian.from_values([3.0], [[4.0]]), scipy.stats.norm(3, 2)),
    "diagonal": (jg.DiagonalGaussian.from_values([3.0], [2.0]), scipy.stats.norm(3, 2)),
    "low rank": (jg.LowRankGaussian.from_values([3.0], [[1.0]], [3.0]), scipy.stats.norm(3, 2)),
    "student": (jg.StudentT.from_values([1.0], [[4.0]], 3.0), scipy.stats.t(3, 1, 2)),
    "cauchy": (jg.StudentT.from_values([1.0], [[4.0]], 1.0), scipy.stats.cauchy(1, 2)),
    "student, light": (jg.StudentT.from_values([1.0], [[4.0]], 512.0), scipy.stats.t(512, 1, 2)),
    # scale^2 = scatter (1 + 1 / strength) / df
    "normal wishart": (jg.NormalWishart.from_values([1.0], [[8.0]], strength=2.0, df=3.0), scipy.stats.t(3, 1, 2)),
    "logistic of distrax": (jg.DistraxLeaf.from_values({"loc": [1.0], "scale": [2.0]}, logistic, (1,)),
                            scipy.stats.logistic(1, 2)),
    "laplace": (jg.Laplace.from_values([1.0], [2.0]), scipy.stats.laplace(1, 2)),
    "exponential": (jg.Exponential.from_values([2.0]), scipy.stats.expon(scale=2)),
    "log normal": (jg.LogNormal.from_values([2.0], [0.5]), scipy.stats.lognorm(0.5, scale=2)),
    "gamma": (jg.Gamma.from_values([2.0], [1.5]), scipy.stats.gamma(1.5, scale=2 / 1.5)),
    "gamma, narrow": (jg.Gamma.from_values([2.0], [4096.0]), scipy.stats.gamma(4096, scale=2 / 4096)),
    "beta": (jg.Beta.from_values([0.5], [3.0]), scipy.stats.beta(0.5, 3)),
    "beta, narrow": (jg.Beta.from_values([3000.0], [1000.0]), scipy.stats.beta(3000, 1000)),
}
COUNTS = {
    "poisson": (jg.Poisson.from_values([3.0]), scipy.stats.poisson(3)),
    "poisson, large": (jg.Poisson.from_values([40000.0]), scipy.stats.poisson(40000)),
    "negative binomial": (jg.NegativeBinomial.from_values([3.0], [0.5]), scipy.stats.nbinom(0.5, 0.5 / 3.5)),
    "negative binomial, large": (jg.NegativeBinomial.from_values([500.0], [64.0]), scipy.stats.nbinom(64, 64 / 564)),
    "binomial": (jg.Binomial.from_values([0.25], 10), scipy.stats.binom(10, 0.25)),
    "binomial, large": (jg.Binomial.from_values([0.75], 10000), scipy.stats.binom(10000, 0.75)),
    "bernoulli": (jg.Bernoulli.from_values([0.25]), scipy.stats.bernoulli(0.25)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_families_are_scipys(name):
    model, exact = CONTINUOUS[name]
    at = np.asarray(model.quantile(LEVELS), np.float64)[:, 0]
    # a level is known to its rounding, which moves the quantile by that much over the density; and a few roundings of
    # the scale of the numbers. The sums of tails have some 2e-7, and the upper tail no digits of its own
    expected = exact.ppf(LEVELS.astype(np.float64))
    slack = 1e-6 * np.maximum(LEVELS, 1e-7) + 3e-7 * (LEVELS > 0.01)
    np.testing.assert_array_less(np.abs(at - expected), slack / exact.pdf(expected) + 1e-5 * np.abs(expected) + 1e-12)
    x = np.concatenate([exact.ppf([0.01, 0.3, 0.5, 0.8, 0.99]), [-np.inf, np.inf, np.nan]]).astype(np.float32)
    found = np.asarray(jax.jit(type(model).cdf)(model, x[:, None]))[:, 0]
    np.testing.assert_allclose(found[:-1], exact.cdf(x[:-1].astype(np.float64)), atol=2e-6)
    assert np.isnan(found[-1])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_slope_is_the_density(name):
    model, exact = CONTINUOUS[name]
    x = exact.ppf(np.array([0.05, 0.3, 0.8])).astype(np.float32)[:, None]
    slope = jax.vmap(jax.grad(lambda x: model.cdf(x)[0]))(jnp.asarray(x))[:, 0]
    np.testing.assert_allclose(slope, np.exp(model.log_prob(x)), rtol=2e-4)  # autodiff of the tails' quadrature


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_scipys(name):
    model, exact = COUNTS[name]
    if name == "poisson, large":  # whose logarithm is rounded, by a ten-thousandth of the spread
        exact = scipy.stats.poisson(float(model.rate[0]))
    levels = LEVELS.astype(np.float64)
    at = np.asarray(model.quantile(LEVELS))[:, 0]
    # within what the tails leave of the level
    assert (exact.cdf(at) >= levels * (1 - 1e-4) - 1e-6 * (levels > 0.01)).all()
    assert (exact.cdf(at - 1) <= levels * (1 + 1e-4) + 1e-6 * (levels > 0.01)).all()
    assert (at == np.floor(at)).all()
    k = exact.ppf([0.01, 0.3, 0.5, 0.9, 0.999])
    x = np.concatenate([k, k + 0.5, [-1.0, np.inf]]).astype(np.float32)
    np.testing.assert_allclose(model.cdf(jnp.asarray(x)[:, None])[:, 0], exact.cdf(x.astype(np.float64)), atol=2e-6)


def test_angles_are_counted_from_minus_pi():
    loc, k = np.array([0.0, 2.5, -3.0], np.float32), np.array([0.5, 3.0, 400.0], np.float32)
    model, exact = jg.VonMises.from_values(loc, k), [scipy.stats.vonmises(*p) for p in zip(k, loc, strict=True)]
    x = np.linspace(-3.1, 3.1, 9, dtype=np.float32)
    # scipy's runs on along the line, as ours does not
    wanted = np.stack([one.cdf(x) - one.cdf(-np.pi) for one in exact], axis=1)
    np.testing.assert_allclose(model.cdf(np.broadcast_to(x[:, None], (9, 3))), wanted, atol=2e-6)
    levels = np.array([0.01, 0.3, 0.5, 0.95], np.float32)
    at = model.quantile(levels)
    np.testing.assert_allclose(model.cdf(at), np.broadcast_to(levels[:, None], (4, 3)), atol=2e-6)
    assert (np.abs(at) <= np.float32(np.pi)).all()


@pytest.mark.parametrize("size", [0.01, 1.0, 20.0, 3e3, 1e5])
def test_incomplete_gamma_and_beta_at_any_size(size):
    """Where those of jax, series and continued fractions that are cut off, are wrong by up to 0.3."""
    a = np.float32(size)
    z = np.array([-4, -1, -0.1, 0, 0.3, 2, 5], np.float64)
    x = np.maximum(a + z * np.sqrt(a), a / 100).astype(np.float32)
    below, above = gamma_tails(a, x)
    # 1e-6: mostly the rounding of x, which is 8 ulp of the mean beside its spread
    np.testing.assert_allclose(below, scipy.special.gammainc(float(a), x.astype(float)), atol=1e-6, rtol=2e-5)
    np.testing.assert_allclose(above, scipy.special.gammaincc(float(a), x.astype(float)), atol=1e-6)
    for b in (0.25, 7.0, 1e4):
        mean = a / (a + b)
        x = np.clip(mean + z * np.sqrt(mean * (1 - mean) / (a + b + 1)), mean / 50, 1 - (1 - mean) / 50)
        x = x.astype(np.float32)
        exact = scipy.special.betainc(float(a), b, x.astype(float))
        np.testing.assert_allclose(beta_cdf(a, np.float32(b), x, 1 - x), exact, atol=2e-6, rtol=1e-3)


def test_marginals_of_correlated_coordinates():
    mean, cov = np.array([1.0, -2.0]), np.array([[2.0, 0.9], [0.9, 0.5]])
    scale = np.sqrt(np.diag(cov))
    for model, exact in (
        (jg.Gaussian.from_values(mean, cov), scipy.stats.norm(mean, scale)),
        (jg.StudentT.from_values(mean, cov, 4.0), scipy.stats.t(4, mean, scale)),
        (jg.LinearRegression.from_values([[0.0], [0.0]], mean, cov), scipy.stats.norm(mean, scale)),
        (jg.NoisyGaussian.from_values(mean, cov), scipy.stats.norm(mean, np.hypot(scale, 1.0))),
        (jg.NormalWishart.from_values(mean, 4.0 * cov, strength=2.0, df=5.0),
         scipy.stats.t(4, mean, scale * np.sqrt(4.0 * 1.5 / 4.0))),
        (jg.NormalWishart.from_values(mean, 4.0 * scale**2, strength=2.0, df=5.0),
         scipy.stats.t(4, mean, scale * np.sqrt(4.0 * 1.5 / 4.0))),
    ):  # fmt: skip
        given = {} if context_shape(model) is None else {"context": jnp.ones(context_shape(model))}
        np.testing.assert_allclose(model.quantile(0.9, **given), exact.ppf(np.float32(0.9)), rtol=1e-5)
        x = np.array([0.5, -1.5], np.float32)
        np.testing.assert_allclose(model.cdf(x, **given), exact.cdf(x), atol=1e-6)


@jg.model
class Mirror:
    """`y = -2 x`, of one number."""

    event_shape = (1,)

    def forward_and_log_det(self, x, context=None):
        return -2 * x, jnp.log(jnp.full((), 2.0, x.dtype))

    def inverse_and_log_det(self, y, context=None):
        return -y / 2, -jnp.log(jnp.full((), 2.0, y.dtype))


def mixed_quantile(weights, parts, level):
    return scipy.optimize.brentq(lambda x: weights @ [p.cdf(x) for p in parts] - level, -1e3, 1e3, xtol=1e-13)


def test_mixtures_by_roots():
    weights = np.array([0.25, 0.75])
    parts = [scipy.stats.norm(-3, 0.5), scipy.stats.norm(20, 2)]
    mixture = jg.Mixture.from_components(jg.DiagonalGaussian.from_values([[-3.0], [20.0]], [[0.5], [2.0]]), weights)
    levels = np.array([1e-6, 0.1, 0.24, 0.26, 0.5, 0.999], np.float32)
    exact = np.array([mixed_quantile(weights, parts, float(u)) for u in levels])
    slope = sum(w * p.pdf(exact) for w, p in zip(weights, parts, strict=True))
    found = np.asarray(mixture.quantile(levels))[:, 0]
    # a few roundings of the level over the slope
    np.testing.assert_array_less(np.abs(found - exact), 3e-7 * np.maximum(levels, 1e-3) / slope + 1e-5)
    # in other units the same
    far = jg.Mixture.from_components(jg.DiagonalGaussian.from_values([[-3e-9], [20e-9]], [[0.5e-9], [2e-9]]), weights)
    np.testing.assert_allclose(far.quantile(0.5)[0], 1e-9 * found[4], rtol=1e-5)
    # the derivative is that of the implicit function
    move = lambda m: jg.Mixture.from_components(jg.DiagonalGaussian.from_values(m, [[0.5], [2.0]]), weights)  # noqa: E731
    gradient = jax.grad(lambda m: move(m).quantile(0.1)[0])(jnp.array([[-3.0], [20.0]]))
    density = np.array([w * p.pdf(exact[1]) for w, p in zip(weights, parts, strict=True)])
    np.testing.assert_allclose(gradient[:, 0], density / density.sum(), atol=1e-4)


def test_a_variational_mixture_has_those_of_its_predictive_density():
    x = np.concatenate([np.linspace(-1, 1, 40), np.linspace(4, 9, 60)]).astype(np.float32)[:, None]
    leaf = functools.partial(jg.NormalWishart.init, df=2.0)
    mixture = jg.fit(jax.random.key(0), jg.VariationalMixture.init(jax.random.key(0), x, 2, leaf), x, steps=20).model
    c = jax.tree.map(lambda a: np.asarray(a, np.float64), {n: getattr(mixture.components, n) for n in (
        "mean", "scatter", "strength", "df")})  # fmt: skip
    scale = np.sqrt(c["scatter"][:, 0, 0] * (1 + 1 / c["strength"]) / c["df"])
    parts = [scipy.stats.t(*p) for p in zip(c["df"], c["mean"][:, 0], scale, strict=True)]
    weights = np.asarray(mixture.weights, np.float64)
    at = np.array([[-0.5], [2.0], [7.0]], np.float32)
    shares = [weights @ [p.cdf(v) for p in parts] for v in at[:, 0]]
    np.testing.assert_allclose(mixture.cdf(at)[:, 0], shares, atol=3e-6)
    expected = [mixed_quantile(weights, parts, np.float64(np.float32(level))) for level in (0.05, 0.6)]
    np.testing.assert_allclose(mixture.quantile(np.float32([0.05, 0.6]))[:, 0], expected, rtol=2e-5)


def test_mixtures_with_steps_and_with_points():
    counts = jg.Mixture.from_components(jg.Poisson.from_values([[2.0], [30.0]]), [0.5, 0.5])
    found = np.asarray(counts.quantile(np.array([0.01, 0.4, 0.51, 0.9], np.float32)))[:, 0]
    share = lambda k: 0.5 * (scipy.stats.poisson.cdf(k, 2) + scipy.stats.poisson.cdf(k, 30))  # noqa: E731
    np.testing.assert_array_equal(found, [np.argmax(share(np.arange(99)) >= u) for u in (0.01, 0.4, 0.51, 0.9)])
    inflated = jg.Mixture.from_components([jg.Delta.from_values([0.0]), jg.Gamma.from_values([2.0], [1.0])], [0.5, 0.5])
    np.testing.assert_allclose(inflated.quantile([0.2, 0.45, 0.75])[:, 0], [0, 0, 2 * np.log(2)], rtol=1e-5)
    assert float(inflated.quantile(0.3)[0]) == 0.0
    np.testing.assert_allclose(inflated.cdf([[-1.0], [0.0]]), [[0.0], [0.5]], atol=1e-6)
    at = jax.grad(lambda u: inflated.quantile(u)[0])
    assert float(at(0.3)) == 0.0
    np.testing.assert_allclose(at(0.75), 8, rtol=1e-4)  # of -2 log(1 - (u - .5) / .5)


def test_products_by_columns_and_flows_of_one_number():
    normals = jg.DiagonalGaussian.from_values([0.0, 5.0], [1.0, 2.0])
    table = jg.Product.from_blocks({1: jg.Poisson.from_values(4.0), (0, 2): normals})
    found = table.quantile(0.9)
    expected = [scipy.stats.norm.ppf(0.9), scipy.stats.poisson.ppf(0.9, 4), scipy.stats.norm.ppf(0.9, 5, 2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(table.cdf([0.0, 4.0, 5.0]), [0.5, scipy.stats.poisson.cdf(4, 4), 0.5], atol=1e-6)
    x = np.exp(np.linspace(-1, 1, 50, dtype=np.float32))[:, None]
    layer = functools.partial(jg.bijections.Autoregressive.init, features=(8,))
    flow = jg.Flow.init(jax.random.key(0), x, jg.StandardNormal((1,)), layer, layers=2, support=jg.bijections.positive)
    levels = np.array([0.01, 0.5, 0.9], np.float32)
    at = flow.quantile(levels)
    np.testing.assert_allclose(flow.cdf(at)[:, 0], levels, atol=1e-5)
    slope = jax.vmap(jax.grad(lambda x: flow.cdf(x)[0]))(at)
    np.testing.assert_allclose(slope[:, 0], np.exp(flow.log_prob(at)), rtol=1e-4)
    np.testing.assert_array_equal(flow.cdf(jnp.array([[-1.0]])), [[0.0]])
    falling = jg.Flow(jg.Exponential.from_values([1.0]), Mirror())
    np.testing.assert_allclose(falling.quantile(0.25), 2 * np.log(0.25), rtol=1e-5)
    np.testing.assert_allclose(falling.cdf(jnp.array([-2.0])), np.exp(-1), rtol=1e-5)


def test_levels_and_parts_without_are_refused():
    model = jg.Poisson.from_values([1.0])
    for level in (0.0, 1.0, -0.1, 50, [0.5, 2.0]):
        with pytest.raises(jg.DataError, match="above 0 and below 1"):
            model.quantile(level)
    assert np.isnan(jax.jit(model.quantile)(jnp.float32(2.0))).all()
    plane = jg.DistraxLeaf.from_values({"loc": jnp.zeros(2)}, lambda p: distrax.MultivariateNormalDiag(p["loc"]), (2,))
    with pytest.raises(jg.ModelError, match="of its coordinates"):
        plane.quantile(0.5)
    labels = jg.Mixture.from_components(jg.Categorical.from_values([[[0.5, 0.5]]]))
    with pytest.raises(jg.ModelError, match="quantile"):
        labels.quantile(0.5)
    with pytest.raises(jg.ModelError, match="of their own"):
        jg.recipes.realnvp(jax.random.key(0), np.random.default_rng(0).normal(size=(50, 2)))[0].cdf(jnp.zeros(2))


def test_reach_finds_the_very_step():
    found = reach(lambda x: jnp.floor(x * 1.25), jnp.array([0.5, 4.5, 1e3]), 0.0, 1.0)
    np.testing.assert_array_equal(found, np.array([0.8, 4.0, 800.0], np.float32))
    ends = reach(jnp.tanh, jnp.array([2.0, -2.0, jnp.nan, 0.5]), 3.0, 3.0)
    np.testing.assert_allclose(ends, [np.inf, -np.inf, np.nan, np.arctanh(0.5)], rtol=1e-6)
    tiny = reach(lambda x: x, jnp.float32(1e-30), -1.0, 1.0)
    np.testing.assert_allclose(tiny, 1e-30, rtol=1e-6)


def test_shares_at_the_edges_of_a_support():
    for a in (1e-3, 0.01, 3.0, 40.0):  # where the least float above zero has a share
        assert [float(part) for part in gamma_tails(a, jnp.float32(0))] == [0, 1]
        assert float(beta_cdf(a, 2.0, jnp.float32(0), jnp.float32(1))) == 0
        assert float(beta_cdf(2.0, a, jnp.float32(1), jnp.float32(0))) == 1
    assert 0 <= float(jg.Gamma.from_values(1.0, 0.01).quantile(0.1)) < 1e-30
    assert 0 <= float(jg.Beta.from_values(0.01, 1.0).quantile(0.1)) < 1e-30
    assert float(jg.Beta.from_values(1.0, 0.01).quantile(0.9)) == 1


def test_what_is_not_a_number_has_no_quantile():
    assert np.isnan(reach(lambda x: x * jnp.nan, jnp.array([0.5]), 0.0, 1.0)).all()
    assert np.isnan(jg.Poisson(jnp.array(jnp.nan)).quantile(0.5))


def test_a_mixtures_quantile_lies_between_its_components():
    many = jg.Mixture.from_components(jg.DiagonalGaussian.from_values(np.zeros((1000, 1)), np.ones((1000, 1))))
    levels = np.array([0.5, 0.99999, 0.999999], np.float32)
    # a float32 level so near one is 6e-8 from its neighbour, .012 of a standard deviation there
    np.testing.assert_allclose(many.quantile(levels)[:, 0], scipy.stats.norm.ppf(np.float64(levels)), atol=0.03)
