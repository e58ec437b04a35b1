"""Low-rank Gaussians against full ones, scipy and scikit-learn's factor analysis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.decomposition import PCA, FactorAnalysis

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.frozen import frozen_leaves, keep_frozen
from jaxgen.models.densities.low_rank import LowRankGaussian

slope = jax.jit(jax.grad(lambda model, x: jnp.mean(model.log_prob(x))))


def data(n=300, d=5, q=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, q)) @ rng.normal(size=(q, d)) + 0.5 * rng.normal(size=(n, d)) + rng.normal(size=d)


def example(d=4, q=2, seed=1, **options):
    rng = np.random.default_rng(seed)
    return LowRankGaussian.from_values(
        rng.normal(size=d), rng.normal(size=(d, q)), rng.uniform(0.3, 1.0, size=d), **options
    )


def test_density_equals_scipy_also_where_entries_are_missing():
    with jax.enable_x64(True):
        model, x = example(missing=True), np.random.default_rng(2).normal(size=(20, 4))
        mean, covariance = np.asarray(model.mean), np.asarray(model.covariance)
        expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
        np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-10)
        x[:, [1, 3]] = np.nan
        seen = scipy.stats.multivariate_normal(mean[[0, 2]], covariance[np.ix_([0, 2], [0, 2])])
        np.testing.assert_allclose(model.log_prob(x), seen.logpdf(x[:, [0, 2]]), rtol=1e-10)


def test_em_reaches_scikit_learns_factor_analysis():
    x = data()
    peer = FactorAnalysis(2, tol=1e-10, max_iter=5000).fit(x)
    with jax.enable_x64(True):
        start = LowRankGaussian.init(jax.random.key(0), x, rank=2)
        fitted = jg.fit(jax.random.key(0), start, x, steps=300, tolerance=1e-10)
        np.testing.assert_allclose(float(fitted.model.log_prob(x).mean()), peer.score(x), atol=1e-6)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-10  # float64 rounding


def test_mixture_with_holes_is_monotone():
    x = np.concatenate([data(80, 3, 1, 1), data(80, 3, 1, 2) + 6])
    x[np.random.default_rng(0).random(x.shape) < 0.15] = np.nan
    leaf = functools.partial(LowRankGaussian.init, rank=1, missing=True)
    with jax.enable_x64(True):
        start = jg.Mixture.init(jax.random.key(0), x, 2, leaf)
        fitted = jg.fit(jax.random.key(0), start, x, steps=40, tolerance=0.0)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-9  # float64 rounding
        assert bool(jnp.isfinite(fitted.model.log_prob(x)).all())


def test_a_held_mean_stays_and_the_rest_is_monotone():
    x = data(120, 4, 1)
    with jax.enable_x64(True):
        start = LowRankGaussian.init(jax.random.key(0), x, rank=1)
        start = LowRankGaussian(**{**vars(start), "offset": start.offset + 0.3})
        fitted = jg.fit(jax.random.key(0), start, x, jg.EM(frozen={"offset": True}), steps=30, tolerance=0.0)
        np.testing.assert_array_equal(fitted.model.offset, start.offset)
        assert np.diff(fitted.history["log_likelihood"]).min() > -1e-9  # float64 rounding


def test_parts_of_a_low_rank_gaussian_are_those_of_the_full_one():
    with jax.enable_x64(True):
        model = example()
        full = jg.Gaussian.from_values(model.mean, model.covariance)
        for ours, theirs in (
            (model.marginal((2, 0)), full.marginal((2, 0))),
            (model.condition((1,), [0.4]), full.condition((1,), [0.4])),
        ):
            np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-10)
            np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-10)


def holes(x, share=0.2):
    """The data with NaN in place of a share of the entries; the second event lost all."""
    x = np.where(np.random.default_rng(3).random(x.shape) < share, np.nan, x)
    x[1] = np.nan
    return x


def thought(model, x):
    """`E[(r, z) | x]` and `E[(r, z)(r, z)^T | x]` of one event, by conditioning the joint Gaussian of x, r and z."""
    mean, factor, psi = (np.asarray(a, np.float64) for a in (model.mean, model.factor, model.noise_variance))
    d, q = factor.shape
    latent = np.diag(np.r_[psi, np.ones(q)])  # of (r, z)
    mix = np.concatenate([np.eye(d), factor], axis=1)[~np.isnan(x)]
    pull = latent @ mix.T @ np.linalg.inv(mix @ latent @ mix.T)
    first = pull @ (x - mean)[~np.isnan(x)]
    return first, np.outer(first, first) + latent - pull @ mix @ latent


@pytest.mark.parametrize("missing", [False, True])
def test_statistics_are_conditional_moments_of_noise_and_factors(missing):
    x = data(9, 4)
    x = holes(x, 0.4) if missing else x
    weight = np.random.default_rng(4).uniform(size=9)
    with jax.enable_x64(True):
        model = example(missing=missing)
        got, log_prob = model.e_step(x, weight)
        both = algebra.stack([model, model])
        together = both.e_step_components(x, np.stack([weight, weight]))
        np.testing.assert_allclose(log_prob, model.log_prob(x), rtol=1e-12)
    seen = [(w, *thought(model, event)) for w, event in zip(weight, x, strict=True) if not np.isnan(event).all()]
    first, second = sum(w * f for w, f, _ in seen), sum(w * s for w, _, s in seen)
    expected = (sum(w for w, *_ in seen), first[:4], np.diag(second)[:4], second[:4, 4:], first[4:], second[4:, 4:])
    for one, many, value in zip(got, together, expected, strict=True):
        np.testing.assert_allclose(one, value, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(many[1], value, rtol=1e-10, atol=1e-12)


def test_missing_entries_as_a_full_gaussian_sees_them():
    x = holes(data(40, 4), 0.4)
    with jax.enable_x64(True):
        model = example(missing=True)
        full = jg.Gaussian.from_values(model.mean, model.covariance, missing=True)
        np.testing.assert_allclose(model.log_prob(x), full.log_prob(x), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(model.impute(x), full.impute(x), rtol=1e-10)
        assert float(model.log_prob(x[1])) == 0  # nothing seen, nothing said
        ours, theirs = (jax.grad(lambda mean, f=f: jnp.sum(f(mean).log_prob(x)))(model.mean) for f in (
            lambda mean: LowRankGaussian.from_values(mean, model.factor, model.noise_variance, missing=True),
            lambda mean: jg.Gaussian.from_values(mean, model.covariance, missing=True),
        ))  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        whole = LowRankGaussian(**{**vars(model), "missing": False})
        with pytest.raises(jg.DataError, match="NaN"):
            whole.log_prob(x[1])
        assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.isfinite(g).all()), slope(model, x)))


def test_encode_is_scikit_learns_transform():
    x = data()
    peer = FactorAnalysis(2).fit(x)
    with jax.enable_x64(True):
        model = LowRankGaussian.from_values(peer.mean_, peer.components_.T, peer.noise_variance_)
        np.testing.assert_allclose(model.encode(x), peer.transform(x), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(model.covariance, peer.get_covariance(), rtol=1e-12)
        np.testing.assert_allclose(model.log_prob(x), peer.score_samples(x), rtol=1e-10)


def test_small_noise_keeps_its_digits_in_float32():
    """A coordinate next to no noise: `M` has a condition number of 1e6, and its own Cholesky factor would be noise."""
    rng = np.random.default_rng(5)
    factor, psi = rng.normal(size=(20, 4)), np.r_[1e-6, 1e-6, rng.uniform(0.3, 1, 18)]
    mean = np.zeros(20)
    with jax.enable_x64(True):
        exact = LowRankGaussian.from_values(mean.astype(np.float32), factor.astype(np.float32), psi.astype(np.float32))
        exact = jax.tree.map(lambda a: a.astype(jnp.float64), exact)
        x = np.asarray(exact.sample(jax.random.key(0), (200,)), np.float32)
        wanted = np.asarray(exact.log_prob(x.astype(np.float64)))
        dense = scipy.stats.multivariate_normal(mean, np.asarray(exact.covariance)).logpdf(x)
        np.testing.assert_allclose(wanted, dense, rtol=1e-7)  # the peer's own eigenvalues, to 1e-16 of the largest
    model = jax.tree.map(lambda a: a.astype(jnp.float32), exact)
    error = np.abs(np.asarray(model.log_prob(x), np.float64) - wanted)
    # rounding of events of size 3 moves them by 1e-4 of the small noise's width
    assert error.max() < 5e-3 and error.mean() < 5e-4


@pytest.mark.parametrize("missing", [False, True])
def test_a_mixture_ends_where_the_score_is_zero(missing):
    x = np.concatenate([data(150, 4, 1, 1), data(100, 4, 1, 2) + 4])
    x = holes(x) if missing else x
    with jax.enable_x64(True):
        leaf = functools.partial(LowRankGaussian.init, rank=1, missing=missing)
        start = jg.Mixture.init(jax.random.key(0), x, 2, leaf)
        fitted = jg.fit(jax.random.key(0), start, x, jg.EM(), steps=800, tolerance=0.0)
        values = fitted.history["log_likelihood"]
        assert np.diff(values).min() > -1e-12  # rounding of a float64 mean
        assert values[-1] > values[0] + 0.02
        score = slope(fitted.model, x).components
        # what 800 steps leave of the slowest direction
        assert max(float(jnp.abs(leaf).max()) for leaf in (score.offset, score.factor, score.log_noise)) < 1e-5


@pytest.mark.parametrize("copies", [1, 2])
def test_steps_in_float32_never_decrease(copies):
    """Columns that repeat, whose noise goes to the floor, and data far from zero."""
    x = np.concatenate([data(100, 4, 1, 1), data(100, 4, 1, 2) + 4])
    x = (np.concatenate([x] * copies, axis=1) + 1e3).astype(np.float32)
    start = jg.Mixture.init(jax.random.key(0), x, 2, functools.partial(LowRankGaussian.init, rank=2, floor=1e-3))
    fitted = jg.fit(jax.random.key(0), start, x, jg.EM(), steps=100, tolerance=0.0)
    values = np.asarray(fitted.history["log_likelihood"], np.float64)
    assert fitted.status == jg.Status.FINISHED
    # float32 holds numbers of 1e3 to 6e-5, and sums of terms of this size to 1e-6 of them
    assert np.diff(values).min() > -2e-5 * max(1, np.abs(values).max())
    assert values[-1] > values[0]


HELD = {
    "offset": {"offset": True}, "part of the offset": {"offset": (True, False, False, True, False)},
    "factor": {"factor": True}, "rows of the factor": {"factor": (False, True, False, False, False)},
    "psi": {"log_noise": True}, "offset and rows": {"offset": True, "factor": (True, True, False, False, False)},
    "parts of both": {"offset": (False, True) + (False,) * 3, "factor": (True,) + (False,) * 4},
}  # fmt: skip


@jax.jit
def constrained(model, x, held):
    statistics, log_prob = model.e_step(x)
    new = latent.maximize(model, latent.freeze(model, statistics, held))[0]
    return keep_frozen(new, model, held), jnp.mean(log_prob)


def climb(model, x, held, steps):
    """The model after so many constrained steps, none of which may go down or move what is held."""
    start, values = model, []
    for _ in range(steps):
        model, value = constrained(model, x, held)
        values.append(float(value))
    assert np.diff(values).min() > -1e-12  # rounding of a float64 mean
    assert values[-1] > values[0] + 5e-4
    for mask, old, new in zip(*map(jax.tree.leaves, (held, start, model)), strict=True):
        assert np.array_equal(old[mask], new[mask])
    return model


@pytest.mark.parametrize("name", HELD)
def test_held_parameters_stay_and_the_others_reach_their_maximum(name):
    with jax.enable_x64(True):
        truth = example(5, 1)  # of which no psi wants to be zero: EM would approach that forever
        x = holes(np.asarray(truth.sample(jax.random.key(0), (300,))))
        noise = truth.noise_variance * 1.5
        start = LowRankGaussian.from_values(truth.mean + 0.1, 0.8 * truth.factor, noise, missing=True)
        held = frozen_leaves(start, HELD[name])
        score = slope(climb(start, x, held, 300), x)
        for field in ("offset", "factor", "log_noise"):
            assert np.abs(np.where(getattr(held, field), 0, getattr(score, field))).max() < 1e-6, field


def test_single_entries_of_a_factor_can_be_held():
    """Loadings known to be zero: a confirmatory factor analysis."""
    with jax.enable_x64(True):
        truth = example(6, 2, 2)
        zero = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], bool)
        truth = LowRankGaussian(**{**vars(truth), "factor": jnp.where(zero, 0, truth.factor)})
        x = np.asarray(truth.sample(jax.random.key(0), (2000,)))
        start = LowRankGaussian.from_values(truth.mean + 0.1, 0.8 * truth.factor, truth.noise_variance * 1.5)
        held = frozen_leaves(start, {})
        held = LowRankGaussian(**{**vars(held), "factor": jnp.asarray(zero)})
        score = slope(climb(start, x, held, 300), x)
        assert np.abs(np.where(zero, 0, score.factor)).max() < 1e-6
        assert np.abs(score.log_noise).max() < 1e-6


def test_held_components_leave_the_others_their_whole_step():
    x = data(50, 4)
    with jax.enable_x64(True):
        both = algebra.stack([example(), example(seed=3)])
        statistics = algebra.component_e_step(both, x, np.ones((2, 50)))
        held = frozen_leaves(both, {"offset": (True, False), "factor": (True, False), "log_noise": (True, False)})
        new = jax.jit(lambda s: latent.component_maximize(both, latent.component_freeze(both, s, held))[0])(statistics)
        free = algebra.take(both, 1).m_step(algebra.take(statistics, 1))
        for a, b in zip(jax.tree.leaves(algebra.take(new, 1)), jax.tree.leaves(free), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_rebased_statistics_add_up():
    x = data(30, 4)
    with jax.enable_x64(True):
        old, new = example(), example(seed=7)
        statistics = old.e_step(x)[0]
        moved = new.recentre(old, statistics)
        thoughts = [thought(old, event) for event in x]
        # r + mean + F z is x in either model: the noise that the new one leaves is a linear map of (r, z)
        turn = np.concatenate([np.eye(4), old.factor - new.factor], axis=1)
        step = np.asarray(old.mean - new.mean)
        first = sum(turn @ f + step for f, _ in thoughts)
        around = lambda f: np.outer(turn @ f, step) + np.outer(step, turn @ f + step)  # noqa: E731
        second = sum(turn @ s @ turn.T + around(f) for f, s in thoughts)
        cross = sum((turn @ s)[:, 4:] + np.outer(step, f[4:]) for f, s in thoughts)
        for got, value in ((moved.first, first), (moved.second, np.diag(second)), (moved.cross, cross)):
            np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)
        same, direct = new.m_step(moved), old.m_step(statistics)
        np.testing.assert_allclose(same.mean, direct.mean, rtol=1e-9)
        np.testing.assert_allclose(same.covariance, direct.covariance, rtol=1e-9)


@jax.jit
def five(model, x):
    return jax.lax.fori_loop(0, 5, lambda _, model: model.m_step(model.e_step(x)[0]), model)


def test_repairs_are_counted_and_nothing_is_lost():
    x = data(20, 4).astype(np.float32)
    model = LowRankGaussian.init(jax.random.key(0), x, rank=2)
    kept, repairs = model.maximize(model.e_step(x, np.zeros(20, np.float32))[0])
    assert int(repairs) == 1 and jax.tree.all(jax.tree.map(np.array_equal, kept, model))
    flat = LowRankGaussian(**{**vars(model), "floor": jnp.float32(0)})
    for events in (x[:1], np.repeat(x[:1], 9, axis=0), np.full((4, 4), 1e30, np.float32)):
        for one in (model, flat):
            one = five(one, events)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))
    unseen = LowRankGaussian.init(jax.random.key(0), x, rank=2, missing=True)
    assert int(unseen.maximize(unseen.e_step(np.full((3, 4), np.nan, np.float32))[0])[1]) == 1
    column = x.copy()
    column[:, 1], column[:, 2] = np.nan, 3.0
    start = LowRankGaussian.init(jax.random.key(0), column, rank=2, missing=True)
    fitted = jg.fit(jax.random.key(0), start, column, jg.EM(), steps=20, tolerance=0.0).model
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((start, fitted)))


def test_starts_are_principal_components_in_any_units():
    x, units = data(), np.array([1.0, 1e3, 1e-2, 5.0, 1.0])
    with jax.enable_x64(True):
        one = LowRankGaussian.init(jax.random.key(0), x, rank=2)
        other = LowRankGaussian.init(jax.random.key(0), x * units, rank=2, floor=0.0)
        np.testing.assert_allclose(other.covariance, one.covariance * np.outer(units, units), rtol=1e-8)
        scale = x.std(axis=0)
        # the closed form; the peer divides by n - 1
        peer = PCA(2).fit((x - x.mean(axis=0)) / scale).get_covariance() * (299 / 300)
        correlation = one.covariance / np.outer(scale, scale)
        np.testing.assert_allclose(correlation, peer, rtol=1e-8, atol=1e-10)


def test_free_parameters_and_refusals():
    assert example(5, 2).free_parameters == 5 + (5 * 2 - 1) + 5
    assert example(2, 1).free_parameters == 2 + 3  # no more than a full covariance has
    x = data(10, 4)
    for bad in (
        lambda: LowRankGaussian.from_values(x[0], np.ones((3, 1)), np.ones(4)),
        lambda: LowRankGaussian.from_values(x[0], np.ones((4, 1)), np.zeros(4)),
        lambda: LowRankGaussian.init(jax.random.key(0), x, rank=5), lambda: example().marginal((0, 0)),
        lambda: example().condition((0, 1, 2, 3), x[0]),
    ):  # fmt: skip
        with pytest.raises(ModelError, match="expected"):
            bad()
    with pytest.raises(DataError, match="NaN"):
        LowRankGaussian.init(jax.random.key(0), holes(x), rank=1)
    with pytest.raises(DataError, match="NaN"):
        example().check_data(holes(x))
    example(missing=True).check_data(holes(x))


def test_stepwise_em_reaches_what_em_reaches():
    x = data(400, 5, 2).astype(np.float32)
    start = LowRankGaussian.init(jax.random.key(0), x, rank=2)
    best = float(jg.fit(jax.random.key(0), start, x, jg.EM(), steps=300).model.log_prob(x).mean())
    steps = jg.fit(jax.random.key(0), start, x, jg.StepwiseEM(), steps=400, batch_size=100)
    assert float(steps.model.log_prob(x).mean()) > best - 0.02  # noise of batches
