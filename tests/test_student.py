"""The Student t leaf against scipy, brute-force marginals, and EM's own promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.core.frozen import frozen_leaves, keep_frozen
from jaxgen.models.densities import student
from jaxgen.models.densities.student import StudentT
from jaxgen.models.latent.mixture import Mixture

RNG = np.random.default_rng(0)
LOCATION = np.array([1.0, -2.0, 0.5])
SCALE = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 0.7]])
slope = jax.jit(jax.grad(lambda model, x: jnp.mean(model.log_prob(x))))


def peer(model, x):
    """`[N]` from scipy in float64, of the entries that are not NaN."""
    location = np.asarray(model.origin, np.float64) + np.asarray(model.offset, np.float64)
    scale, df = np.asarray(model.scale_matrix, np.float64), float(model.df)
    out = np.zeros(len(x))
    for n, event in enumerate(np.asarray(x, np.float64)):
        seen = ~np.isnan(event)
        if seen.any():
            part = scale[np.ix_(seen, seen)]
            out[n] = scipy.stats.multivariate_t.logpdf(event[seen], location[seen], part, df)
    return out


def heavy(n, df=3.0, seed=0):
    return scipy.stats.multivariate_t(LOCATION, SCALE, df=df, seed=seed).rvs(n)


def holes(x, share=0.3, seed=1):
    """The data with NaN in place of a share of the entries; the second event lost all."""
    x = np.where(np.random.default_rng(seed).uniform(size=x.shape) < share, np.nan, x)
    x[1] = np.nan
    return x


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 40.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_prob_equals_scipy_with_and_without_holes(df, dtype):
    with jax.enable_x64(dtype == np.float64):
        model = StudentT.from_values(LOCATION.astype(dtype), SCALE.astype(dtype), df, missing=True)
        x = holes(heavy(50)).astype(dtype)
        x[0] = heavy(1, seed=5)
        values = model.log_prob(x)
        whole = StudentT(model.offset, model.raw, model.log_df, model.origin, model.floor)
        # float32: a few roundings of numbers below ten, and of 180 in the far tail; at df 1e4 the peer's own gamma
        # functions cancel to 1e-11
        tolerance = 1e-5 if dtype == np.float32 else 1e-10
        assert values.dtype == dtype
        np.testing.assert_allclose(values, peer(model, x), atol=tolerance, rtol=tolerance / 10)
        np.testing.assert_allclose(whole.log_prob(x[0]), values[0], atol=tolerance)
        assert values[1] == 0  # nothing seen, nothing said
        with pytest.raises(jg.DataError, match="NaN"):
            whole.log_prob(x[1])
        both = algebra.stack([model, model])
        np.testing.assert_allclose(both.log_prob_components(x)[1], values, atol=tolerance)


def test_gamma_functions_keep_their_digits():
    a = np.array([0.05, 0.25, 1.0, 3.0, 20.0, 500.0, 5000.0])
    gap = np.log(a) - scipy.special.digamma(a)
    with jax.enable_x64(True):
        # beyond a = 100 the peer's own difference has lost four digits
        np.testing.assert_allclose(student._digamma_gap(jnp.asarray(a)), gap, rtol=1e-11)
        np.testing.assert_allclose(student._invert_gap(jnp.asarray(gap), 0.01, 1e4), a, rtol=1e-9)
    np.testing.assert_allclose(student._digamma_gap(jnp.asarray(a, jnp.float32)), gap, rtol=2e-6)
    for h in (0.5, 1.0, 5.0):
        expected = scipy.special.gammaln(a + h) - scipy.special.gammaln(a) - h * np.log(a)
        np.testing.assert_allclose(student._log_gamma_ratio(jnp.asarray(a, jnp.float32), h), expected, atol=3e-6)


def test_e_step_is_the_conditional_mean_over_the_latent_precision():
    """`u` and `E log tau` by quadrature over tau, `E[tau d d^T]` by conditioning the Gaussian given tau."""
    with jax.enable_x64(True):
        model = StudentT.from_values(LOCATION, SCALE, 2.5, missing=True)
        event = np.array([3.0, np.nan, -1.0])
        statistics = model.e_step(event[None])[0]
        seen, lost = np.array([0, 2]), np.array([1])
        d = event[seen] - LOCATION[seen]
        joint = lambda tau: scipy.stats.multivariate_normal.pdf(d, cov=SCALE[np.ix_(seen, seen)] / tau) * (  # noqa: E731
            scipy.stats.gamma.pdf(tau, 1.25, scale=1 / 1.25)
        )
        mean = lambda f: scipy.integrate.quad(lambda t: f(t) * joint(t), 0, np.inf, epsabs=1e-13)[0]  # noqa: E731
        total = mean(lambda t: 1.0)
        u, log_tau = mean(lambda t: t) / total, mean(np.log) / total
        # the quadrature's own accuracy, with a logarithm's pole at zero
        np.testing.assert_allclose(statistics.precision, u, rtol=1e-7)
        np.testing.assert_allclose(statistics.spread, log_tau - u + 1, rtol=1e-6)
        regression = SCALE[np.ix_(lost, seen)] @ np.linalg.inv(SCALE[np.ix_(seen, seen)])
        filled = np.zeros(3)
        filled[seen], filled[lost] = d, regression @ d
        rest = np.zeros((3, 3))
        rest[1, 1] = (SCALE[np.ix_(lost, lost)] - regression @ SCALE[np.ix_(seen, lost)])[0, 0]
        np.testing.assert_allclose(statistics.first, u * filled, rtol=1e-7)
        np.testing.assert_allclose(statistics.second, u * np.outer(filled, filled) + rest, rtol=1e-7)


@pytest.mark.parametrize("missing", [False, True])
def test_a_mixture_never_decreases_and_ends_where_the_score_is_zero(missing):
    x = np.concatenate([heavy(300), heavy(200, seed=3) + 8])
    x = holes(x, 0.2) if missing else x
    with jax.enable_x64(True):
        model = Mixture.from_components(
            [StudentT.from_values(LOCATION + shift, SCALE, 10.0, missing=missing) for shift in (-1.0, 6.0)]
        )
        step = jax.jit(lambda model: (model.maximize(model.e_step(x)[0])[0], jnp.mean(model.log_prob(x))))
        values = []
        for _ in range(400):
            model, value = step(model)
            values.append(float(value))
        assert np.diff(values).min() > -1e-12  # rounding of a float64 mean
        assert values[-1] > values[0] + 0.05
        score = jax.grad(lambda m: jnp.mean(m.log_prob(x)))(model)
        trained = (score.components.offset, jnp.tril(score.components.raw), score.components.log_df)
        # what 400 steps leave of the slowest direction, df
        assert max(float(jnp.abs(leaf).max()) for leaf in trained) < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_are_recovered(dtype):
    with jax.enable_x64(dtype == np.float64):
        light = heavy(4000, 50.0).astype(dtype)
        start = StudentT.init(jax.random.key(0), light)
        # a third of a standard error; the scale at 10 degrees of freedom is a little narrower than the covariance
        np.testing.assert_allclose(start.location, light.mean(axis=0), atol=6e-3)
        np.testing.assert_allclose(start.scale_matrix, np.cov(light.T, bias=True) * 0.87, rtol=0.05, atol=1e-2)
        x = heavy(4000).astype(dtype)
        start = StudentT.init(jax.random.key(0), x)
        fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=100, tolerance=0.0).model
        assert fitted.df.dtype == dtype
        # some four standard errors of 4000 events
        np.testing.assert_allclose(fitted.df, 3.0, atol=0.5)
        np.testing.assert_allclose(fitted.location, LOCATION, atol=0.12)
        np.testing.assert_allclose(fitted.scale_matrix, SCALE, atol=0.25)
        gaussian = jg.Gaussian.init(jax.random.key(0), x)
        assert float(fitted.log_prob(x).mean()) > float(gaussian.log_prob(x).mean()) + 0.3


def test_outliers_do_not_move_the_components():
    x = np.concatenate([RNG.normal(size=(150, 2)), RNG.normal(size=(150, 2)) + 8])
    x = np.concatenate([x, RNG.uniform(-60, 60, (15, 2))]).astype(np.float32)
    start = Mixture.init(jax.random.key(2), x[:300], 2, StudentT.init)
    fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=100).model
    centers = np.sort(np.asarray(fitted.components.location)[:, 0])
    np.testing.assert_allclose(centers, [0, 8], atol=0.4)


def test_data_far_from_zero_and_light_tails_stay_exact():
    x = (RNG.normal(size=(500, 2)) + 1e4).astype(np.float32)
    start = StudentT.init(jax.random.key(0), x, df=1e3)
    model = jg.fit(jax.random.key(0), start, x, jg.EM(), steps=50, tolerance=0.0).model
    assert 30 < float(model.df) <= 1e4
    # float32 holds numbers of 1e4 to 1e-3; the log-densities of what it holds are exact
    np.testing.assert_allclose(model.log_prob(x), peer(model, x), atol=2e-3)


def test_no_mass_and_singular_scales_are_repaired_and_counted():
    x = heavy(20).astype(np.float32)
    model = StudentT.init(jax.random.key(0), x)
    kept, repairs = model.maximize(model.e_step(x, np.zeros(20, np.float32))[0])
    assert int(repairs) == 1 and jax.tree.all(jax.tree.map(np.array_equal, kept, model))
    unseen = StudentT.init(jax.random.key(0), x, missing=True)
    nothing = np.full((3, 3), np.nan, np.float32)
    assert int(unseen.maximize(unseen.e_step(nothing)[0])[1]) == 1
    flat = StudentT(model.offset, model.raw, model.log_df, model.origin, jnp.zeros(3, jnp.float32))
    for events in (x[:1], np.repeat(x[:1], 9, axis=0), np.full((4, 3), 1e30, np.float32)):
        for one in (model, flat):
            new, repairs = one.maximize(one.e_step(events)[0])
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
        assert int(repairs) == 1
    column = x.copy()
    column[:, 1] = np.nan
    start = StudentT.init(jax.random.key(0), column, missing=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(start))


HELD = {
    "location": {"offset": True}, "part of the location": {"offset": (True, False, False)},
    "scale": {"raw": True}, "rows of the scale": {"raw": (False, True, False)}, "df": {"log_df": True},
    "part of the location and the scale": {"offset": (True, False, False), "raw": True},
}  # fmt: skip


@jax.jit
def constrained(model, x, held):
    statistics, log_prob = model.e_step(x)
    new = latent.maximize(model, latent.freeze(model, statistics, held))[0]
    return keep_frozen(new, model, held), jnp.mean(log_prob)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", HELD)
def test_held_parameters_stay_and_the_others_reach_their_maximum(name, missing):
    with jax.enable_x64(True):
        x = holes(heavy(200)) if missing else heavy(200)
        model = StudentT.from_values(LOCATION + 0.5, np.diag([1.0, 2.0, 1.0]) + 0.2, 6.0, missing=missing)
        held = frozen_leaves(model, HELD[name])
        start, values = model, []
        for _ in range(300):
            model, value = constrained(model, x, held)
            values.append(float(value))
        assert np.diff(values).min() > -1e-12
        score = slope(model, x)
        for field in ("offset", "raw", "log_df"):
            mask, old, new = (np.asarray(getattr(part, field)) for part in (held, start, model))
            assert np.array_equal(old[mask], new[mask])
            free = np.where(mask, 0, np.tril(getattr(score, field)) if field == "raw" else getattr(score, field))
            assert np.abs(free).max() < 1e-5, field
        assert values[-1] > values[0] + 1e-3


def test_rebased_statistics_add_up():
    x = heavy(100)
    with jax.enable_x64(True):
        old = StudentT.from_values(LOCATION, SCALE, 4.0)
        new = StudentT.from_values(LOCATION + [1.0, 2.0, -3.0], SCALE, 4.0)
        statistics = old.e_step(x)[0]
        moved = new.recentre(old, statistics)
        d, u = x - np.asarray(new.location), np.asarray(7.0 / (4.0 + np.square((x - LOCATION) @ old.whitener.T).sum(1)))
        np.testing.assert_allclose(moved.first, u @ d, rtol=1e-10)
        np.testing.assert_allclose(moved.second, (u[:, None] * d).T @ d, rtol=1e-10)
        same, direct = new.m_step(moved), old.m_step(statistics)
        np.testing.assert_allclose(same.location, direct.location, rtol=1e-10)
        np.testing.assert_allclose(same.scale_matrix, direct.scale_matrix, rtol=1e-8)


def test_draws_follow_the_density():
    model = StudentT.from_values(LOCATION.astype(np.float32), SCALE.astype(np.float32), 3.0)
    x = np.asarray(model.sample(jax.random.key(0), (4000,)), np.float64)
    along = (x - LOCATION) @ np.array([0.3, -0.5, 1.0])
    width = np.sqrt(np.array([0.3, -0.5, 1.0]) @ SCALE @ np.array([0.3, -0.5, 1.0]))
    # every projection of a t density is one, with the same df
    assert scipy.stats.kstest(along / width, scipy.stats.t(3.0).cdf).pvalue > 1e-4


def test_free_parameters_and_refusals():
    model = StudentT.from_values(np.zeros((2, 3)), np.stack([SCALE, SCALE]), [2.0, 5.0])
    assert latent.component_free_parameters(model) == 2 * (3 + 6 + 1)
    for bad in (
        lambda: StudentT.from_values(LOCATION, -SCALE, 3.0), lambda: StudentT.from_values(LOCATION, SCALE, 0.0),
        lambda: StudentT.from_values(LOCATION[:2], SCALE, 3.0),
    ):  # fmt: skip
        with pytest.raises(ModelError, match="expected"):
            bad()
    x = holes(heavy(10)).astype(np.float32)
    with pytest.raises(DataError):
        StudentT.init(jax.random.key(0), x)
    with pytest.raises(DataError, match="missing=True"):
        StudentT.init(jax.random.key(0), heavy(10)).check_data(x)
    StudentT.init(jax.random.key(0), x, missing=True).check_data(x)


def test_a_mixture_starts_from_data_with_holes():
    x = holes(np.concatenate([heavy(100, 5.0), heavy(100, 5.0) + 10]), 0.2).astype(np.float32)
    start = Mixture.init(jax.random.key(0), x, 2, functools.partial(StudentT.init, missing=True))
    fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=60, tolerance=0.0)
    values = fitted.history["log_likelihood"]
    assert fitted.status == jg.Status.FINISHED
    assert np.diff(values).min() > -2e-6  # float32 rounding of a mean near 4
    np.testing.assert_allclose(np.sort(np.asarray(fitted.model.components.location)[:, 0]), [1, 11], atol=0.6)
