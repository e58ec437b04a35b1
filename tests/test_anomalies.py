"""Anomaly detection: conformal guarantees by hand and in many draws, scores, attribution, robust fits, streams."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from scipy import stats

import jaxgen as jg
from jaxgen.tasks import conformal

X = np.asarray(jax.random.normal(jax.random.key(0), (200, 3)))
KEY = jax.random.key(1)
NORMAL = jg.Gaussian.from_values(jnp.zeros(3), jnp.eye(3))


# ---- guarantees


def test_p_values_by_hand():
    calibration = [3.0, 1.0, 2.0, 2.0]
    p = conformal.p_values([2.0, 5.0, 0.0, np.inf], calibration)
    assert p.tolist() == [(1 + 3) / 5, 1 / 5, 1.0, 1 / 5]
    weighted = conformal.p_values([2.0, 5.0], calibration, weight=([1.0, 2.0, 4.0, 8.0], [1.0, 3.0]))
    np.testing.assert_allclose(weighted, [(1 + 1 + 4 + 8) / (1 + 15), 3 / (3 + 15)], rtol=1e-12)
    ones = conformal.p_values([2.0, 5.0], calibration, weight=(np.ones(4), np.ones(2)))
    np.testing.assert_allclose(ones, p[:2], rtol=1e-12)
    crossed = conformal.cross_p_values([[2.0], [2.5]], [[3.0, 1.0], [2.0, 2.0]])
    assert crossed.tolist() == [(1 + 1) / 5]


def test_benjamini_hochberg_is_scipys():
    p = np.array([0.01, 0.02, 0.03, 0.2, 0.5])
    assert conformal.benjamini_hochberg(p, 0.1).sum() == 3
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(size=20) ** 3
        ours = conformal.benjamini_hochberg(p, 0.2)
        np.testing.assert_array_equal(ours, stats.false_discovery_control(p) <= 0.2)


def test_e_values_of_one_split_reject_what_p_values_do():
    rng = np.random.default_rng(1)
    for _ in range(50):
        s, c = np.append(rng.normal(size=20), rng.normal(size=5) + 3).round(1), rng.normal(size=60).round(1)
        p = conformal.benjamini_hochberg(conformal.p_values(s, c), 0.2)
        e = conformal.e_benjamini_hochberg(conformal.e_values(s, c, 0.2), 0.2)
        np.testing.assert_array_equal(p, e)


@pytest.mark.parametrize("level", [0.1, 0.2])
def test_false_discoveries_over_200_draws(level):
    """Realised rate and power; the expected rate is at most `level * 180 / 200`, and a mean of 200 draws strays by less
    than its three standard errors."""
    false, power, weakest = [], [], []
    strange = np.arange(200) >= 180
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores, calibration = rng.normal(size=200) + 3.5 * strange, rng.normal(size=500)
        found = conformal.benjamini_hochberg(conformal.p_values(scores, calibration), level)
        false.append((found & ~strange).sum() / max(1, found.sum()))
        power.append(found[strange].mean())
        weakest.append((conformal.p_values(scores[:180], calibration) <= level).mean())
    print(f"level {level}: false discoveries {np.mean(false):.4f}, power {np.mean(power):.3f}")
    slack = 3 / np.sqrt(200)
    assert np.mean(false) <= 0.9 * level + slack * np.std(false) and np.mean(false) <= level
    assert np.mean(weakest) <= level + slack * np.std(weakest)
    assert np.mean(power) > 0.5


def test_weights_undo_a_shift():
    """Normal events from N(1, 1), calibrated by N(0, 1): weighted p-values are uniform, plain ones are not."""
    rng = np.random.default_rng(0)
    c, s = rng.normal(size=4000), rng.normal(size=2000) + 1
    ratio = lambda x: np.exp(x - 0.5)  # noqa: E731
    weighted = conformal.p_values(s, c, weight=(ratio(c), ratio(s)))
    # shares at .2: binomial error .009, that of the calibration about as large
    assert abs((weighted <= 0.2).mean() - 0.2) < 0.04 < (conformal.p_values(s, c) <= 0.2).mean() - 0.2


def test_threshold_is_a_quantile_and_a_beta_quantile():
    c = np.random.default_rng(0).permutation(199).astype(float)
    assert conformal.threshold(c, 0.05) == 189.0  # the 190th of 199: (199 - 189) / 200 = .05
    assert (conformal.p_values([189.5, 188.5], c) <= 0.05).tolist() == [True, False]
    k = int(conformal.threshold(c, 0.05, confidence=0.9)) + 1
    assert stats.binom.cdf(199 - k, 199, 0.05) <= 0.1 < stats.binom.cdf(199 - k + 1, 199, 0.05)


# ---- the call


def test_anomaly_splits_crosses_and_bets():
    x = np.concatenate([X[:20], X[20:25] + 6])
    split = jg.tasks.anomaly(KEY, NORMAL, x, reference=X[25:])
    np.testing.assert_allclose(split.scores, -stats.norm.logpdf(x).sum(axis=1), rtol=1e-5)
    assert split.rejected[20:].all() and split.rejected[:20].sum() <= 2
    assert split.threshold == conformal.threshold(-np.asarray(NORMAL.log_prob(X[25:])), 0.1)
    for by_e_values in (False, True):
        crossed = jg.tasks.anomaly(KEY, jg.Gaussian.init, x, reference=X[25:], folds=3, by_e_values=by_e_values)
        assert crossed.rejected[20:].all() and crossed.calibration == 175 and crossed.threshold is None
    weighted = jg.tasks.anomaly(KEY, NORMAL, x, reference=X[25:], weight=lambda x: np.ones(len(x)))
    np.testing.assert_allclose(weighted.p_values, split.p_values, rtol=1e-12)
    assert "at most 10%" in str(split) and "Anomalies" in split._repr_html_()


def test_anomaly_refuses_clearly():
    ask = lambda **options: jg.tasks.anomaly(KEY, NORMAL, X[:5], **options)  # noqa: E731
    with pytest.raises(jg.DataError, match="normal events, reference="):
        ask()
    with pytest.raises(jg.DataError, match="at least 99"):
        ask(reference=X[:50], level=0.01)
    with pytest.raises(jg.DataError, match="NaN"):
        ask(reference=np.full((50, 3), np.nan))
    with pytest.raises(jg.ShapeError):
        ask(reference=X[:, :2])
    with pytest.raises(jg.FitError, match="between 0 and 1"):
        ask(reference=X, level=5)
    with pytest.raises(jg.FitError, match="between 0 and 1"):
        conformal.calibration_needed(0)
    with pytest.raises(jg.FitError, match="a function"):
        ask(reference=X, folds=3)
    with pytest.raises(jg.DataError, match="no weights"):
        ask(reference={"x": X, "weight": np.arange(200.0)})
    with pytest.raises(jg.ModelError, match="reconstruct"):
        ask(reference=X, score=jg.tasks.Reconstruction())


def test_scores_are_what_they_say():
    wide = jg.Gaussian.from_values(jnp.zeros(3), 4 * jnp.eye(3))
    ratio = jg.tasks.LikelihoodRatio(wide)(KEY, NORMAL, X)
    reference = stats.norm.logpdf(X, scale=2).sum(axis=1) - stats.norm.logpdf(X).sum(axis=1)
    np.testing.assert_allclose(ratio, reference, rtol=1e-4, atol=1e-5)
    typical = jg.tasks.Typicality(samples=4000)(KEY, NORMAL, X)
    entropy = 1.5 * np.log(2 * np.pi * np.e)
    # H by 4000 draws of a standard deviation of 1.22
    np.testing.assert_allclose(typical, np.abs(-stats.norm.logpdf(X).sum(axis=1) - entropy), atol=0.1)
    bits = (X > 0).astype(np.float32)
    vae = jg.VAE.init(KEY, bits, jg.StandardNormal((2,)), hidden=(4,))
    latent = stats.norm.logpdf(np.asarray(vae.encode(bits))).sum(axis=1)
    np.testing.assert_allclose(jg.tasks.LatentDensity()(KEY, vae, bits), -latent, rtol=1e-4, atol=1e-5)
    far = jg.tasks.Reconstruction()(KEY, vae, bits)
    np.testing.assert_allclose(far, ((bits - np.asarray(vae.reconstruct(bits))) ** 2).mean(axis=1), rtol=1e-5)
    bound = jg.tasks.Surprise(samples=3)(KEY, vae, bits)
    assert bound.shape == (200,) and np.isfinite(bound).all()


# ---- the detector


def test_detector_finds_strangers_in_any_units():
    x = np.exp(np.asarray(jax.random.normal(KEY, (120, 3)))) * [1, 1, 0] + [0, 0, 5]  # skewed, and a constant column
    strange = np.array([[1.0, 40.0, 5.0], [1.0, 1.0, 9.0], [-3.0, 1.0, 5.0]])
    found = jg.tasks.detector(KEY, x)
    usual = np.asarray(found.strangeness(x))
    assert (np.asarray(found.strangeness(strange)) > np.quantile(usual, 0.99)).all()
    units = np.array([1e3, 1e-3, 2.0])
    again = jg.tasks.detector(KEY, x * units)
    np.testing.assert_allclose(again.strangeness(strange * units), found.strangeness(strange), rtol=0.02)
    result = jg.tasks.anomaly(KEY, found, strange, reference=x)
    np.testing.assert_allclose(result.scores, found.strangeness(strange), rtol=1e-5)
    assert result.rejected.all()


def test_detector_sees_small_differences_of_large_numbers():
    """Small whole numbers behind 2^23, all exact in float32: a shift changes nothing."""
    x = np.round(4 * X)
    near, far = (jg.tasks.detector(KEY, x + at).strangeness(x[:20] + at) for at in (0, 2.0**23))
    np.testing.assert_allclose(far, near, rtol=1e-2, atol=1e-2)  # means of large numbers lose digits


def test_detector_refuses_clearly():
    with pytest.raises(jg.DataError, match="not finite"):
        jg.tasks.detector(KEY, [[np.nan, 1.0], [1.0, 2.0]])
    with pytest.raises(jg.ShapeError, match="table"):
        jg.tasks.detector(KEY, [1.0, 2.0])
    with pytest.raises(jg.DataError, match="2 or more"):
        jg.tasks.detector(KEY, [[1.0, 2.0]])


def cars(names=("diesel", "petrol", "solar"), n=150):
    """Weights that go with a label: solar cars are light; some rows have no colour."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    return pd.DataFrame({
        "fuel": np.array(names)[kind], "weight": np.array([2.0, 1.5, 0.5])[kind] + 0.1 * rng.normal(size=n),
        "used": kind == 0, "colour": np.where(rng.random(n) < 0.2, None, np.where(rng.random(n) < 0.5, "red", "blue")),
    })  # fmt: skip


