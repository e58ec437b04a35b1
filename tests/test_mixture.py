"""Mixtures and Gaussian leaves against scikit-learn and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.mixture import GaussianMixture

import jaxgen as jg
from jaxgen.core import algebra

K, D, STEPS = 4, 3, 20
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(150, D)) @ rng.normal(size=(D, D)) + 4 * rng.normal(size=D) for _ in range(K)]
    return np.concatenate(parts).astype(np.float32)


def start(x, kind, dtype):
    means = np.asarray(x[np.random.default_rng(1).choice(len(x), K, replace=False)], dtype)
    covariance = np.cov(np.asarray(x, np.float64).T)
    if kind == "full":
        leaf = jg.Gaussian.from_values(means, np.stack([covariance] * K).astype(dtype), floor=0.0)
        return jg.Mixture.from_components(leaf), means, np.stack([np.linalg.inv(covariance)] * K)
    scale = np.stack([np.sqrt(np.diag(covariance))] * K)
    leaf = jg.DiagonalGaussian.from_values(means, scale.astype(dtype), floor=0.0)
    return jg.Mixture.from_components(leaf), means, scale**-2


def scikit_learn(x, kind, means, precisions):
    """Log-likelihood per event before each of STEPS iterations, float64, and the parameters after them."""
    x = np.asarray(x, np.float64)
    peer = GaussianMixture(
        K, covariance_type=kind, weights_init=np.full(K, 1 / K), means_init=np.asarray(means, np.float64),
        precisions_init=precisions, reg_covar=0.0,
    )  # fmt: skip
    peer._initialize_parameters(x, np.random.RandomState(0))
    history = []
    for _ in range(STEPS):
        log_likelihood, log_resp = peer._e_step(x)
        history.append(log_likelihood)
        peer._m_step(x, log_resp)
    return np.array(history), peer


@pytest.mark.parametrize("kind", ["full", "diag"])
# the bounds: rounding of float64, and 1e-5 nats for float32 on the same float32 data
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_equals_scikit_learn_step_by_step(x, kind, dtype, bound):
    with jax.enable_x64(dtype == np.float64):
        model, means, precisions = start(x, kind, dtype)
        fitted = jg.fit(jax.random.key(0), model, x.astype(dtype), jg.EM(), steps=STEPS, tolerance=0.0)
        expected, peer = scikit_learn(x, kind, means, precisions)
        assert fitted.history["log_likelihood"].dtype == dtype
        np.testing.assert_allclose(fitted.history["log_likelihood"], expected, rtol=0, atol=bound)
        np.testing.assert_allclose(fitted.model.weights, peer.weights_, atol=30 * bound)
        posterior = np.exp(peer._estimate_log_prob_resp(np.asarray(x, np.float64))[1])
        np.testing.assert_allclose(fitted.model.responsibilities(x.astype(dtype)), posterior, atol=1e-3)


def test_chunks_change_nothing(x):
    model, *_ = start(x, "full", np.float32)
    whole = jg.fit(jax.random.key(0), model, x, jg.EM(chunk=10_000), steps=5, tolerance=0.0)
    parts = jg.fit(jax.random.key(0), model, x, jg.EM(chunk=70), steps=5, tolerance=0.0)  # 600 = 8 * 70 + 40
    # float32 sums in another order
    np.testing.assert_allclose(whole.history["log_likelihood"], parts.history["log_likelihood"], atol=3e-6)
    np.testing.assert_allclose(whole.model.components.mean, parts.model.components.mean, atol=1e-3)


def test_weight_two_is_the_row_twice(x):
    model, *_ = start(x, "full", np.float32)
    weight = np.ones(len(x), np.float32)
    weight[:100], weight[100:200] = 2, 0
    weighted = jg.fit(jax.random.key(0), model, {"x": x, "weight": weight}, steps=5, tolerance=0.0)
    repeated = np.concatenate([x[:100], x[:100], x[200:]])
    plain = jg.fit(jax.random.key(0), model, repeated, steps=5, tolerance=0.0)
    # float32
    np.testing.assert_allclose(weighted.history["log_likelihood"], plain.history["log_likelihood"], atol=1e-5)


def test_log_prob_equals_scipy(x):
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(D, D))
    mean, covariance = rng.normal(size=D), factor @ factor.T + np.eye(D)
    expected = scipy.stats.multivariate_normal(mean, covariance).logpdf(x[:50])
    got = jg.Gaussian.from_values(mean, covariance).log_prob(x[:50])
    np.testing.assert_allclose(got, expected, rtol=3e-6)  # float32, values up to 50 nats
    scale = np.exp(rng.normal(size=D))
    expected = scipy.stats.norm(mean, scale).logpdf(x[:50]).sum(axis=1)
    np.testing.assert_allclose(jg.DiagonalGaussian.from_values(mean, scale).log_prob(x[:50]), expected, rtol=3e-6)


def test_far_from_the_origin(x):
    """Data moved by 1e4 lose digits of their own; scoring and EM add no error to that."""
    moved = x + np.float32(1e4)
    model, means, precisions = start(moved, "full", np.float32)
    fitted = jg.fit(jax.random.key(0), model, moved, jg.EM(), steps=STEPS, tolerance=0.0)
    expected, _ = scikit_learn(moved, "full", means, precisions)
    np.testing.assert_allclose(fitted.history["log_likelihood"], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("leaf", [jg.Gaussian, jg.DiagonalGaussian])
@pytest.mark.parametrize(
    "data",
    [
        np.ones((20, 2)),  # all events the same
        np.repeat(np.eye(2), 10, axis=0),  # fewer distinct points than components
        np.column_stack([np.arange(20.0), np.full(20, 3.0)]),  # a constant column
        np.array([[1.0, 2.0]] * 3),
        np.concatenate([np.zeros((10, 2)), np.full((10, 2), 1e6)]),  # far apart
    ],
    ids=["constant", "two points", "constant column", "three rows", "far apart"],
)
def test_degenerate_data_stay_finite_and_monotone(leaf, data):
    data = data.astype(np.float32)
    model = jg.Mixture.init(jax.random.key(0), data, 3, leaf.init)
    fitted = jg.fit(jax.random.key(1), model, data, steps=30, tolerance=0.0)
    assert fitted.status == jg.Status.FINISHED
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fitted.model))
    history = fitted.history["log_likelihood"]
    # the floor on variances is a prior in all but name, so a step may lose a little of the bare likelihood
    assert (np.diff(history) >= -1e-4 * np.maximum(1, np.abs(history[1:]))).all(), history


def test_a_dead_component_is_repaired_and_counted():
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    leaf = jg.Gaussian.from_values([[0.0, 0.0], [1e4, 1e4]], np.stack([np.eye(2)] * 2))
    fitted = jg.fit(jax.random.key(0), jg.Mixture.from_components(leaf), x, steps=3, tolerance=0.0)
    assert (fitted.history["repaired"] == 1).all()
    np.testing.assert_array_equal(fitted.model.components.mean[1], [1e4, 1e4])
    assert np.isfinite(fitted.history["log_likelihood"]).all()


def test_samples_come_from_the_components():
    leaf = jg.DiagonalGaussian.from_values([[0.0], [100.0]], [[1.0], [1.0]])
    mixture = jg.Mixture.from_components(leaf, [0.25, 0.75])
    x = mixture.sample(jax.random.key(0), (4000,))
    assert x.shape == (4000, 1)
    assert abs(float((x > 50).mean()) - 0.75) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    np.testing.assert_array_equal(mixture.predict(x), (x[:, 0] > 50).astype(int))


def test_large_components_are_not_gathered_per_sample():
    """Sampling a mixture of large models draws from each of them instead of copying parameters per event."""
    wide = jg.Gaussian.from_values(np.zeros((2, 80)), np.stack([np.eye(80), 4 * np.eye(80)]))
    mixture = jg.Mixture.from_components(wide)
    x = mixture.sample(jax.random.key(0), (2000,))
    variances = np.asarray(x).var(axis=1)
    assert (variances < 2.5).mean() == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)


def test_distrax_agrees():
    leaf = jg.DiagonalGaussian.from_values([[0.0, 1.0], [5.0, 2.0]], [[1.0, 2.0], [0.5, 1.0]])
    mixture = jg.Mixture.from_components(leaf, [0.3, 0.7])
    x = jnp.array([[0.0, 0.0], [5.0, 2.0]])
    np.testing.assert_allclose(mixture.distribution().log_prob(x), mixture.log_prob(x))
    for one in (algebra.take(leaf, 1), jg.Gaussian.from_values([0.0, 1.0], [[2.0, 0.3], [0.3, 1.0]])):
        np.testing.assert_allclose(one.distribution().log_prob(x), one.log_prob(x), rtol=1e-5)
        assert one.distribution().sample(seed=jax.random.key(0)).shape == (2,)


def test_start_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [20, 0], [0, 20], [20, 20]])
    x = (centers[rng.integers(0, 4, 400)] + rng.normal(size=(400, 2))).astype(np.float32)
    fitted = jg.fit(jax.random.key(0), lambda k: jg.Mixture.init(k, x, 4, jg.Gaussian.init), x, restarts=4)
    found = np.asarray(fitted.model.components.mean)
    assert sorted(map(tuple, found.round(-1).astype(int))) == sorted(map(tuple, centers))
    assert fitted.scores.max() == fitted.scores[int(np.argmax(fitted.scores))]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: jg.Mixture.init(jax.random.key(0), x, 0, jg.Gaussian.init), jg.ModelError, "1 to 600"),
        (lambda x: jg.Mixture.init(jax.random.key(0), x, 601, jg.Gaussian.init), jg.ModelError, "1 to 600"),
        (lambda x: jg.Mixture.init(jax.random.key(0), [], 1, jg.Gaussian.init), jg.DataError, "empty"),
        (lambda x: jg.Mixture.init(jax.random.key(0), x * np.nan, 2, jg.Gaussian.init), jg.DataError, "NaN"),
        (lambda x: jg.Gaussian.from_values([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), jg.ModelError, "positive def"),
        (lambda x: jg.Gaussian.from_values([0.0, 0.0], np.eye(3)), jg.ModelError, "fit the mean"),
        (lambda x: jg.DiagonalGaussian.from_values([0.0], [-1.0]), jg.ModelError, "positive"),
        (lambda x: jg.Mixture.from_components(jg.DiagonalGaussian.from_values([[0.0]], [[1.0]]), [-1.0]), jg.ModelError, "no probabilities"),  # noqa: E501
        (lambda x: jg.DiagonalGaussian.from_values([0.0], [1.0]).log_prob(x), jg.ShapeError, "does not end"),
        (lambda x: jg.Gaussian.from_values([0.0], [[1.0]]).e_step(x[:, :1], np.ones(3)), jg.ShapeError, "weight"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(x, call, error, words):
    with pytest.raises(error, match=words):
        call(x)


def test_weights_sum_to_one_or_are_refused():
    """Unnormalised weights were a mixture of others than the caller wrote, without a word."""
    leaf = jg.Poisson.from_values([1.0, 2.0, 3.0])
    make = jg.Mixture.from_components
    for weights, fix in (
        (np.array([1.0, 2.0, 1.0]), "weights / weights.sum(-1, keepdims=True)"),
        (jnp.array([0.2, 0.3, 0.4]), "weights / weights.sum(-1, keepdims=True)"),
        ([2, 1, 1], "np.asarray(weights) / np.asarray(weights).sum(-1, keepdims=True)"),
        (np.log([0.2, 0.3, 0.5]), "jax.nn.softmax(weights)"),
    ):
        with pytest.raises(jg.ModelError, match="no probabilities") as caught:
            make(leaf, weights)
        assert fix in str(caught.value)
        assert make(leaf, eval(fix, {"np": np, "jax": jax, "weights": weights})).weights.shape == (3,)  # noqa: S307
    for weights in ([0.2, 0.3, 0.5], np.float32([0.2, 0.3, 0.5]), np.float16([0.2, 0.3, 0.5]), [0.33333] * 3):
        np.testing.assert_allclose(make(leaf, weights).weights, np.divide(weights, np.sum(weights)), rtol=1e-6)
    np.testing.assert_allclose(make(leaf).weights, 1 / 3, rtol=1e-6)
    with pytest.raises(jg.ModelError, match="another shape"):
        make(leaf, [0.5, 0.5])
    jax.jit(lambda w: make(leaf, w).weights)(jnp.ones(3) / 3)


REFUSED = {
    "events": (lambda: [*map(jg.Poisson.from_values, ([1.0], [1.0, 2.0]))], "[1] (model 0), [2] (model 1)"),
    "none": (lambda: [], "no models"),
    "no parameters": (lambda: jg.StandardNormal((2,)), "no batch of models"),
    "one model": (lambda: jg.Poisson.from_values(1.0), "no batch of models"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_batch_of_components_is_refused_in_words(name):
    make, words = REFUSED[name]
    move = np.full((2, 2), 0.5)
    for build in (
        jg.Mixture.from_components, lambda parts: jg.HMM.from_values([0.5, 0.5], move, parts),
        jg.VariationalMixture.from_components, algebra.stack,
    ):  # fmt: skip
        parts = make()
        if build is algebra.stack and not isinstance(parts, list):
            continue
        with pytest.raises(jg.ModelError, match="expected:") as caught:
            build(parts)
        assert words in str(caught.value), str(caught.value)
        assert "fix:" in str(caught.value)
