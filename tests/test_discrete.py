"""Categorical, Bernoulli and Poisson leaves against scipy, closed forms and their own defaults."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError
from jaxgen.models.densities.bernoulli import Bernoulli
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.poisson import Poisson
from jaxgen.models.latent.mixture import Mixture

RNG = np.random.RandomState(0)
LABELS = RNG.randint(0, 4, (200, 2))
COMPONENTS = {
    "categorical": (lambda dtype: Categorical(jnp.asarray(RNG.randn(3, 4), dtype)), LABELS[:, 0]),
    "categorical columns": (lambda dtype: Categorical(jnp.asarray(RNG.randn(3, 2, 4), dtype)), LABELS),
    "bernoulli": (lambda dtype: Bernoulli(jnp.asarray(3 * RNG.randn(3, 2), dtype)), LABELS // 2),
    "poisson": (lambda dtype: Poisson(jnp.asarray(RNG.randn(3, 2), dtype)), LABELS),
    # more coordinates than the mapped path takes: the matrix product
    "poisson wide": (lambda dtype: Poisson(jnp.asarray(RNG.randn(3, 12), dtype)), RNG.poisson(3, (200, 12))),
}
# two groups of events that differ in every coordinate
GROUPS = RNG.binomial(3, np.where(np.arange(200) < 80, 0.15, 0.8)[:, None], (200, 4))
LEAVES = {
    "categorical": (functools.partial(Categorical.init, size=4), GROUPS),
    "bernoulli": (Bernoulli.init, GROUPS // 2),
    "poisson": (Poisson.init, GROUPS),
}
matrices = jax.jit(lambda models, x: (algebra.component_log_prob(models, x), algebra.default_log_prob(models, x)))
sums = jax.jit(lambda models, x, weight: (algebra.component_e_step(models, x, weight),
                                          algebra.default_e_step(models, x, weight)))  # fmt: skip
em = jax.jit(lambda model, x, weight: model.maximize(model.e_step(x, weight)[0]))
cases = pytest.mark.parametrize("name", COMPONENTS)


def build(name, dtype=jnp.float32):
    make, x = COMPONENTS[name]
    return make(dtype), jnp.asarray(x)


def peer(model, x):
    """`[N]` in float64 from scipy, at the parameters that the model holds."""
    x = np.asarray(x, np.float64)
    if isinstance(model, Poisson):
        return scipy.stats.poisson(np.exp(np.asarray(model.log_rate, np.float64))).logpmf(x).sum(-1)
    logits = np.asarray(model.logits, np.float64)
    if isinstance(model, Bernoulli):
        return scipy.stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(x).sum(-1)
    log_p = np.log(scipy.special.softmax(logits, -1)).reshape(-1, logits.shape[-1])
    labels = x.reshape(len(x), -1).astype(int)
    return sum(log_p[c][labels[:, c]] for c in range(len(log_p)))


@cases
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_prob_and_its_override_equal_scipy(name, dtype):
    with jax.enable_x64(dtype == np.float64):
        models, x = build(name, dtype)
        matrix, mapped = matrices(models, x)
    # a float32 sum of a dozen terms of size ten; in float64 the peer's own rounding
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    assert matrix.dtype == mapped.dtype == dtype
    for k in range(3):
        expected = peer(algebra.take(models, k), x)
        np.testing.assert_allclose(mapped[k], expected, atol=tolerance)
        np.testing.assert_allclose(matrix[k], expected, atol=tolerance)


@cases
def test_e_step_is_the_override_and_additive_and_linear(name):
    models, x = build(name)
    weight = jnp.asarray(RNG.rand(3, len(x)), jnp.float32)
    statistics, mapped = sums(models, x, weight)
    early = jnp.arange(len(x)) < 70
    one, other = (sums(models, x, jnp.where(rows, 2 * weight, 0))[0] for rows in (early, ~early))
    for leaf, default, a, b in zip(*map(jax.tree.leaves, (statistics, mapped, one, other)), strict=True):
        np.testing.assert_allclose(leaf, default, rtol=1e-5)  # sums of 200 float32 terms in another order
        np.testing.assert_allclose(2 * leaf, a + b, rtol=1e-5)


@cases
def test_m_step_gives_weighted_frequencies(name):
    models, x = build(name)
    model = algebra.take(models, 0)
    weight = RNG.rand(len(x)).astype(np.float32)
    new = em(model, x, weight)[0]
    mean = lambda values: np.tensordot(weight / weight.sum(), np.asarray(values, np.float64), 1)  # noqa: E731
    if isinstance(model, Poisson):
        np.testing.assert_allclose(new.rate, mean(x), rtol=1e-5)
    elif isinstance(model, Bernoulli):
        np.testing.assert_allclose(new.probs, mean(x), rtol=1e-5)
    else:
        np.testing.assert_allclose(new.probs, mean(np.eye(4)[np.asarray(x)]), rtol=1e-5)


def test_prior_gives_the_posterior_mode():
    # modes of the conjugate posteriors: Dirichlet(4, 3, 2), Beta(6, 2), Gamma(shape 7, rate 5)
    labels = Categorical.init(jax.random.key(0), [0, 0, 1], size=3, prior=2.0)
    np.testing.assert_allclose(labels.probs, [3 / 6, 2 / 6, 1 / 6], rtol=1e-6)
    coin = Bernoulli.init(jax.random.key(0), [[1], [1]], prior=[4.0, 2.0])
    np.testing.assert_allclose(coin.probs, [5 / 6], rtol=1e-6)
    counts = Poisson.init(jax.random.key(0), [[1], [2]], prior=[4.0, 3.0])
    np.testing.assert_allclose(counts.rate, [6 / 5], rtol=1e-6)
    assert not any(jax.tree.leaves(jg.core.pytree.trainable(counts).prior))


def test_outside_the_support_is_impossible_and_nan_stays():
    nan, inf = float("nan"), float("inf")
    for model, values, inside in (
        (Categorical(jnp.zeros(3)), [0, 2, 3, -1, 0.5, inf, -inf, nan], 2),
        (Bernoulli(jnp.zeros(())), [0, 1, 2, -1, 0.5, inf, -inf, nan], 2),
        (Poisson(jnp.zeros(())), [0, 7, 0.5, -1, -0.5, inf, -inf, nan], 2),
    ):
        x = jnp.array(values)
        for log_prob in (parts[1] for parts in matrices(algebra.repeat(model, 2), x)):
            assert np.isfinite(log_prob[:inside]).all()
            assert np.isneginf(log_prob[inside:-1]).all()
            assert np.isnan(log_prob[-1])
    counts = sums(Categorical(jnp.zeros((2, 3))), jnp.array([0, 2, 3, -1]), jnp.ones((2, 4)))
    assert all(part.tolist() == [[1, 0, 1]] * 2 for part in counts)


def test_events_of_any_dtype_score_alike():
    x = np.array([[0, 1], [1, 1]])
    for model in (Categorical(jnp.zeros((2, 3))), Bernoulli(jnp.ones(2)), Poisson(jnp.ones(2))):
        expected = model.log_prob(x)
        for dtype in (np.uint8, np.float32, bool):
            assert np.array_equal(model.log_prob(x.astype(dtype)), expected)


def test_probabilities_sum_to_one():
    assert np.isclose(jnp.exp(Categorical(jnp.array([0.0, 1.0, -jnp.inf])).log_prob(jnp.arange(3))).sum(), 1)
    pairs = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert np.isclose(jnp.exp(Bernoulli(jnp.array([3.0, -1.0])).log_prob(pairs)).sum(), 1)
    assert np.isclose(jnp.exp(Poisson.from_values(5.0).log_prob(jnp.arange(60))).sum(), 1)


@pytest.mark.parametrize("rate", [0.01, 1.0, 15.7, 1e3, 1e5])
def test_poisson_keeps_its_digits_at_large_counts(rate):
    x = RNG.poisson(rate, 200)
    model = Poisson.from_values(np.float32(rate))
    expected = peer(model, x[:, None])
    # the rate itself is rounded in its logarithm: |x - rate| times that, with |x - rate| of the size of the root
    tolerance = 5e-6 + 6 * np.sqrt(rate) * 6e-8 * max(1.0, abs(np.log(rate)))
    np.testing.assert_allclose(model.log_prob(x), expected, atol=tolerance)


def test_empty_counts_stay_finite_and_exact_zeros_stay_zero():
    x = jnp.array([[0, 0], [1, 0], [1, 0]])
    for model in (Categorical(jnp.zeros((2, 3))), Bernoulli(jnp.zeros(2)), Poisson(jnp.zeros(2))):
        new, _ = em(model, x, jnp.ones(3))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
        assert np.isfinite(new.log_prob(jnp.array([1, 1])))
        # and the likelihood of what was seen is that of the exact maximum
        exact = {Categorical: np.log(1 / 3), Bernoulli: np.log(1 / 3), Poisson: -2 / 3}[type(new)]
        np.testing.assert_allclose(new.log_prob(x[0]), exact, rtol=1e-6)
    die = Categorical.from_values([0.5, 0.5, 0.0])
    assert em(die, jnp.array([0, 1, 1]), jnp.ones(3))[0].logits[2] == -jnp.inf
    assert Categorical.from_values([0.0, 1.0]).log_prob(0) == -jnp.inf
    assert all(np.isfinite(Bernoulli.from_values([0.0, 1.0]).logits))
    assert np.isfinite(Poisson.from_values(0.0).log_rate)


def test_no_mass_keeps_the_parameters_and_is_counted():
    for name in ("categorical columns", "bernoulli", "poisson"):
        models, x = build(name)
        model = algebra.take(models, 0)
        kept, repairs = em(model, x, np.zeros(len(x), np.float32))
        assert jax.tree.all(jax.tree.map(np.array_equal, kept, model))
        assert int(repairs) == 1
        assert int(em(model, x, np.ones(len(x), np.float32))[1]) == 0


@pytest.mark.parametrize("name", LEAVES)
def test_mixture_improves_at_every_step(name):
    leaf, x = LEAVES[name]
    start = Mixture.init(jax.random.key(0), x, 2, leaf)
    fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=30, tolerance=0.0)
    values = fitted.history["log_likelihood"]
    assert np.diff(values).min() > -1e-6  # nats per event, float32 rounding of values near 5
    assert values[-1] > values[0] + 1e-4
    assert fitted.history["repaired"].sum() == 0
    label = np.asarray(fitted.model.predict(x))
    assert max(np.mean(label[:80] == k) + np.mean(label[80:] != k) for k in (0, 1)) > 1.8


@pytest.mark.parametrize("name", ["categorical columns", "bernoulli", "poisson"])
def test_samples_follow_the_parameters(name):
    models, _ = build(name)
    model = algebra.take(models, 1)
    draws = model.sample(jax.random.key(0), (4000,))
    assert draws.dtype == jnp.int32
    if isinstance(model, Categorical):
        draws, p = np.eye(4)[np.asarray(draws)], np.asarray(model.probs)
    else:
        p = np.asarray(model.rate if isinstance(model, Poisson) else model.probs)
    draws, variance = np.asarray(draws), p if isinstance(model, Poisson) else p * (1 - p)
    assert (np.abs(draws.mean(0) - p) < 5 * np.sqrt(variance / 4000)).all()  # five standard errors
    assert (np.abs(draws.var(0) - variance) < 0.2 * variance + 0.01).all()


@pytest.mark.parametrize("name", ["categorical columns", "bernoulli", "poisson"])
def test_distribution_agrees(name):
    models, x = build(name)
    model = algebra.take(models, 0)
    distribution = model.distribution()
    assert distribution.event_shape == model.event_shape
    # two float32 forms of the same few terms
    np.testing.assert_allclose(distribution.log_prob(x[:10]), model.log_prob(x[:10]), atol=2e-6)


def test_gradients_are_finite_at_hard_zeros_and_impossible_events():
    def total(model, x):
        log_prob = model.log_prob(x)
        return jnp.sum(jnp.where(log_prob > -jnp.inf, log_prob, 0))

    for model in (
        Categorical(jnp.array([0.0, -jnp.inf, 1.0])), Bernoulli(jnp.array(80.0)), Poisson(jnp.array(-40.0)),
    ):  # fmt: skip
        gradient = jax.grad(total)(model, jnp.array([0, 1, 2, -1, 5]))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), type(model)


def test_init_and_from_values_refuse_nonsense():
    key = jax.random.key(0)
    for init, bad in (
        (functools.partial(Categorical.init, size=2), [2]), (Categorical.init, [0, -1]), (Categorical.init, [0.5, 1]),
        (Bernoulli.init, [0, 2]), (Bernoulli.init, [0.5]), (Poisson.init, [-1, 2]), (Poisson.init, [1.5]),
        (Poisson.init, [float("nan")]), (Bernoulli.init, []), (Poisson.init, ["a"]),
    ):  # fmt: skip
        with pytest.raises(DataError, match="expected"):
            init(key, bad)
    with pytest.raises(ModelError, match=r"functools.partial\(jaxgen.Categorical.init, size=n\)"):
        Mixture.init(key, LABELS, 2, Categorical.init)
    for build_bad in (
        lambda: Categorical.from_values([0.5, 0.6]), lambda: Categorical.from_values([-0.5, 1.5]),
        lambda: Bernoulli.from_values([1.5]), lambda: Poisson.from_values([-1.0]),
    ):  # fmt: skip
        with pytest.raises(ModelError, match="expected"):
            build_bad()


def test_dtype_is_kept():
    def step(leaf, x):
        model = leaf(jax.random.key(0), x)
        statistics, log_prob = model.e_step(x)
        return model.m_step(statistics), log_prob

    with jax.enable_x64(True):
        for leaf, x in LEAVES.values():
            for dtype, expected in ((np.uint8, np.float64), (np.float64, np.float64), (np.float32, np.float32)):
                leaves = jax.tree.leaves(jax.eval_shape(functools.partial(step, leaf), x.astype(dtype)))
                assert {leaf.dtype for leaf in leaves} == {np.dtype(expected)}
        small = Poisson(jnp.zeros(4, jnp.float32))
        assert jax.eval_shape(lambda x: small.m_step(small.e_step(x)[0]), GROUPS).log_rate.dtype == jnp.float32


@cases
def test_missing_entries_are_marginalised(name):
    models, x = build(name)
    models = dataclasses.replace(models, missing=True)
    assert latent.accepts_missing(models)
    holes = np.array(x, np.float32)
    holes[::3] = np.nan
    if holes.ndim > 1:
        holes[:, 0] = np.asarray(x)[:, 0]
        holes[7, 0] = np.nan
    columns = holes.reshape(len(holes), -1)
    weight = jnp.asarray(RNG.rand(3, len(holes)), jnp.float32)
    expected, (matrix, mapped) = 0, matrices(models, holes)
    statistics, default = sums(models, holes, weight)
    for d in range(columns.shape[1]):
        # the coordinate by itself, on the events that have it
        rows = np.flatnonzero(~np.isnan(columns[:, d]))
        parameter = jax.tree.leaves(models)[0]
        parameter = parameter if holes.ndim == 1 else parameter[:, d : d + 1]
        one = type(models)(parameter)
        seen = columns[rows, d] if holes.ndim == 1 else columns[rows, d : d + 1]
        score = np.zeros((3, len(holes)))
        score[:, rows] = algebra.default_log_prob(one, seen)
        expected = expected + score
        own = jax.tree.leaves(algebra.default_e_step(one, seen, weight[:, rows]))
        for whole in (statistics, default):
            for a, b in zip(jax.tree.leaves(whole), own, strict=True):
                part = a if holes.ndim == 1 else a[:, d]
                np.testing.assert_allclose(part, np.reshape(b, part.shape), rtol=1e-5)
    np.testing.assert_allclose(matrix, expected, atol=1e-5)  # sums of a dozen float32 terms of size ten
    np.testing.assert_allclose(mapped, expected, atol=1e-5)
    plain = dataclasses.replace(models, missing=False)
    for matrix in matrices(plain, holes):
        assert np.array_equal(np.isnan(matrix[0]), np.isnan(columns).any(axis=1))
    features = algebra.features(algebra.take(models, 0), jnp.asarray(holes)).reshape(*columns.shape, -1)
    assert np.array_equal(np.isnan(features).all(-1), np.isnan(columns))
    new, repairs = em(algebra.take(models, 0), holes, weight[0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new)) and int(repairs) == 0 and new.missing
    models.check_data(holes)
    with pytest.raises(DataError, match="NaN"):
        plain.check_data(holes)


def test_leaves_start_from_data_with_missing_entries():
    holes = np.where(RNG.rand(*GROUPS.shape) < 0.3, np.nan, GROUPS)
    for leaf, x in (
        (functools.partial(Categorical.init, size=4), holes), (Bernoulli.init, holes // 2), (Poisson.init, holes),
    ):  # fmt: skip
        model = leaf(jax.random.key(0), x, missing=True)
        for d in range(4):
            column = x[~np.isnan(x[:, d]), d : d + 1]
            own = leaf(jax.random.key(0), column)
            np.testing.assert_allclose(jax.tree.leaves(model)[0][d], jax.tree.leaves(own)[0][0], atol=1e-5)
    assert Categorical.init(jax.random.key(0), [0, np.nan, 2], missing=True).logits.shape == (3,)


def test_priors_are_densities_whose_mode_the_m_step_finds():
    x = jnp.array([[0, 1], [1, 1], [1, 0], [0, 0], [1, 1]])
    for model in (
        Categorical.init(jax.random.key(0), x, size=3, prior=[2.0, 1.5, 3.0]),
        Bernoulli.init(jax.random.key(0), x, prior=[4.0, 2.0]),
        Poisson.init(jax.random.key(0), x, prior=[4.0, 3.0]),
    ):
        score = jax.grad(lambda m: jnp.sum(m.log_prob(x)) + latent.log_prior(m))(model)
        np.testing.assert_allclose(jax.tree.leaves(score)[0], 0, atol=5e-6)  # float32 sums of a few counts
        assert latent.log_prior(dataclasses.replace(model, prior=None)) == 0
    die = Categorical.from_values([0.5, 0.5, 0.0], prior=jnp.array([2.0, 1.0, 3.0]))
    np.testing.assert_allclose(latent.log_prior(die), np.log(0.5), rtol=1e-6)
    peers = scipy.stats.beta(4, 2).logpdf([0.3, 0.6]), scipy.stats.gamma(4, scale=1 / 3).logpdf([0.5, 2.0])
    coins = [Bernoulli.from_values([p], prior=jnp.array([4.0, 2.0])) for p in (0.3, 0.6)]
    rates = [Poisson.from_values([r], prior=jnp.array([4.0, 3.0])) for r in (0.5, 2.0)]
    for (one, other), values in zip((coins, rates), peers, strict=True):
        # up to a constant
        np.testing.assert_allclose(one.log_prior() - other.log_prior(), values[0] - values[1], atol=1e-5)


def test_free_parameters_are_read_off_the_shapes():
    for model, expected in (
        (Categorical(jnp.zeros((2, 4))), 6), (Bernoulli(jnp.zeros(3)), 3), (Poisson(jnp.zeros((2, 3))), 6),
    ):  # fmt: skip
        assert latent.component_free_parameters(algebra.repeat(model, 5)) == 5 * expected
