"""Densities of hidden variables whose context is all of their parameters, against scipy, closed forms and integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from case import grid, moved

import jaxgen as jg
from jaxgen.ops import spheres


def raw_scale(scale):
    """The network's output for a scale, `log s = 6 tanh(r / 6)`."""
    return 6 * np.arctanh(np.log(scale) / 6)


def context_of(mean, covariance):
    """The context of a `FullNormal` with these."""
    factor = np.linalg.cholesky(covariance)
    np.fill_diagonal(factor, raw_scale(np.diagonal(factor)))
    return jnp.asarray(np.concatenate([np.asarray(mean, float)[None], factor]), jnp.float32)


A_GAUSSIAN = jg.Gaussian.from_values([1.0, -1.0], [[1.0, 0.2], [0.2, 2.0]])
A = context_of([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]])


def test_full_normal_is_scipys():
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    context = context_of([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]])
    expected = scipy.stats.multivariate_normal([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]]).logpdf(x)
    # float32: a few roundings of numbers up to 20
    np.testing.assert_allclose(jg.FullNormal((2,)).log_prob(x, context=context), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("context", "prior", "expected"),
    [
        (A, A_GAUSSIAN, 1.148501077347),
        (context_of([1.0, -0.5], np.diag([0.25, 4.0])), jg.StandardNormal((2,)), 1.75),
        # 1 and 0 standard deviations apart, of scales 1/2 and 2: the same in units of the prior
        (context_of([3.0, 0.0], np.diag([1.0, 4.0])), jg.DiagonalGaussian.from_values([1.0, 1.0], [2.0, 1.0]), None),
    ],
)
def test_divergence_of_normals_is_the_closed_form(context, prior, expected):
    q = jg.FullNormal((2,))
    assert q.has_divergence(prior)
    if expected is None:
        # of independent coordinates: (s^2 + m^2 - 1) / 2 - log s, in units of the prior
        s, m = np.array([0.5, 2.0]), np.array([1.0, -1.0])
        expected = np.sum((s**2 + m**2 - 1) / 2 - np.log(s))
    # float32 of a handful of numbers near 1
    assert float(q.divergence(prior, context)) == pytest.approx(expected, abs=2e-6)
    assert not q.has_divergence(jg.Mixture.from_components([A_GAUSSIAN, A_GAUSSIAN]))


# ---- directions


