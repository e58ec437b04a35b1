"""Stepwise EM against Cappe and Moulines, and what it refuses."""

import itertools

import jax
import numpy as np
import pytest
from streams import KEY, LABELS, WEIGHT, X, close, mixture, refused

import jaxgen as jg


def reference(batches, decay, offset):
    """Cappe and Moulines in numpy, on raw moments, for the mixture of this file."""
    weights, means, variances = np.full(2, 0.5), np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2))
    average, likelihood = None, []
    for t, x in enumerate(batches):
        x = x.astype(np.float64)
        log_p = np.log(weights) - 0.5 * (
            ((x[:, None] - means) ** 2 / variances).sum(-1) + np.log(2 * np.pi * variances).sum(-1)
        )
        total = np.log(np.exp(log_p).sum(1))
        likelihood.append(total.mean())
        r = np.exp(log_p - total[:, None])
        s = [r.sum(0) / len(x), r.T @ x / len(x), r.T @ x**2 / len(x)]
        rate = 1.0 if t == 0 else (t + offset) ** -decay
        average = s if average is None else [(1 - rate) * a + rate * b for a, b in zip(average, s, strict=True)]
        weights, means = average[0] / average[0].sum(), average[1] / average[0][:, None]
        variances = average[2] / average[0][:, None] - means**2
    return weights, means, variances, likelihood


@pytest.mark.parametrize(("decay", "offset"), [(0.7, 2.0), (1.0, 1.0)])
def test_stepwise_em_is_cappe_and_moulines(decay, offset):
    batches = [X[i : i + size] for i, size in zip(range(0, 600, 50), itertools.cycle([50, 30]), strict=False)]
    expected = reference(batches, decay, offset)
    fitted = jg.fit(KEY, mixture(), iter(batches), jg.StepwiseEM(decay, offset), steps=99)
    assert fitted.status is jg.Status.EXHAUSTED
    assert fitted.steps == len(batches) == int(fitted.state.steps)
    # float32 against float64, over 12 steps
    np.testing.assert_allclose(fitted.history["log_likelihood"], expected[3], rtol=1e-4)
    np.testing.assert_allclose(fitted.model.weights, expected[0], rtol=1e-4)
    np.testing.assert_allclose(fitted.model.components.mean, expected[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.model.components.scale**2, expected[2], rtol=1e-3)
    assert fitted.history["repaired"].sum() == 0


def test_a_full_gaussian_does_not_drift_from_its_statistics():
    """Moments around a mean that moves are those around the new mean: a batch of all data makes EM's own step."""
    means = np.float32([[-1.0, 0.0], [1.0, 0.0]])
    start = jg.Mixture.from_components(jg.Gaussian.from_values(means, np.stack([np.eye(2, dtype=np.float32)] * 2)))
    fitted = jg.fit(KEY, start, iter([X] * 6), jg.StepwiseEM(), steps=6)
    count = fitted.state.statistics.weight
    assert abs(float(count.sum()) - 1) < 1e-5, "per unit of weight"
    moments = fitted.state.statistics.components
    # the average lags behind, but around its own mean its first moment is zero
    np.testing.assert_allclose(moments.first, 0, atol=1e-5)
    covariance = moments.second / moments.weight[:, None, None]
    np.testing.assert_allclose(covariance, fitted.model.components.covariance, rtol=1e-3, atol=1e-4)


def test_the_first_step_is_an_em_step_on_the_batch():
    batch = (X[:88], None, WEIGHT[:88])
    one = jg.fit(KEY, mixture(), batch, jg.EM(), steps=1)
    first = jg.fit(KEY, mixture(), iter([batch]), jg.StepwiseEM(), steps=1)
    close(first.model, one.model, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.history["log_likelihood"], one.history["log_likelihood"], rtol=1e-6)
    assert float(first.state.events) == pytest.approx(WEIGHT[:88].sum())


def test_a_few_passes_come_close_to_em():
    best = jg.fit(KEY, mixture(), X, jg.EM()).model.log_prob(X).mean()
    fitted = jg.fit(KEY, mixture(), X, jg.StepwiseEM(), steps=60, batch_size=88)
    # a parameter costs about 1 / 2 n nats, here of n = 60^0.7 batches, 2 n of worth: 9 of them are 2e-3
    assert float(best - fitted.model.log_prob(X).mean()) < 5e-3


def test_statistics_stand_for_a_number_of_events():
    """With a prior, and all data in each batch, the fixed point is EM's own only if n is the number of events."""
    prior = 5.0
    start = jg.Categorical.from_values(np.full((2, 3), 1 / 3, np.float32), prior=prior)
    share = np.stack([np.bincount(c, minlength=3) for c in LABELS[:40].T]) / 40
    batches = [LABELS[:40]] * 8
    told = jg.fit(KEY, start, iter(batches), jg.StepwiseEM(events=40), steps=8).model
    np.testing.assert_allclose(told.probs, (40 * share + prior - 1) / (40 + 3 * (prior - 1)), rtol=1e-5)
    worth = jg.fit(KEY, start, iter(batches), jg.StepwiseEM(), steps=8)
    n = 40.0
    for t in range(1, 8):
        rate = (t + 2) ** -0.7
        n = 1 / ((1 - rate) ** 2 / n + rate**2 / 40)
    np.testing.assert_allclose(float(worth.state.events), n, rtol=1e-5)
    expected = (n * share + prior - 1) / (n + 3 * (prior - 1))
    np.testing.assert_allclose(worth.model.probs, expected, rtol=1e-5)


def test_frozen_stays():
    how = jg.StepwiseEM(frozen={"components.offset": True})
    start = mixture()
    fitted = jg.fit(KEY, start, X, how, steps=10, batch_size=88)
    np.testing.assert_array_equal(fitted.model.components.offset, start.components.offset)
    assert not np.array_equal(fitted.model.logits, start.logits)


def test_stepwise_is_pure():
    run = jax.jit(jax.vmap(lambda key: jg.scan_fit(key, mixture(), X, jg.StepwiseEM(), steps=5, batch_size=100)))
    assert run(jax.random.split(KEY, 2)).history["log_likelihood"].shape == (2, 5)
    assert jg.StepwiseEM(0.7) == jg.StepwiseEM()


def test_stepwise_on_sequences_of_a_free_length():
    coins = jg.Categorical.from_values([[0.8, 0.2], [0.3, 0.7]])
    start = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], coins)
    x = np.random.default_rng(2).integers(0, 2, (60, 5))
    fitted = jg.fit(KEY, start, x, jg.StepwiseEM(), steps=6, batch_size=20)
    assert fitted.status is jg.Status.FINISHED
    assert np.isfinite(fitted.history["log_likelihood"]).all()


@pytest.mark.parametrize("options", [
    {"decay": 0.5}, {"decay": 1.1}, {"decay": "fast"}, {"offset": 0.5}, {"events": 0}, {"events": float("inf")},
    {"decay": float("nan")},
])  # fmt: skip
def test_options_of_stepwise_em_out_of_range(options):
    refused(lambda: jg.fit(KEY, mixture(), X, jg.StepwiseEM(**options)), "out of range", kind=jg.FitError)


def test_models_without_an_e_step():
    flow = jg.recipes.realnvp(KEY, X, layers=2, features=(4,))[0]
    refused(lambda: jg.fit(KEY, flow, X, jg.StepwiseEM()), "EM does not apply", kind=jg.FitError)