def test_detector_takes_frames_of_any_columns():
    """Every level and every weight is usual alone: strange is what never goes together."""
    frame = cars()
    found = jg.tasks.detector(KEY, frame)
    usual = np.asarray(found.strangeness(frame))
    odd = pd.DataFrame({
        "fuel": ["solar", "solar", "diesel", "solar"], "weight": [2.0, 0.5, 2.0, np.nan],
        "used": [False, True, True, False], "colour": ["red", "red", "red", None],
    })  # fmt: skip
    scores = np.asarray(found.strangeness(odd))
    assert (scores[[0, 1, 3]] > usual.max()).all()  # too heavy; used; a weight is missing where none was
    assert scores[2] < np.quantile(usual, 0.9)
    result = jg.tasks.anomaly(KEY, found, odd, reference=cars(n=120))
    np.testing.assert_allclose(result.scores, scores, rtol=1e-5)
    with pytest.raises(jg.DataError, match="none of its levels"):
        found.strangeness(odd.assign(fuel="steam"))
    never = frame.assign(fuel=pd.Categorical(frame["fuel"], ["diesel", "petrol", "solar", "steam"]))
    steam = jg.tasks.detector(KEY, never).strangeness(never[:5].assign(fuel="steam"))
    assert (np.asarray(steam) > usual.max()).all()


