"""Divergences and information against closed forms and enumeration; blocks of columns; comparisons of models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen as jg
from jaxgen import tasks

KEY = jax.random.key(0)
A, B = np.array([[1.0, 0.6], [0.6, 2.0]]), np.array([[1.5, -0.2], [-0.2, 0.7]])
P, Q = jg.Gaussian.from_values(jnp.zeros(2), jnp.asarray(A)), jg.Gaussian.from_values(jnp.ones(2), jnp.asarray(B))
SAMPLES = 4096
#: four standard errors: one wrong alarm in 16,000
ERRORS = 4


def mixture(*models):
    return jg.Mixture.from_components(list(models))


def close(found, truth):
    assert found.kind == jg.Kind.ESTIMATE and 0 < found.standard_error < 0.1
    assert abs(found.mean - truth) < ERRORS * found.standard_error


def test_kl_is_exact_between_gaussians_and_estimated_else():
    truth = 0.5 * (np.trace(np.linalg.solve(B, A)) + np.ones(2) @ np.linalg.solve(B, np.ones(2)) - 2
                   + np.linalg.slogdet(B)[1] - np.linalg.slogdet(A)[1])  # fmt: skip
    exact = tasks.kl(KEY, P, Q)
    assert exact.kind == jg.Kind.EXACT and exact.mean == pytest.approx(truth, abs=1e-5)  # float32 parameters
    close(tasks.kl(KEY, mixture(P, P), Q, samples=SAMPLES), truth)
    diagonal = tasks.kl(KEY, jg.DiagonalGaussian.from_values(jnp.zeros(2), jnp.ones(2)), jg.StandardNormal((2,)))
    assert diagonal.kind == jg.Kind.EXACT and diagonal.mean == pytest.approx(0, abs=1e-6)


def test_columns_that_nearly_follow_from_each_other():
    """A covariance formed in float32 has lost the third digit of its determinant here, the whitener none."""
    whitener = np.array([[1.0, 0.0], [-812.0, 812.0]])
    raw = jnp.asarray([[0.0, 0.0], [-812.0, np.log(812.0)]], jnp.float32)
    tight = jg.Gaussian(jnp.zeros(2), raw, jnp.zeros(2), jnp.zeros(2))
    truth = 1 + np.log(2 * np.pi) - np.linalg.slogdet(whitener)[1]
    assert jg.entropy(KEY, tight).mean == pytest.approx(truth, abs=1e-6)
    assert tasks.kl(KEY, tight, tight).mean == pytest.approx(0, abs=1e-6)
    assert jg.entropy(KEY, jg.StandardNormal((256, 256, 3))).mean == pytest.approx(98304 * (1 + np.log(2 * np.pi)))


def test_kl_of_labels_is_scipys():
    p, q = np.array([[0.2, 0.3, 0.5], [0.1, 0.9, 0.0]]), np.array([[0.3, 0.3, 0.4], [0.3, 0.3, 0.4]])
    found = tasks.kl(KEY, jg.Categorical.from_values(p), jg.Categorical.from_values(q))
    assert found.mean == pytest.approx(stats.entropy(p, q, axis=1).sum(), abs=1e-5)
    bits = [jg.Bernoulli.from_values(jnp.array(v)) for v in ([0.2, 0.9], [0.5, 0.5])]
    truth = sum(stats.entropy([v, 1 - v], [0.5, 0.5]) for v in (0.2, 0.9))
    assert tasks.kl(KEY, *bits).mean == pytest.approx(truth, abs=1e-6)
    assert jg.entropy(KEY, bits[0]).mean == pytest.approx(sum(stats.entropy([v, 1 - v]) for v in (0.2, 0.9)), abs=1e-6)


def test_jensen_shannon_is_that_of_an_integral():
    one, other = (jg.Gaussian.from_values(jnp.full(1, m), jnp.eye(1)) for m in (0.0, 2.0))
    grid = np.linspace(-10, 12, 20001)
    p, q = stats.norm.pdf(grid), stats.norm.pdf(grid, 2)
    middle = (p + q) / 2
    truth = np.sum(p * np.log(p / middle) + q * np.log(q / middle)) / 2 * (grid[1] - grid[0])
    close(tasks.jensen_shannon(KEY, one, other, samples=SAMPLES), truth)
    assert tasks.jensen_shannon(KEY, one, one, samples=10).mean == pytest.approx(0, abs=1e-6)


def test_information_of_blocks():
    covariance = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.0], [0.2, 0.0, 2.0]])
    model = jg.Gaussian.from_values(jnp.zeros(3), jnp.asarray(covariance))
    volume = lambda *d: 0.5 * np.linalg.slogdet(covariance[np.ix_(d, d)])[1]  # noqa: E731
    shared, total = volume(0) + volume(1, 2) - volume(0, 1, 2), volume(0) + volume(1) + volume(2) - volume(0, 1, 2)
    assert tasks.shared_information(KEY, model, [0]).mean == pytest.approx(shared, abs=1e-5)
    assert tasks.multi_information(KEY, model).mean == pytest.approx(total, abs=1e-5)
    close(tasks.shared_information(KEY, mixture(model, model), [0], samples=SAMPLES), shared)
    close(tasks.multi_information(KEY, mixture(model, model), samples=SAMPLES), total)


def test_information_of_bits_is_that_of_their_table():
    """A mixture of two Bernoullis: four outcomes, enumerated."""
    probs = np.array([[0.1, 0.2], [0.9, 0.7]])
    model = jg.Mixture.from_components(jg.Bernoulli.from_values(jnp.asarray(probs)))
    table = sum(0.5 * np.outer([1 - a, a], [1 - b, b]) for a, b in probs)
    truth = np.sum(table * np.log(table / np.outer(table.sum(1), table.sum(0))))
    close(tasks.shared_information(KEY, model, [0], [1], samples=SAMPLES), truth)
    given = model.condition((0,), jnp.array([1]))
    assert float(jnp.exp(given.log_prob(jnp.array([1])))) == pytest.approx(table[1, 1] / table[1].sum(), rel=1e-5)


@pytest.mark.parametrize("model", [
    jg.Bernoulli.from_values(jnp.array([0.2, 0.5, 0.9])), jg.Poisson.from_values(jnp.array([1.0, 2.0, 3.0])),
    jg.Categorical.from_values(jnp.array([[0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])),
], ids=lambda m: type(m).__name__)  # fmt: skip
def test_independent_columns_have_marginals(model):
    x = jnp.array([[0, 1, 1], [1, 0, 1]])
    part, rest = model.marginal((2, 0)), model.condition((2, 0), jnp.array([1, 0]))
    together = part.log_prob(x[:, jnp.array([2, 0])]) + rest.log_prob(x[:, 1:2])
    np.testing.assert_allclose(together, model.log_prob(x), rtol=1e-5)
    with pytest.raises(jg.ModelError, match="coordinates"):
        model.marginal((3,))


def test_refusals():
    with pytest.raises(jg.ModelError, match="marginals"):
        tasks.multi_information(KEY, jg.StudentT.from_values(jnp.zeros(2), jnp.eye(2), 5.0))
    with pytest.raises(jg.ModelError, match="no column"):
        tasks.shared_information(KEY, P, [0], [0, 1])
    with pytest.raises(jg.ShapeError, match="different events"):
        tasks.kl(KEY, P, jg.StandardNormal((3,)))
    chain = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jg.Bernoulli.from_values([0.1, 0.8]))
    with pytest.raises(jg.ShapeError, match="different events"):
        tasks.kl(KEY, chain, P)
    with pytest.raises(jg.FitError, match="draws"):
        tasks.kl(KEY, P, Q, samples=1)


def test_compare_is_paired():
    x = np.asarray(jg.data.old_faithful().values)
    starts = {
        "one": jg.Gaussian.init, "diagonal": jg.DiagonalGaussian.init,
        "two": lambda key, x: (jg.Mixture.init(key, x, 2, jg.Gaussian.init), jg.EM()),
    }  # fmt: skip
    found = tasks.compare(KEY, starts, x, folds=4)
    assert [row.name for row in found.rows] == ["two", "one", "diagonal"]
    assert all(len(values) == len(x) for values in found.nats.values())
    test = stats.ttest_rel(found.nats["two"], found.nats["one"])
    assert found.rows[1].p_value == pytest.approx(test.pvalue, rel=1e-6)
    assert found.rows[1].difference == pytest.approx(found.rows[0].mean - found.rows[1].mean)
    assert "behind the best" in str(found) and "<table>" in found._repr_html_()
    ax = jg.plot.comparison(found)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["two", "one", "diagonal"]
    # the held-out events are those that each fit did not see: one Gaussian by hand
    again = tasks.compare(KEY, {"one": jg.Gaussian.init}, x, folds=len(x) // 2, steps=1).nats["one"]
    order, by_hand = np.arange(len(x)), []
    by_hand = [stats.multivariate_normal.logpdf(x[i], np.delete(x, i, 0).mean(0), np.cov(np.delete(x, i, 0).T))
               for i in order]  # fmt: skip
    np.testing.assert_allclose(again.mean(), np.mean(by_hand), atol=0.02)  # pairs left out, not single events
    with pytest.raises(jg.FitError, match="nothing to compare"):
        tasks.compare(KEY, {}, x)