@pytest.mark.parametrize("size", [2, 3, 10])
@pytest.mark.parametrize("concentration", [0.1, 5.0, 300.0])
def test_von_mises_fisher_is_scipys(size, concentration):
    """Density and entropy, of points drawn by scipy near the mean direction and away from it."""
    mean = np.random.default_rng(1).normal(size=size)
    mean /= np.linalg.norm(mean)
    peer = scipy.stats.vonmises_fisher(mean, concentration)
    x = np.concatenate([peer.rvs(10, random_state=2), [-mean, mean]])
    q = jg.VonMisesFisher((size,))
    raw = raw_scale(concentration / (size - 1))
    with jax.enable_x64(True):
        context = jnp.asarray([*(3 * mean), raw])
        np.testing.assert_allclose(q.log_prob(x, context=context), peer.logpdf(x), rtol=1e-10, atol=1e-10)
        found = q.divergence(jg.UniformSphere((size,)), context)
        # from the uniform density the divergence is what the entropy lacks
        np.testing.assert_allclose(found, spheres.log_area(size) - peer.entropy(), atol=1e-9)
    single = q.log_prob(np.float32(x), context=np.float32(context))
    # a rounding of a direction turns it by 1e-7, at which a log-density of slope k changes by up to 3e-5
    np.testing.assert_allclose(single, peer.logpdf(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("size", "concentration"), [(2, 0.5), (2, 200.0), (3, 4.0), (25, 10.0), (25, 9000.0)])
def test_draws_along_the_mean_direction(size, concentration):
    """The distribution of draws, and their derivative: it keeps the distribution function where it is."""

    def density(t, k):
        return np.exp(-2 * k * scipy.special.expit(-2 * t) - (size - 1) * np.log(np.cosh(t)))

    peak = np.arcsinh(2 * concentration / (size - 1)) / 2
    low, high = peak - 30 / np.sqrt(size - 1), peak + 30 / np.sqrt(size - 1)
    ends = np.linspace(low, high, 20_001)

    def distribution(k):
        mass = scipy.integrate.cumulative_simpson(density(ends, k), x=ends, initial=0)
        return mass / mass[-1]

    draw = functools.partial(spheres.draw_along, size=size)
    with jax.enable_x64(True):
        k = jnp.asarray(concentration)
        keys = jax.random.split(jax.random.key(3), 4000)
        t, slope = jax.jit(jax.vmap(lambda key: jax.jvp(lambda k: draw(key, k), (k,), (jnp.ones(()),))))(keys)
    t, slope = np.asarray(t), np.asarray(slope)
    uniform = np.interp(t, ends, distribution(concentration))
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-4
    step = 1e-4 * concentration
    moved_by = (distribution(concentration + step) - distribution(concentration - step)) / (2 * step)
    mass = scipy.integrate.simpson(density(ends, concentration), x=ends)
    few = np.abs(uniform - 0.5) < 0.4999  # where the differences still have their digits
    expected = -np.interp(t, ends, moved_by) / (density(t, concentration) / mass)
    np.testing.assert_allclose(slope[few], expected[few], rtol=2e-4, atol=1e-4 * np.abs(expected[few]).max())


def test_draws_of_directions_are_reparametrised():
    """`E (a . z)^2` in three dimensions is a closed form in A(k) = coth k - 1 / k, and so are its derivatives."""
    q, a = jg.VonMisesFisher((3,)), jnp.array([0.6, 1.0, 0.5])
    context = jnp.array([1.0, 0.5, -0.2, 0.7])

    def exact(context):
        k, along = q.concentration(context), jnp.sum(a * q.center(context))
        ratio = (1 / jnp.tanh(k) - 1 / k) / k
        return ratio * jnp.sum(a * a) + (1 - 3 * ratio) * along**2

    def drawn(key, context):
        return jnp.sum(a * q.sample_and_log_prob(key, context=context)[0]) ** 2

    keys = jax.random.split(jax.random.key(4), 8000)
    values, slopes = (
        np.asarray(f(keys, context)) for f in (jax.jit(jax.vmap(drawn, (0, None))),
                                               jax.jit(jax.vmap(jax.grad(drawn, 1), (0, None))))
    )  # fmt: skip
    error = np.append(values.std(), slopes.std(axis=0)) / np.sqrt(len(keys))
    found, expected = (np.append(*pair) for pair in ((values.mean(), slopes.mean(0)),
                                                     (exact(context), jax.grad(exact)(context))))  # fmt: skip
    # five numbers within four and a half standard errors
    np.testing.assert_array_less(np.abs(found - expected), 4.5 * error)


def test_a_vector_off_the_sphere_has_no_density():
    x = jnp.array([[1.0, 0.0], [1.01, 0.0], [jnp.inf, 0.0]])
    assert jg.UniformSphere((2,)).log_prob(x).tolist() == [pytest.approx(-np.log(2 * np.pi)), -np.inf, -np.inf]
    slope = jax.grad(lambda c: jg.VonMisesFisher((2,)).log_prob(x[0], context=c))(jnp.zeros(3))
    assert jnp.isfinite(slope).all()  # where a network says nothing


# ---- bits and labels


def test_relaxed_bits_are_logistic():
    q, x, a = jg.RelaxedBernoulli((2,), 0.4), np.linspace(-80, 80, 40).reshape(-1, 2), np.array([0.7, -3.0])
    expected = scipy.stats.logistic(a / 0.4, 1 / 0.4).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(q.log_prob(np.float32(x), context=jnp.float32(a)), expected, rtol=1e-5)
    z = q.sample(jax.random.key(0), (4000,), context=jnp.float32(a))
    # five standard errors of a share
    np.testing.assert_allclose((z > 0).mean(axis=0), scipy.special.expit(a), atol=0.04)


def test_two_relaxed_labels_are_a_relaxed_bit():
    """Their log-odds are logistic, and `d(log-odds)` is `dy_1 / (y_1 y_2)`."""
    a, odds = np.array([0.7, -0.5]), np.linspace(-9, 9, 30)
    z = -np.logaddexp(0, -np.stack([odds, -odds], axis=1))
    expected = scipy.stats.logistic(1.2 / 0.6, 1 / 0.6).logpdf(odds)
    found = jg.RelaxedCategorical((2,), 0.6).log_prob(np.float32(z), context=jnp.float32(a))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_relaxed_labels_have_mass_one():
    """In the log-odds against the last label `du_1 du_2` is `dy_1 dy_2 / (y_1 y_2 y_3)`."""
    odds, volume = grid(-40.0, 40.0, 600)
    z = jax.nn.log_softmax(jnp.pad(jnp.float32(odds), ((0, 0), (0, 1))))
    q, a = jg.RelaxedCategorical((3,), 0.5), jnp.array([0.3, -0.5, 1.0])
    mass = np.exp(np.asarray(q.log_prob(z, context=a), np.float64)) * volume
    assert mass.sum() == pytest.approx(1, abs=1e-4)  # the midpoint rule on cells of .13
    of_last = mass[np.asarray(z).argmax(axis=1) == 2].sum()
    # at the borders of the cells lie 2 % of the mass
    assert of_last == pytest.approx(float(jax.nn.softmax(a)[2]), abs=0.02)


@pytest.mark.parametrize(
    "q", [jg.FullNormal((2,)), jg.VonMisesFisher((3,)), jg.RelaxedBernoulli((3,)), jg.RelaxedCategorical((2, 3))],
    ids=lambda q: type(q).__name__,
)  # fmt: skip
def test_draws_come_with_their_density_and_gradients(q):
    context = jax.random.normal(jax.random.key(5), q.context_shape)
    z, log_q = q.sample_and_log_prob(jax.random.key(6), (50,), context=context)
    np.testing.assert_array_equal(z, q.sample(jax.random.key(6), (50,), context=context))
    # of directions and of soft labels far in a corner a rounding of z is one of its density, times the slope
    np.testing.assert_allclose(log_q, q.log_prob(z, context=context), rtol=2e-5, atol=2e-4)
    slope = jax.grad(lambda c: q.sample_and_log_prob(jax.random.key(7), context=c)[0].reshape(-1)[0])(context)
    assert jnp.isfinite(slope).all()
    assert jnp.abs(slope).max() > 1e-3


def test_enumerated_are_all_values():
    bits, labels = jg.EnumeratedBernoulli((2, 2)), jg.EnumeratedCategorical((2, 3))
    assert bits.outcomes().shape == (16, 2, 2)
    assert labels.outcomes().shape == (9, 2, 3)
    for q in (bits, labels):
        context = jax.random.normal(jax.random.key(0), q.context_shape)
        mass = jnp.exp(q.log_prob(q.outcomes(), context=context))
        assert float(mass.sum()) == pytest.approx(1, abs=1e-5)
        best = q.outcomes()[mass.argmax()]
        np.testing.assert_array_equal(best, q.center(context))
    assert jg.EnumeratedBernoulli((12,)).outcomes().shape == (4096, 12)
    assert float(labels.log_prob(jnp.ones((2, 3)), context=jnp.zeros((2, 3)))) == -np.inf


def test_divergence_of_labels_is_scipys():
    q, context = jg.EnumeratedCategorical((3,)), jnp.array([0.5, -1.0, 0.2])
    prior = jg.Multinomial.from_values([0.2, 0.3, 0.5], 1)
    expected = scipy.stats.entropy(scipy.special.softmax(np.asarray(context)), [0.2, 0.3, 0.5])
    assert float(q.divergence(prior, context)) == pytest.approx(expected, abs=1e-6)


# ---- flows


@pytest.mark.parametrize("make", [jg.posteriors.planar, jg.posteriors.iaf, jg.posteriors.spline])
def test_flows_draw_with_their_density(make):
    options = {} if make is jg.posteriors.planar else {"hidden": (8,)}
    q = make(jax.random.key(0), 3, 4, layers=2, **options)
    x, features = jax.random.normal(jax.random.key(1), (20, 3)), jax.random.normal(jax.random.key(2), (20, 4))
    # the start is the prior, whatever the features are
    np.testing.assert_allclose(q.log_prob(x, context=features), jg.StandardNormal((3,)).log_prob(x), atol=1e-5)
    q = moved(jax.random.key(3), q, 0.2)
    z, log_q = q.sample_and_log_prob(jax.random.key(4), (20,), context=features)
    # there and back through a few layers
    np.testing.assert_allclose(log_q, q.log_prob(z, context=features), atol=1e-4)
    slope = jax.grad(lambda c: q.sample_and_log_prob(jax.random.key(5), context=c)[1])(features[0])
    assert jnp.isfinite(slope).all()
    assert jnp.abs(slope).max() > 1e-3
