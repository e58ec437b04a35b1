"""Likelihoods of decoders against scipy in float64, quadrature and sums over all levels, in float32 and float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.ops import likelihoods

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
RAW = RNG.normal(size=(2, 6)) * 1.5
SHARES = np.array([0.001, 0.2, 0.5, 0.7, 0.95, 0.999])
COUNTS = np.array([0.0, 1.0, 3.0, 17.0, 400.0, 90_000.0])
PIXELS = np.array([0.0, 1.0, 3.0, 5.0, 6.0, 7.0])
LEVELS = 8


def sigmoid_mass(x, mean, scale, levels):
    """The mass of levels as a difference of distribution functions, in float64."""
    edge = (2 * np.arange(levels - 1) + 1) / (levels - 1) - 1
    cdf = scipy.special.expit((edge - mean[..., None]) / scale[..., None])
    cdf = np.concatenate([np.zeros((*mean.shape, 1)), cdf, np.ones((*mean.shape, 1))], axis=-1)
    return np.take_along_axis(np.diff(cdf), x[..., None].astype(int), axis=-1)[..., 0]


def logistic(x, raw):
    return np.log(sigmoid_mass(x, raw[0], np.exp(6 * np.tanh(raw[1] / 6)), LEVELS))


def logistic_mixture(x, raw):
    weight = scipy.special.softmax(raw[:2], axis=0)
    scale = np.exp(6 * np.tanh(raw[4:] / 6))
    return np.log(sum(weight[k] * sigmoid_mass(x, raw[2 + k], scale[k], LEVELS) for k in range(2)))


def of_a_power(x, raw):
    rate = raw[0]
    return rate * x - np.log(np.expm1(rate) / rate)


def beta(x, raw):
    return scipy.stats.beta.logpdf(x, *np.exp(6 * np.tanh(raw / 6)))


def negative_binomial(x, raw):
    m, r = np.exp(16 * np.tanh(raw[0] / 16)), np.exp(10 * np.tanh(raw[1] / 10))
    return scipy.stats.nbinom.logpmf(x, r, r / (r + m))


COUNTED = np.stack([np.log(COUNTS + 1) + 0.1 * RAW[0], RAW[1]])
MANY = RNG.normal(size=(LEVELS, 6))
#: likelihood, data, parameters, log-density of each entry
CASES = {
    "bernoulli": (likelihoods.bernoulli, PIXELS > 3, RAW[:1], lambda x, raw: scipy.stats.bernoulli.logpmf(
        x, scipy.special.expit(raw[0]))),
    "continuous bernoulli": (likelihoods.continuous_bernoulli, SHARES, RAW[:1], of_a_power),
    "beta": (likelihoods.beta, SHARES, RAW, beta),
    "gaussian": (likelihoods.gaussian, RAW[1], RAW, lambda x, raw: scipy.stats.norm.logpdf(
        x, raw[0], np.exp(6 * np.tanh(raw[1] / 6)))),
    "gaussian of scale": (likelihoods.GaussianOfScale(0.3), RAW[1], RAW[:1], lambda x, raw: scipy.stats.norm.logpdf(
        x, raw[0], 0.3)),
    "gaussian of one scale": (likelihoods.gaussian_of_one_scale, RAW[1], RAW[:1], lambda x, raw: (
        scipy.stats.norm.logpdf(x, raw[0], np.exp(6 * np.tanh(0.5 / 6))))),
    "poisson": (likelihoods.poisson, COUNTS, COUNTED[:1], lambda x, raw: scipy.stats.poisson.logpmf(
        x, np.exp(16 * np.tanh(raw[0] / 16)))),
    "negative binomial": (likelihoods.negative_binomial, COUNTS, COUNTED, negative_binomial),
    "categorical": (likelihoods.CategoricalLevels(LEVELS), PIXELS, MANY, lambda x, raw: (
        scipy.special.log_softmax(raw, axis=0)[x.astype(int), np.arange(6)])),
    "logistic": (likelihoods.LogisticLevels(LEVELS), PIXELS, RAW, logistic),
    "logistic mixture": (likelihoods.LogisticMixtureLevels(2, LEVELS), PIXELS, MANY[:6], logistic_mixture),
}  # fmt: skip


def observed(likelihood, raw, dtype=jnp.float32):
    shared = {name: jnp.asarray(0.5, dtype) for name in likelihoods.shared_names(likelihood)}
    return likelihoods.observe(likelihood, jnp.asarray(raw, dtype), shared)


@pytest.mark.parametrize("name", CASES)
def test_entries_equal_scipy(name):
    likelihood, x, raw, reference = CASES[name]
    expected = reference(x, raw)
    assert likelihoods.parameter_count(likelihood) == len(raw)
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            distribution = observed(likelihood, raw, dtype)
            entries, total = distribution.entries(jnp.asarray(x, dtype)), distribution.log_prob(jnp.asarray(x, dtype))
            assert entries.dtype == dtype
            np.testing.assert_allclose(total, entries.sum(), rtol=1e-6)
            # float32: rounded parameters, of counts up to 90,000 with a deviance of tens
            exact = dtype == jnp.float64
            np.testing.assert_allclose(entries, expected, rtol=1e-9 if exact else 2e-5, atol=1e-9 if exact else 2e-5)


@pytest.mark.parametrize("name", CASES)
def test_mean_is_that_of_draws(name):
    likelihood, _, raw, _ = CASES[name]
    distribution = observed(likelihood, raw if "poi" not in name and "nega" not in name else raw * 0.2)
    draws = jax.vmap(lambda key: distribution.sample(seed=key))(jax.random.split(KEY, 8000))
    assert draws.shape == (8000, 6) and draws.dtype == jnp.float32
    # five standard errors of 8000 draws
    assert (np.abs(draws.mean(0) - distribution.mean()) < 5 * draws.std(0) / np.sqrt(8000) + 1e-6).all()
    likelihoods.check_support(likelihood, (6,), draws, "test")


PEERS = [name for name in CASES if name.split()[0] in ("bernoulli", "beta", "gaussian", "categorical")]


@pytest.mark.parametrize("name", PEERS)
def test_distribution_is_that_of_distrax(name):
    likelihood, x, raw, _ = CASES[name]
    distribution = observed(likelihood, raw)
    x = jnp.asarray(x, jnp.int32 if name == "categorical" else jnp.float32)
    peer = distribution.distribution()
    assert peer.event_shape == (6,)
    # the rounding of six terms of size one and more
    np.testing.assert_allclose(distribution.log_prob(x), peer.log_prob(x), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_values_and_gradients_are_finite_for_any_output(name, size):
    likelihood, x, raw, _ = CASES[name]
    for sign in (1, -1):
        outputs = size * np.where(np.arange(raw.size).reshape(raw.shape) % 2 == 0, 1, sign)
        score = lambda raw: observed(likelihood, raw).log_prob(jnp.asarray(x, jnp.float32))  # noqa: B023, E731
        value, slope = jax.value_and_grad(score)(jnp.asarray(outputs, jnp.float32))
        assert jnp.isfinite(value) and jnp.isfinite(slope).all(), outputs


def test_bits_of_sure_logits():
    """A wrong bit costs its logit, a right one nothing, and the slope is the error."""
    score = jax.value_and_grad(lambda logits, x: likelihoods.bernoulli(logits).log_prob(x))
    for logit, x, value, slope in ((1e4, 1.0, 0.0, 0.0), (1e4, 0.0, -1e4, -1.0), (-1e4, 1.0, -1e4, 1.0)):
        found = score(jnp.array([logit]), jnp.array([x]))
        assert (float(found[0]), float(found[1][0])) == (value, slope)


def test_rounded_logistic_at_known_points():
    for dtype, tolerance in ((jnp.float32, 2e-6), (jnp.float64, 1e-10)):
        with jax.enable_x64(dtype == jnp.float64):
            pixels = likelihoods.Logistics(jnp.zeros((1, 1), dtype), jnp.full((1, 1), -2.0, dtype), 256)
            masses = jax.vmap(pixels.entries)(jnp.arange(256, dtype=dtype)[:, None])[:, 0]
            np.testing.assert_allclose(jnp.exp(masses).sum(), 1.0, rtol=tolerance)
            np.testing.assert_allclose(masses[128], -4.2346905538, rtol=tolerance)
            np.testing.assert_allclose(masses[jnp.array([0, 255])], -7.36071535, rtol=max(tolerance, 1e-9))


@pytest.mark.parametrize("name", ["categorical", "logistic", "logistic mixture"])
def test_levels_sum_to_one_and_nothing_else_has_mass(name):
    likelihood, _, raw, _ = CASES[name]
    distribution = observed(likelihood, raw * 4)
    masses = jax.vmap(distribution.entries)(jnp.broadcast_to(jnp.arange(LEVELS)[:, None], (LEVELS, 6)))
    np.testing.assert_allclose(jnp.exp(masses).sum(0), 1.0, rtol=1e-5)
    for other in (-1.0, 0.5, LEVELS):
        assert (distribution.entries(jnp.full(6, other)) == -jnp.inf).all()


def test_mixture_of_one_is_one():
    raw = jnp.asarray(RAW, jnp.float32)
    one = likelihoods.LogisticLevels(LEVELS)(*raw)
    same = likelihoods.LogisticMixtureLevels(1, LEVELS)(jnp.concatenate([raw[:1] + 7, raw]))
    np.testing.assert_allclose(same.entries(jnp.asarray(PIXELS)), one.entries(jnp.asarray(PIXELS)), rtol=1e-6)


@pytest.mark.parametrize("logit", [0.0, 1e-4, 0.49, 0.51, -3.0, 40.0])
def test_continuous_bits_are_a_density(logit):
    """Integrals of `exp(l x)` by quadrature in float64; derivatives of the normaliser are its mean and variance."""
    moment = [scipy.integrate.quad(lambda x, k: x**k * np.exp(logit * (x - (logit > 0))), 0, 1, args=(k,),
                                   epsabs=1e-14, epsrel=1e-13)[0] for k in range(3)]  # fmt: skip
    mean, variance = moment[1] / moment[0], moment[2] / moment[0] - (moment[1] / moment[0]) ** 2
    for dtype, tolerance in ((jnp.float32, 3e-6), (jnp.float64, 1e-11)):
        with jax.enable_x64(dtype == jnp.float64):
            bits = lambda logits: likelihoods.continuous_bernoulli(logits).log_prob(jnp.full(1, 0.3, dtype))  # noqa: B023, E731
            at = jnp.full(1, logit, dtype)
            expected = 0.3 * logit - (logit if logit > 0 else 0.0) - np.log(moment[0])
            np.testing.assert_allclose(bits(at), expected, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(likelihoods.continuous_bernoulli(at).mean(), mean, rtol=tolerance)
            np.testing.assert_allclose(jax.grad(bits)(at), 0.3 - mean, rtol=tolerance, atol=tolerance)
            curvature = jax.hessian(bits)(at)[0, 0]
            np.testing.assert_allclose(curvature, -variance, rtol=100 * tolerance)


def plain(mean, raw):
    """A distribution of one event that scores it as a whole."""

    class Whole:
        def log_prob(self, x):
            return jnp.sum(-jnp.abs(x - mean) - raw)

    return Whole()


@pytest.mark.parametrize("name", CASES)
def test_entries_that_were_not_seen_count_for_nothing(name):
    likelihood, x, raw, reference = CASES[name]
    holed = jnp.asarray(np.where(np.arange(6) == 2, np.nan, x), jnp.float32)
    expected = np.where(np.arange(6) == 2, 0.0, reference(x, raw))
    score = lambda raw: likelihoods.seen_entries(observed(likelihood, raw), holed)  # noqa: E731
    raw = jnp.asarray(raw, jnp.float32)
    np.testing.assert_allclose(score(raw), expected, rtol=2e-5, atol=2e-5)
    slope = jax.grad(lambda raw: score(raw).sum())(raw)
    assert jnp.isfinite(slope).all() and (slope[:, 2] == 0).all()


def shared(mean, *, raw, tilt):
    return likelihoods.gaussian(mean + tilt, raw)


def test_shared_numbers_are_asked_for_by_name():
    assert likelihoods.shared_names(shared) == ("raw", "tilt") and likelihoods.parameter_count(shared) == 1
    assert likelihoods.shared_names(functools.partial(shared, tilt=1.0)) == ("raw",)
    given = {"raw": jnp.float32(0.2), "tilt": jnp.float32(1.0)}
    x, mean = jnp.ones(3), jnp.zeros((1, 3))
    found = likelihoods.observe(shared, mean, given).log_prob(x)
    assert float(found) == pytest.approx(float(likelihoods.gaussian(jnp.ones(3), jnp.float32(0.2)).log_prob(x)))
    pair = likelihoods.observe(likelihoods.LogisticMixtureLevels(1, LEVELS), (x, x, x)).log_prob(x)
    assert float(pair) == float(likelihoods.LogisticMixtureLevels(1, LEVELS)(jnp.ones((3, 3))).log_prob(x))
    assert likelihoods.support(plain, (3,)) is None and likelihoods.support(shared, (3,)) == likelihoods.REAL


BITS = np.eye(4)


@pytest.mark.parametrize(
    ("likelihood", "x", "says", "fix"),
    [
        (likelihoods.bernoulli, 255 * BITS, "numbers from 0 to 1", "np.divide(x, 255.0)"),
        (likelihoods.bernoulli, BITS - 0.5, "numbers from 0 to 1", "jaxgen.likelihoods.gaussian"),
        (likelihoods.beta, BITS, "the ends left out", "inwards"),
        (likelihoods.poisson, BITS + 0.5, "whole numbers from 0", "np.rint(x)"),
        (likelihoods.poisson, BITS - 1, "whole numbers from 0", "jaxgen.likelihoods.gaussian"),
        (likelihoods.LogisticLevels(256), BITS / 2, "whole numbers from 0 to 255", "np.rint(np.multiply(x, 255))"),
        (likelihoods.CategoricalLevels(16), 16 * BITS, "whole numbers from 0 to 15", "a likelihood of 17 levels"),
    ],
)
def test_data_outside_of_the_support_are_refused(likelihood, x, says, fix):
    with pytest.raises(jg.DataError, match=says) as error:
        likelihoods.check_support(likelihood, (4,), x, "test(x)")
    assert fix in error.value.fix
    if error.value.fix.startswith("np."):
        likelihoods.check_support(likelihood, (4,), eval(fix, {"np": np, "x": x}), "test(x)")
    likelihoods.check_support(likelihood, (4,), np.full((2, 4), np.nan), "test(x)")
    jax.jit(lambda x: likelihoods.check_support(likelihood, (4,), x, "test(x)"))(x)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: likelihoods.parameter_count("bernoulli"), "no likelihood"),
        (lambda: likelihoods.observe(likelihoods.gaussian, jnp.zeros((3, 2))), "does not fit"),
        (lambda: likelihoods.observe(shared, jnp.zeros((1, 2)), {"raw": 0.0}), "shared numbers"),
        (lambda: likelihoods.observe(likelihoods.CategoricalLevels(8), jnp.zeros((7, 2))), "does not fit"),
        (lambda: likelihoods.seen_entries(plain(0.0, 0.0), jnp.zeros(3)), "by themselves"),
    ],
)
def test_what_does_not_fit_is_refused(call, match):
    with pytest.raises(jg.ModelError, match=match):
        call()


@pytest.mark.parametrize("name", ["gaussian of one scale", "logistic mixture", "negative binomial"])
def test_a_vae_takes_them(name, tmp_path):
    likelihood, x, _, _ = CASES[name]
    x = jnp.asarray(np.stack([x, x[::-1]]), jnp.float32)
    vae = jg.VAE.init(KEY, x, jg.StandardNormal((2,)), hidden=(4,), likelihood=likelihood)
    slope = jax.grad(lambda vae: vae.elbo(KEY, x).mean(), allow_int=True)(vae)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((slope.encoder, slope.decoder, slope.shared)))
    likelihoods.check_support(likelihood, (6,), vae.sample(KEY, (20,)), "test")
    jg.save(vae, tmp_path / "vae")
    loaded = jg.load(tmp_path / "vae")
    assert loaded.likelihood == likelihood
    np.testing.assert_array_equal(loaded.elbo(KEY, x), vae.elbo(KEY, x))