def test_names_and_order_of_levels_are_nothing():
    """Other names sort otherwise, so that indicators stand in another order: sums round otherwise."""
    first, other = cars(), cars(("z", "y", "a"))
    scores = [np.asarray(jg.tasks.detector(KEY, frame).strangeness(frame)) for frame in (first, other)]
    np.testing.assert_allclose(*scores, rtol=0.02, atol=0.02)
    numbers = first[["weight"]].assign(more=first["weight"] ** 2)
    as_frame, as_array = (jg.tasks.detector(KEY, x).strangeness(x) for x in (numbers, numbers.to_numpy()))
    np.testing.assert_array_equal(as_frame, as_array)  # frames of numbers are as before


# ---- attribution


def test_attribution_is_the_exact_conditional():
    mean, factor = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, -1.0]]), np.array([[1.0, 0.8, 0.0], [0.0, 1.0, -0.5]])
    covariance = np.stack([factor.T @ factor + 0.3 * np.eye(3), np.eye(3)])
    mixture = jg.Mixture.from_components(jg.Gaussian.from_values(jnp.asarray(mean), jnp.asarray(covariance)))
    x = X[:4]
    both = lambda d: np.logaddexp(*(np.log(0.5) + stats.multivariate_normal.logpdf(  # noqa: E731
        x[:, d], mean[k, d], covariance[k][np.ix_(d, d)]) for k in range(2)))
    reference = np.stack([both([1, 2]), both([0, 2]), both([0, 1])], axis=1) - both([0, 1, 2])[:, None]
    found = jg.tasks.attribution(mixture, x)
    assert found.exact
    np.testing.assert_allclose(found.values, reference, rtol=1e-4, atol=1e-4)
    unseen = jg.DiagonalGaussian.init(KEY, X, missing=True)
    np.testing.assert_allclose(
        jg.tasks.attribution(unseen, x).values,
        -stats.norm.logpdf(x, np.asarray(unseen.mean), np.asarray(unseen.scale)), rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    counts = dataclasses.replace(jg.Poisson.from_values([1.0, 5.0]), missing=True)
    values = jg.tasks.attribution(counts, np.array([[0, 9], [3, 4]])).values  # whole numbers
    np.testing.assert_allclose(values, -stats.poisson.logpmf([[0, 9], [3, 4]], [1.0, 5.0]), rtol=1e-4)


def test_attribution_by_gradients_has_no_units():
    first = jg.tasks.attribution(jg.StudentT.from_values(jnp.zeros(3), jnp.eye(3), 5.0), X)
    units = np.array([1.0, 1e3, 1e-3], np.float32)
    scaled = jg.StudentT.from_values(jnp.zeros(3), jnp.diag(units**2), 5.0)
    assert not first.exact
    np.testing.assert_allclose(jg.tasks.attribution(scaled, X * units).values, first.values, rtol=1e-3)


# ---- robust training


def test_trimmed_em_keeps_the_minimum_covariance_determinant():
    """On one Gaussian, steps of trimmed EM are concentration steps: what those of sklearn ended at is a fixed point."""
    from sklearn.covariance import MinCovDet

    x = X.copy()
    x[:30] = 20 + x[:30] / 10
    reference = MinCovDet(support_fraction=0.75, random_state=0).fit(x)
    start = jg.Gaussian.from_values(jnp.asarray(reference.raw_location_), jnp.asarray(reference.raw_covariance_))
    fitted = jg.fit(KEY, start, x, jg.tasks.Trimmed(0.25), steps=20)
    np.testing.assert_allclose(fitted.model.mean, reference.raw_location_, atol=1e-4)
    other = jg.fit(KEY, jg.Gaussian.init(KEY, X[30:80]), x, jg.tasks.Trimmed(0.25), steps=20)
    assert (np.diff(other.history["objective"]) > -1e-5).all() and np.linalg.norm(other.model.mean) < 1
    plain = jg.fit(KEY, start, x, jg.EM(), steps=20)
    assert np.linalg.norm(plain.model.mean) > 4


def test_trimmed_takes_gradients_and_refuses_what_has_no_density():
    x = np.concatenate([X, np.full((20, 3), 30.0)])
    flow = jg.DiagonalGaussian.init(KEY, X[:50])
    algorithm = jg.tasks.Trimmed(0.1, jg.Gradient(optimizer=optax.adam(1e-2)))
    fitted = jg.fit(KEY, flow, x, algorithm, steps=20, batch_size=220)
    assert float(jnp.abs(fitted.model.mean).max()) < 1
    with pytest.raises(jg.FitError, match="share"):
        jg.fit(KEY, flow, x, jg.tasks.Trimmed(1.5))
    few = jg.tasks.Trimmed(0.99)._kept(flow, jg.Batch(jnp.asarray(x[:40])))
    assert float(few.weight.sum()) == 1  # a hundredth of forty is none: the likeliest stays


# ---- streams


def test_step_surprise_sums_to_that_of_the_sequence():
    coin = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_values([0.1, 0.8]))
    x = jnp.array([0, 0, 1, 1, 0])
    steps = np.asarray(jg.tasks.step_surprise(coin, x))
    prefixes = [-float(coin.log_prob(x[: t + 1])) for t in range(5)]
    np.testing.assert_allclose(np.cumsum(steps), prefixes, rtol=1e-5)
    with pytest.raises(jg.ModelError, match="no steps"):
        jg.tasks.step_surprise(NORMAL, X)


def test_alarm_is_rarely_false_and_soon_right():
    """False alarms of 40 streams of 500 steps at a rate of 1/200: 100 at most in the mean."""
    alarm, rng, false, late = jg.tasks.Alarm(1 / 200), np.random.default_rng(0), 0, []
    p = []
    for i in range(40):
        state = alarm.init(rng.exponential(size=100).round(2))
        state, info = alarm.run(jax.random.fold_in(KEY, i), state, rng.exponential(size=500).round(2))
        false += int(info.alarm.sum())
        p.append(info.p_value)
        _, after = alarm.run(jax.random.fold_in(KEY, 100 + i), state, rng.exponential(size=50) + 3)
        late.append(int(np.argmax(after.alarm)))
        assert after.alarm.any()
    assert false <= 100 and np.mean(late) < 15
    # uniform, ties and all: 1e-3 for a right one
    assert stats.kstest(np.concatenate(p), "uniform").pvalue > 1e-3
    one, info = alarm.step(KEY, alarm.init([1.0]), 2.0)
    assert len(one.known) == 2 and info.p_value <= 0.5
    with pytest.raises(jg.DataError, match="calibrate"):
        alarm.init([])
