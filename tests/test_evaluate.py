"""The table of all measures: each row is what its own function says, and what cannot be asked is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen import metrics

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)


def test_a_density_is_asked_for_its_likelihood_and_its_samples():
    model = jg.StandardNormal((2,))
    found = metrics.evaluate(KEY, model, X)
    score = jg.score(KEY, model, X)
    assert found["log-likelihood"].value == pytest.approx(score.mean)
    assert found["bits per dimension"].value == pytest.approx(metrics.bits_per_dim(score, 2))
    assert found["Frechet"].value < 0.3 and np.isfinite(found["Frechet"].floor)
    assert found["recall"].floor > 0.5 and found["C2ST"].floor == 0.5
    assert len(str(found).splitlines()) == len(found.rows) + 2
    assert "Frechet" in found._repr_html_()
    with pytest.raises(jg.DataError, match="no such measure"):
        found["beauty"]


def test_no_draws_are_refused():
    with pytest.raises(jg.FitError, match="need a number"):
        metrics.evaluate(KEY, jg.StandardNormal((2,)), X, n=0)


def test_two_arrays_have_no_likelihood():
    found = metrics.evaluate(KEY, X + 3, X)
    assert found["Frechet"].value == pytest.approx(18, abs=0.1) and found["C2ST"].value > 0.9
    assert found["precision"].value < 0.3
    assert "neither a density" in found.skipped[0]


def test_symbols_have_a_perplexity_and_bounds_are_called_bounds():
    model = jg.Categorical.from_values(jnp.array([0.25, 0.25, 0.5]))
    x = np.array([0, 1, 2, 2] * 25)
    found = metrics.evaluate(KEY, model, x)
    assert found["perplexity"].value == pytest.approx(2**1.5, rel=1e-5)
    vae = jg.VAE.init(KEY, jnp.zeros((9, 2)), jg.StandardNormal((1,)), hidden=(4,))
    found = metrics.evaluate(KEY, vae, (X > 0).astype(np.float32))
    assert str(found["log-likelihood"].kind) == "lower bound" and str(found["bits"].kind) == "upper bound"


def test_what_cannot_be_drawn_is_said():
    line = jg.LinearRegression.from_values([[1.0]], [0.0], [[1.0]])
    found = metrics.evaluate(KEY, line, (X[:, :1], X[:, 1:]))
    assert [row.name.split(",")[0] for row in found.rows] == ["log-likelihood", "bits per dimension"]
    assert "contexts" in found.skipped[0]
