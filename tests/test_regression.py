"""Linear regressions against least squares in float64; mixtures of them; autoregressive hidden Markov models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
B = np.array([[1.5, -0.5], [0.3, 2.0]])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
U = RNG.normal(size=(200, 2)) * [1.0, 3.0]
X = U @ B.T + [1.0, -2.0] + RNG.normal(size=(200, 2)) @ np.linalg.cholesky(COV).T
WEIGHT = RNG.uniform(0.1, 2.0, 200)


def close(one, two, tolerance=1e-5):
    two = np.asarray(two) if isinstance(two, list) else two
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def least_squares(x, u, weight):
    """Weights, prediction at the mean of u, and covariance, in float64."""
    x, u, weight = (np.asarray(a, np.float64) for a in (x, u, weight))
    middle, root = weight @ u / weight.sum(), np.sqrt(weight)[:, None]
    v = np.concatenate([u - middle, np.ones((len(u), 1))], axis=1)
    turn = np.linalg.lstsq(root * v, root * x, rcond=None)[0].T
    r = x - v @ turn.T
    return turn[:, :-1], turn[:, -1], (r * weight[:, None]).T @ r / weight.sum()


@functools.partial(jax.jit, static_argnames="steps")
def train(model, x, context, weight, steps):
    batch = jg.Batch(x, context, weight)
    return jg.scan_fit(KEY, model, batch, jg.EM(), steps=steps)


@functools.partial(jax.jit, static_argnames="rounds")
def rounds_of(model, x, u, weight, rounds):
    repaired = []
    for _ in range(rounds):
        model, count = model.maximize(model.e_step(x, weight, context=u)[0])
        repaired.append(count)
    return model, jnp.stack(repaired)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e5])
def test_least_squares_of_float32(shift):
    """Also far from zero, from a model that knows nothing of where the data are."""
    x, u = np.float32(X + shift), np.float32(U - 3 * shift)
    weights, at_mean, cov = least_squares(x, u, WEIGHT)
    start = jg.LinearRegression.from_values(np.zeros((2, 2), np.float32), x[0], np.eye(2, dtype=np.float32))
    fitted, repaired = rounds_of(start, x, u, np.float32(WEIGHT), 4)
    # of numbers near 1e5 float32 has two digits behind the point, data and results alike
    tolerance = 2e-5 + 2e-7 * shift
    close(fitted.coefficients, weights, tolerance)
    there = fitted.conditional_mean(np.float32(WEIGHT @ u / WEIGHT.sum()))
    close(there - np.float32(shift), at_mean - shift, tolerance)
    close(fitted.covariance, cov, tolerance)
    # so far out the first round cannot see the inputs vary, says so, and finds their mean
    assert repaired.tolist() == [int(shift > 0), 0, 0, 0]
    whole = jg.LinearRegression.init(KEY, x, u)
    weights, _, cov = least_squares(x, u, np.ones(200))
    close(whole.coefficients, weights, 2e-5)
    close(whole.covariance, cov, 2e-5)


def test_the_density():
    model = jg.LinearRegression.from_values(B, [1.0, -2.0], COV, center=[0.5, 0.5])
    expected = scipy.stats.multivariate_normal(np.zeros(2), COV).logpdf(X - U @ B.T - [1.0, -2.0])
    close(model.log_prob(X, context=U), expected, 2e-5)
    close(model.intercept, [1.0, -2.0])
    assert model.free_parameters == 4 + 2 + 3
    draws = model.sample(KEY, (4000,), context=U[0])
    close(draws.mean(0), U[0] @ B.T + [1.0, -2.0], 4 * np.sqrt(0.5 / 4000))  # four standard errors
    gradient = jax.grad(lambda m: m.log_prob(X, context=U).mean())(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_where_least_squares_has_no_answer():
    u, one = np.float32(U), np.ones(200, np.float32)
    x = np.float32(X)
    double = np.stack([u[:, 0], 2 * u[:, 0]], axis=1)  # one input twice
    start = jg.LinearRegression.init(KEY, x, inputs=2)
    fitted, repaired = rounds_of(start, x, double, one, 4)
    # starts from zero and moves only where the inputs vary: the shortest solution, up to the inputs' scales
    weights, at_mean, _ = least_squares(x, double[:, :1], one)
    close(fitted.conditional_mean(double), (double[:, :1] - double[:, :1].mean(0)) @ weights.T + at_mean, 1e-4)
    assert repaired.tolist() == [1, 1, 1, 1]
    for weight in (np.zeros(200, np.float32), np.eye(200, dtype=np.float32)[3], one * (np.arange(200) < 2)):
        some, repaired = rounds_of(start, x, u, weight, 4)
        assert (repaired == 1).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(some))
    dead, _ = rounds_of(start, x, u, np.zeros(200, np.float32), 4)
    close(dead, start, 0)
    # no noise at all: the floor
    flat, repaired = rounds_of(jg.LinearRegression.init(KEY, u, inputs=2, floor=1e-3), u, u, one, 4)
    close(flat.covariance, 1e-3 * np.eye(2), 1e-5)
    close(flat.coefficients, np.eye(2), 1e-5)


def test_a_mixture_of_regressions():
    which = RNG.random(400) < 0.4
    u = np.float32(RNG.uniform(-2, 2, (400, 1)))
    x = np.float32(np.where(which[:, None], 1 + 2 * u, -1 - u) + 0.2 * RNG.normal(size=(400, 1)))
    share = RNG.dirichlet([1.0, 1.0], 400)
    start = jg.Mixture.init(KEY, x, 2, jg.LinearRegression.init, context=u, responsibilities=share)
    fitted = jg.fit(KEY, start, (x, u), jg.EM(), steps=60, tolerance=0.0)
    assert np.diff(fitted.history["objective"]).min() > -2e-6  # nats, the rounding of a mean
    order = np.argsort(fitted.model.components.coefficients[:, 0, 0])
    # four standard errors of a slope and of a bias from 160 events of noise 0.2
    close(fitted.model.components.coefficients[order, 0, 0], [-1.0, 2.0], 0.06)
    close(fitted.model.components.intercept[order, 0], [-1.0, 1.0], 0.07)
    close(fitted.model.weights[order], [0.6, 0.4], 0.1)
    # a fixed point: each component is the least squares of its share
    share = fitted.model.responsibilities(x, context=u)
    for k in range(2):
        weights, _, cov = least_squares(x, u, share[:, k])
        close(fitted.model.components.coefficients[k], weights, 1e-4)
        close(fitted.model.components.covariance[k], cov, 1e-4)
    draws = fitted.model.sample(KEY, (3,), context=u[:3])
    assert draws.shape == (3, 1)


REGIMES = np.array([[1.6, -0.8], [-0.5, 0.2]])


def autoregression(steps, seed):
    """A series that switches between two autoregressions, and the path."""
    rng = np.random.default_rng(seed)
    path = np.repeat(np.arange(steps // 50) % 2, 50)
    x = np.zeros(steps)
    for t in range(2, steps):
        x[t] = REGIMES[path[t]] @ [x[t - 1], x[t - 2]] + 0.5 * path[t] + 0.3 * rng.normal()
    return x[:, None].astype(np.float32), path


def test_an_autoregressive_hidden_markov_model():
    rows, paths = zip(*(autoregression(600, seed) for seed in range(3)), strict=True)
    x, past = jg.lagged(np.stack(rows), 2)
    path = np.stack(paths)[:, 2:]
    start = jg.HMM.init(KEY, x, 2, jg.LinearRegression.init, context=past)
    fitted = jg.fit(KEY, start, (x, past), jg.EM(), steps=60, tolerance=0.0)
    assert np.diff(fitted.history["objective"]).min() > -2e-4  # nats per series of 598 steps
    weight = fitted.model.emissions.coefficients[:, 0]
    order = np.argsort(-weight[:, 0])
    close(weight[order], REGIMES, 0.1)  # four standard errors, of about 900 steps in each regime
    found = fitted.model.viterbi(x, context=past).path
    assert (np.argsort(order)[found] == path).mean() > 0.97
    # regimes that are known: ordinary least squares of their steps
    known = jg.fit(KEY, start, dict(x=x, context=past, label=path), jg.EM(), steps=2, tolerance=0.0).model
    for k in range(2):
        weights, _, cov = least_squares(x[path == k], past[path == k], np.ones((path == k).sum()))
        close(known.emissions.coefficients[k], weights, 2e-5)
        close(known.emissions.covariance[k], cov, 2e-5)
    # a stream gives what the whole gives
    state = None
    for t in range(4):
        state = fitted.model.filter_step(state, x[0, t], past[0, t])
    close(state.log_normalizer, fitted.model.log_prob(x[0, :4], context=past[0, :4]))


def test_lagged_series_of_different_lengths():
    rows = [autoregression(50, seed)[0][:n] for seed, n in enumerate((30, 50, 12))]
    seen = [np.arange(len(row)) != 7 for row in rows]
    model = jg.HMM.from_values(None, [[0.9, 0.1], [0.1, 0.9]], jg.LinearRegression.from_values(
        REGIMES[:, None], np.zeros((2, 1)), np.full((2, 1, 1), 0.09)))  # fmt: skip
    packed, past = jg.lagged(jg.Sequences.pack(rows), 2)
    assert packed.length.tolist() == [28, 48, 10] and past.shape == (3, 62, 2)
    for i, row in list(enumerate(rows))[:1]:
        x, context = jg.lagged(row, 2)
        close(model.log_prob(packed, context=past)[i], model.log_prob(x, context=context))
        assert context[0].tolist() == [row[1, 0], row[0, 0]] and x[0].tolist() == row[2].tolist()
    holed = [np.where(flag[:, None], row, np.nan) for row, flag in zip(rows, seen, strict=True)]
    packed, past = jg.lagged(jg.Sequences.pack(holed, seen), 2)
    # step 7 is step 5 of what is left, and in the past of two more
    assert np.flatnonzero(~np.asarray(packed.observed)[0, :28]).tolist() == [5, 6, 7]
    fitted = jg.fit(KEY, model, (packed, past), steps=5, tolerance=0.0)
    assert np.diff(fitted.history["objective"]).min() > -2e-5


@pytest.mark.parametrize("name", ["coefficients", "offset", "a part"])
def test_held_parameters(name):
    start = jg.LinearRegression.from_values(np.float32(B + 0.5), np.float32([0.0, 0.0]), np.float32(COV))
    part = {"coefficients": np.array([[True, False], [False, False]]), "offset": np.array([False, True])}
    mask = {"coefficients": {"coefficients": True}, "offset": {"offset": True}, "a part": part}[name]
    mixture = jg.Mixture.from_components(algebra.stack([start]))
    em = jg.EM(frozen={f"components.{k}": v if v is True else v[None] for k, v in mask.items()})
    data = (np.float32(X), np.float32(U))
    fitted = jg.fit(KEY, mixture, data, em, steps=100, tolerance=0.0)
    assert np.diff(fitted.history["objective"]).min() > -2e-6
    model = algebra.take(fitted.model.components, 0)
    gradient = jax.grad(lambda m: m.log_prob(data[0], context=data[1]).mean())(model)
    for field in ("coefficients", "offset"):
        held = np.broadcast_to(mask.get(field, False), getattr(model, field).shape)
        if field == "coefficients" or "offset" in mask:  # the offset is that of another center where it may move
            close(getattr(model, field)[held], getattr(start, field)[held], 0)
        # what is free is at its maximum; nats by unit
        close(np.where(held, 0, getattr(gradient, field)), np.zeros(held.shape), 1e-4)


def test_statistics_move_to_another_model():
    x, u, weight = np.float32(X), np.float32(U), np.float32(WEIGHT)
    one = jg.LinearRegression.init(KEY, x[:50], u[:50])
    other = jg.LinearRegression.from_values(np.float32(B), np.zeros(2, np.float32), np.float32(COV), center=u[0])
    expected = other.e_step(x, weight, context=u)[0]
    close(other.recentre(one, one.e_step(x, weight, context=u)[0]), expected, 1e-3)  # sums of up to 4000


def test_errors():
    make = jg.LinearRegression.from_values
    with pytest.raises(jg.ModelError, match="fit each other"):
        make(B, [0.0], COV)
    with pytest.raises(jg.ModelError, match="positive definite"):
        make(B, [0.0, 0.0], -COV)
    with pytest.raises(jg.ModelError, match="center"):
        make(B, [0.0, 0.0], COV, center=[0.0])
    with pytest.raises(jg.ShapeError, match="inputs=P"):
        jg.LinearRegression.init(KEY, X)
    with pytest.raises(jg.ShapeError, match="inputs=P"):
        jg.LinearRegression.init(KEY, X, U[:5])
    model = make(B, [0.0, 0.0], COV)
    with pytest.raises(jg.ShapeError, match="context"):
        model.log_prob(X)
    with pytest.raises(jg.ShapeError, match="inputs of this"):
        model.conditional_mean(U[:, :1])
    with pytest.raises(jg.ShapeError, match="context"):
        jg.HMM.init(KEY, X[None], 2, jg.LinearRegression.init, context=U)
    for bad in (0, 200, True, 1.5):
        with pytest.raises(jg.ShapeError, match="reach back"):
            jg.lagged(X, bad)
    with pytest.raises(jg.ShapeError, match="reach back"):
        jg.lagged(jg.Sequences.pack([X, X[:3]]), 3)
