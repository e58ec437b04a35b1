"""Negative binomial, Gamma and von Mises leaves, and their special functions, against scipy and autodiff."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.models.densities.gamma import Gamma
from jaxgen.models.densities.negative_binomial import NegativeBinomial
from jaxgen.models.densities.von_mises import VonMises
from jaxgen.ops.special import digamma_gaps, excess, stirling_error

RNG = np.random.RandomState(0)
X = {
    NegativeBinomial: RNG.negative_binomial(2, 0.3, (60, 3)).astype(float),
    Gamma: RNG.gamma(3.0, 2.0, (60, 3)),
    VonMises: RNG.vonmises(2.5, 2.0, (60, 3)),
}
PRIOR = {NegativeBinomial: [3.0, 0.5], Gamma: [5.0, 4.0, 2.0], VonMises: [5.0, 1.0, 3.0]}
leaves = pytest.mark.parametrize("leaf", X, ids=lambda leaf: leaf.__name__)
step = jax.jit(lambda model, x, weight=None: latent.maximize(model, model.e_step(x, weight)[0]))


def fields(model):
    """The two trained arrays of a model, in float64."""
    return [np.asarray(getattr(model, f.name), np.float64) for f in dataclasses.fields(model)[:2]]


def peer(model, x):
    """`[N, *event]` in float64 from scipy, at the parameters that the model holds."""
    first, second = fields(model)
    x = np.asarray(x, np.float64)
    if isinstance(model, Gamma):
        return scipy.stats.gamma(np.exp(second), scale=np.exp(first - second)).logpdf(x)
    if isinstance(model, VonMises):
        return scipy.stats.vonmises(np.exp(second), loc=first).logpdf(x)
    m, r = np.exp(first), np.exp(second)
    return scipy.stats.nbinom(r, r / (r + m)).logpmf(x)


@functools.cache
def start(leaf, prior=False):
    """A fit to the data in float64."""
    prior = jnp.array(PRIOR[leaf]) if prior else None
    return jax.jit(lambda x: leaf.init(jax.random.key(0), x, prior=prior))(jnp.asarray(X[leaf]))


def maximum(model, x, weight, second):
    """The value of the second parameter, by search, at which the weighted likelihood is largest."""
    name = dataclasses.fields(model)[1].name

    def loss(value):
        return -(weight[:, None] * peer(dataclasses.replace(model, **{name: value}), x)).sum()

    found = scipy.optimize.minimize_scalar(loss, (second - 0.5, second + 0.5), tol=1e-10)
    return found.x


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_special_functions_equal_scipy(dtype, tolerance):
    z = np.geomspace(1e-4, 40, 500).astype(dtype)
    exact = z.astype(np.float64)
    with jax.enable_x64(dtype == np.float64):
        errors, gaps = stirling_error(jnp.asarray(z)), digamma_gaps(jnp.asarray(z))
        u = jnp.asarray(np.append(np.geomspace(1e-3, 10, 99), -np.geomspace(1e-3, 0.99, 99)).astype(dtype))
        far = excess(u, jnp.log1p(u))
    psi = scipy.special.polygamma
    log_gamma = (exact - 0.5) * np.log(exact) - exact + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(errors, scipy.special.gammaln(exact) - log_gamma, atol=tolerance)
    np.testing.assert_allclose(gaps.log, np.log(exact) - psi(0, exact), rtol=tolerance)
    np.testing.assert_allclose(gaps.first, psi(1, exact) - 1 / exact, rtol=tolerance)
    # in float64 the peer's own cancellation, 1e-16 40^2
    np.testing.assert_allclose(gaps.second, psi(2, exact) + 1 / exact**2, rtol=max(tolerance, 1e-11))
    wide = np.asarray(u, np.longdouble)
    np.testing.assert_allclose(far, wide - np.log1p(wide), rtol=tolerance)


@pytest.mark.parametrize("m", [0.01, 1.0, 300.0, 1e6])
@pytest.mark.parametrize("r", [0.01, 1.0, 300.0, 1e5])
def test_negative_binomial_keeps_its_digits(m, r):
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(r, m / r, 100)).astype(np.float32)
    model = NegativeBinomial.from_values(np.float32(m), np.float32(r))
    expected = peer(model, x)
    # the mean is rounded in its logarithm: (x - m) / spread times that, and spread / m; and the peer's own lgamma
    spread = 1 / np.sqrt(1 / m + 1 / r)
    tolerance = 2e-6 + 2e-7 * spread * max(1.0, abs(np.log(m)), abs(np.log(r)))
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("mean", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("shape", [0.05, 1.0, 100.0, 1e6])
def test_gamma_keeps_its_digits(mean, shape):
    x = np.maximum(np.random.default_rng(0).gamma(shape, mean / shape, 100), 1e-35).astype(np.float32)
    model = Gamma.from_values(np.float32(mean), np.float32(shape))
    # u - log(1 + u) of u = (x - mean) / mean, each rounded, times the shape
    tolerance = 2e-6 + 2e-7 * np.sqrt(shape)
    np.testing.assert_allclose(model.log_prob(x), peer(model, x), rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("k", [0.0, 1e-3, 1.0, 9.9, 10.1, 300.0, 1e4, 1e7])
def test_von_mises_keeps_its_digits_and_draws_what_it_scores(k):
    model = VonMises.from_values(np.float32(3.0), np.float32(k))
    x = model.sample(jax.random.key(0), (2000,))
    assert np.abs(x).max() <= np.pi + 1e-6
    np.testing.assert_allclose(model.log_prob(x), peer(model, x), atol=2e-6)
    turned = (np.asarray(x, np.float64) - 3.0 + np.pi) % (2 * np.pi) - np.pi
    held = np.exp(float(model.log_concentration))
    # the peer's distribution function is unusable near 0, where it is uniform to 3e-4
    own = scipy.stats.vonmises(held) if k > 0.01 else scipy.stats.uniform(-np.pi, 2 * np.pi)
    assert scipy.stats.kstest(turned, own.cdf).pvalue > 1e-4
    slope = jax.grad(lambda m: m.log_prob(jnp.float32(3.0)))(model).log_concentration
    # at the mode the score is k (1 - I1 / I0), one half for a narrow density
    score = held * (1 - scipy.special.i1e(held) / scipy.special.i0e(held))
    np.testing.assert_allclose(slope, score, rtol=3e-5)  # 1e-6 of the float32 Bessel functions, over 1 - I1 / I0


def test_draws_follow_the_density():
    for shape in (0.3, 2.0, 1e4):
        draws = Gamma.from_values(3.0, shape).sample(jax.random.key(1), (2000,))
        assert scipy.stats.kstest(draws, scipy.stats.gamma(shape, scale=3.0 / shape).cdf).pvalue > 1e-4
    model = NegativeBinomial.from_values(4.0, 1.5)
    draws = np.asarray(model.sample(jax.random.key(2), (4000,)))
    assert draws.dtype == np.int32
    expected = 4000 * np.exp(peer(model, np.arange(15)))
    seen = np.bincount(draws, minlength=15)
    rest = 4000 - expected.sum(), 4000 - seen[:15].sum()
    assert scipy.stats.chisquare([*seen[:15], rest[1]], [*expected, rest[0]]).pvalue > 1e-4


@leaves
def test_maximum_likelihood_is_the_peers(leaf):
    x = X[leaf].astype(np.float32)
    weight = RNG.rand(len(x)).astype(np.float32)
    model = leaf.init(jax.random.key(0), x)
    for _ in range(3):  # NegativeBinomial converges cubically, the others are there
        model, repairs = step(model, x, weight)
    assert int(repairs) == 0
    first, second = fields(model)
    if leaf is VonMises:
        mean = np.angle((weight[:, None] * np.exp(1j * X[leaf])).sum(0))
        np.testing.assert_allclose(np.exp(1j * first), np.exp(1j * mean), atol=1e-6)
    else:
        np.testing.assert_allclose(np.exp(first), np.average(X[leaf], axis=0, weights=weight), rtol=1e-6)
    for d in range(3):
        one = jax.tree.map(lambda leaf, d=d: leaf[d], model)
        # where a search in float64 stops: the root of its rounding, over the curvature
        np.testing.assert_allclose(maximum(one, x[:, d : d + 1], weight, second[d]), second[d], atol=2e-5)


@leaves
def test_gradient_vanishes_at_the_posterior_mode(leaf):
    with jax.enable_x64(True):
        x = jnp.asarray(X[leaf])
        model = start(leaf, prior=True)
        for _ in range(4):
            model, _ = step(model, x)
        score = jax.jit(jax.grad(lambda m: jnp.sum(m.log_prob(x)) + latent.log_prior(m)))(model)
        flat = start(leaf)
        assert latent.log_prior(flat) == 0
    for one, other in zip(fields(score), fields(model), strict=True):
        np.testing.assert_allclose(one, 0, atol=1e-7 * max(1, np.abs(other).max()))  # bisection to the dtype's digits
    assert np.abs(np.subtract(fields(flat)[1], fields(model)[1])).min() > 1e-3
    assert not any(jax.tree.leaves(jg.core.pytree.trainable(model).prior))
    assert latent.free_parameters(jax.eval_shape(lambda: model)) == 6


@leaves
@pytest.mark.parametrize("which", [0, 1])
def test_a_held_parameter_gives_the_constrained_maximum(leaf, which):
    name, other = (dataclasses.fields(leaf)[i].name for i in (which, 1 - which))
    with jax.enable_x64(True):
        x, model = jnp.asarray(X[leaf]), start(leaf, prior=True)
        held = jax.tree.map(lambda a: jnp.zeros(a.shape, bool), model)
        held = dataclasses.replace(held, **{name: jnp.ones(3, bool)})

        def objective(model):
            return jnp.sum(model.log_prob(x)) + latent.log_prior(model)

        def ascend(model, _):
            value, score = jax.value_and_grad(objective)(model)
            new, _ = latent.maximize(model, latent.freeze(model, model.e_step(x)[0], held))
            return dataclasses.replace(new, **{name: getattr(model, name)}), (value, score)

        many = jax.jit(lambda model: jax.lax.scan(ascend, model, None, 15)[1])
        for shift in (-0.4, 0.3):
            values, scores = many(dataclasses.replace(model, **{name: getattr(model, name) + shift}))
            assert np.diff(values).min() > -1e-10
            np.testing.assert_allclose(getattr(scores, other)[-1], 0, atol=1e-6)
            assert np.abs(getattr(scores, name)[-1]).min() > 1e-2


def test_a_held_direction_across_the_data_is_uniform():
    model = VonMises.from_values(np.zeros(1), np.ones(1))
    x = np.array([[3.0], [3.1], [-3.0]])
    held = VonMises(jnp.ones(1, bool), jnp.zeros(1, bool))
    new, _ = latent.maximize(model, latent.freeze(model, model.e_step(x)[0], held))
    assert float(new.location[0]) == 0 and float(new.concentration[0]) < 1e-3


@leaves
def test_statistics_move_to_another_model(leaf):
    first, second = (f.name for f in dataclasses.fields(leaf)[:2])
    with jax.enable_x64(True):
        x, old = jnp.asarray(X[leaf]), start(leaf)
        along = 0.0 if leaf is NegativeBinomial else 0.5
        new = dataclasses.replace(
            old, **{first: getattr(old, first) + 0.3, second: getattr(old, second) + along}
        )  # fmt: skip
        moved, own = latent.recentre(new, old, old.e_step(x)[0]), new.e_step(x)[0]
        for a, b in zip(moved, own, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9)
        if leaf is NegativeBinomial:  # at another r a Taylor polynomial: errors of the orders that it leaves out
            new = dataclasses.replace(new, log_dispersion=new.log_dispersion + 0.01)
            moved, own = latent.recentre(new, old, old.e_step(x)[0]), new.e_step(x)[0]
            for name, rtol in (("total", 1e-12), ("value", 1e-5), ("slope", 1e-3), ("bend", 0.1)):
                np.testing.assert_allclose(getattr(moved, name), getattr(own, name), rtol=rtol)


@leaves
def test_missing_entries_are_marginalised(leaf):
    x = X[leaf].astype(np.float32)
    holes = x.copy()
    holes[::3, 0], holes[1::4, 2], holes[5] = np.nan, np.nan, np.nan
    model = leaf.init(jax.random.key(0), x, missing=True)
    assert latent.accepts_missing(model)
    alone = [jax.tree.map(lambda a, d=d: a[d : d + 1], model) for d in range(3)]
    seen = ~np.isnan(holes)
    parts = np.stack([one.log_prob(x[:, d : d + 1]) for d, one in enumerate(alone)], axis=1)
    np.testing.assert_allclose(model.log_prob(holes), np.where(seen, parts, 0).sum(1), rtol=1e-5, atol=1e-6)
    assert model.log_prob(holes)[5] == 0
    weight = RNG.rand(len(x)).astype(np.float32)
    statistics = model.e_step(holes, weight)[0]
    fitted = leaf.init(jax.random.key(0), holes, missing=True)
    for d, one in enumerate(alone):
        rows = seen[:, d]
        expected = one.e_step(x[rows, d : d + 1], weight[rows])[0]
        for a, b in zip(statistics, expected, strict=True):
            np.testing.assert_allclose(a[d], b[0], rtol=2e-5, atol=1e-5)
        own = leaf.init(jax.random.key(0), x[rows, d : d + 1])
        for a, b in zip(fields(fitted), fields(own), strict=True):
            np.testing.assert_allclose(a[d], b[0], atol=2e-5)
    features = np.asarray(model.features(holes))
    assert np.array_equal(np.isnan(features[:, :3]), ~seen)
    assert np.isfinite(model.features(x)).all()
    gradient = jax.grad(lambda m: jnp.sum(m.log_prob(holes)))(model)
    assert all(np.isfinite(part).all() for part in fields(gradient))
    plain = dataclasses.replace(model, missing=False)
    assert np.array_equal(np.isnan(jax.jit(plain.log_prob)(holes)), ~seen.all(1))
    model.check_data(holes)
    with pytest.raises(jg.DataError, match="NaN"):
        plain.check_data(holes)


@leaves
def test_degenerate_data_stay_finite(leaf):
    key = jax.random.key(0)
    for values in ([[2.0]] * 4, [[1.0]], [[2.0], [3.0], [2.0], [3.0]]):
        x = np.array(values, np.float32)
        model = leaf.init(key, x)
        for _ in range(5):
            model, _ = step(model, x)
        assert all(np.isfinite(part).all() for part in fields(model)), values
        assert np.isfinite(model.log_prob(x)).all()
    kept, repairs = step(model, x, np.zeros(len(x), np.float32))
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, model))
    assert int(repairs) == 1
    empty = leaf.init(key, np.full((4, 1), np.nan, np.float32), missing=True)
    assert all(np.isfinite(part).all() for part in fields(empty))
    # a component that closes in on one event stops at the floor, and says so
    if leaf is not NegativeBinomial:
        wide = leaf.init(key, X[leaf].astype(np.float32))
        one, repairs = step(wide, X[leaf][:1].astype(np.float32))
        one, repairs = step(one, X[leaf][:1].astype(np.float32))
        assert int(repairs) == 1
        np.testing.assert_allclose(np.exp(-fields(one)[1]), wide.floor, rtol=1e-5)


def test_negative_binomial_rises_from_anywhere_and_stops_at_poisson():
    for m, r in ((0.3, 0.2), (5.0, 20.0), (1000.0, 3.0)):
        x = RNG.poisson(RNG.gamma(r, m / r, (200, 1)))
        for start in (1e-2, 1.0, 1e3):
            model = NegativeBinomial.from_values([1.0], [start])
            values = []
            for _ in range(12):
                model, _ = step(model, x.astype(np.float32))
                values.append(peer(model, x).mean())
            assert np.diff(values).min() > -1e-7  # nats an event: float32 parameters
    narrow = RNG.binomial(20, 0.5, (200, 1))  # less spread than Poisson's
    model = NegativeBinomial.init(jax.random.key(0), narrow)
    np.testing.assert_allclose(model.dispersion, 1e4 * model.mean, rtol=1e-4)
    np.testing.assert_allclose(model.log_prob(narrow), jg.Poisson.from_values(model.mean).log_prob(narrow), atol=2e-3)
    nothing = NegativeBinomial.init(jax.random.key(0), np.zeros((5, 2), int))
    assert np.isfinite(nothing.log_prob(np.array([[0, 0], [0, 1]]))).all()
    np.testing.assert_allclose(nothing.log_prob(np.zeros(2)), 0, atol=1e-6)


@leaves
def test_mixtures_rise_and_tell_groups_apart(leaf):
    key, low, high = jax.random.key(0), X[leaf], X[leaf]
    low, high = (low, high + 20) if leaf is NegativeBinomial else (low, 10 * high) if leaf is Gamma else (low, high + 3)
    x = np.concatenate([low, high]).astype(np.float32)
    fitted = jg.fit(key, jg.Mixture.init(key, x, 2, leaf.init), x, jg.EM(), steps=25, tolerance=0.0)
    values = fitted.history["log_likelihood"]
    assert np.diff(values).min() > -2e-6  # float32 rounding of values near 10
    label = np.asarray(fitted.model.predict(x))
    assert max(np.mean(label[:60] == k) + np.mean(label[60:] != k) for k in (0, 1)) > 1.8


def test_outside_the_support_is_impossible():
    nan, inf = float("nan"), float("inf")
    for model, values, inside in (
        (NegativeBinomial.from_values(2.0, 1.0), [0, 7, 0.5, -1, inf, -inf, nan], 2),
        (Gamma.from_values(2.0, 1.0), [1e-30, 7, 0, -1, inf, -inf, nan], 2),
        (VonMises.from_values(2.0, 1.0), [-100, 7, inf, -inf, nan], 2),
    ):
        log_prob = jax.jit(model.log_prob)(jnp.array(values))
        assert np.isfinite(log_prob[:inside]).all()
        assert np.isneginf(log_prob[inside:-1]).all() and np.isnan(log_prob[-1])
        statistics = model.e_step(jnp.array(values[:-1]))[0]
        assert all(np.isfinite(part).all() for part in statistics) and statistics.weight == inside


def test_nonsense_is_refused():
    key = jax.random.key(0)
    for init, bad in (
        (NegativeBinomial.init, [[-1]]), (NegativeBinomial.init, [[0.5]]), (Gamma.init, [[0.0]]),
        (Gamma.init, [[-1.0]]), (Gamma.init, [[float("nan")]]), (VonMises.init, [[float("inf")]]),
    ):  # fmt: skip
        with pytest.raises(jg.DataError, match="expected"):
            init(key, bad)
    for build in (
        lambda: NegativeBinomial.from_values([1.0], [0.0]), lambda: Gamma.from_values([-1.0], [1.0]),
        lambda: VonMises.from_values([0.0], [-1.0]),
    ):  # fmt: skip
        with pytest.raises(jg.ModelError, match="expected"):
            build()
    with pytest.raises(jg.DataError, match="turns"):
        VonMises.from_values([0.0], [1.0]).check_data([[1e6]])


@leaves
def test_dtype_and_batches_of_models(leaf):
    with jax.enable_x64(True):
        for dtype, expected in ((np.uint8, np.float64), (np.float64, np.float64), (np.float32, np.float32)):
            x = (np.abs(X[leaf]) + 1).astype(dtype)
            statistics = jax.eval_shape(lambda x: leaf.init(jax.random.key(0), x).e_step(x), x)
            assert {part.dtype for part in jax.tree.leaves(statistics)} == {np.dtype(expected)}
    build = leaf.from_values if leaf is VonMises else leaf.from_values
    models = build(np.full((4, 3), 2.0, np.float32), np.full((4, 3), 3.0, np.float32))
    x = X[leaf].astype(np.float32)
    assert algebra.component_log_prob(models, x).shape == (4, 60)
    np.testing.assert_allclose(algebra.component_log_prob(models, x)[2], algebra.take(models, 2).log_prob(x), rtol=1e-6)
