"""Chains with inputs and with durations, against enumeration of what they sum over."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core import algebra, latent

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def close(one, two, tolerance=1e-5):
    two = np.asarray(two) if isinstance(two, list) else two
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def rises(fitted, rounding):
    assert np.diff(fitted.history["objective"]).min() > -rounding, np.diff(fitted.history["objective"])


# inputs

STATES, INPUTS = 2, 2
CHAIN = jg.InputChain.from_values(
    [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]], RNG.normal(size=(STATES, STATES, INPUTS)), center=[0.5, -0.5]
)
COINS = jg.HMM.from_chain(CHAIN, jg.Bernoulli.from_values([0.2, 0.9]))


def by_paths(model, x, u):
    """`log p(x | u)` as a sum over all paths, in plain arithmetic."""
    chain = model.chain
    start = jax.nn.log_softmax(chain.initial_logits)
    seen = jax.vmap(lambda e: e.log_prob(x))(model.emissions)
    total = []
    for path in itertools.product(range(STATES), repeat=len(x)):
        value = start[path[0]] + seen[path[0], 0]
        for t in range(1, len(x)):
            i, j = path[t - 1], path[t]
            logits = chain.transition_logits[i] + chain.coefficients[i] @ (u[t] - chain.center)
            value += jax.nn.log_softmax(logits)[j] + seen[j, t]
        total.append(value)
    return jax.nn.logsumexp(jnp.stack(total))


def test_inputs_drive_the_transitions():
    x, u = np.array([0, 1, 1, 0]), np.float32(RNG.normal(size=(4, INPUTS)))
    value, gradient = jax.value_and_grad(lambda m: m.log_prob(x, context=u))(COINS)
    expected, of_paths = jax.jit(jax.value_and_grad(lambda m: by_paths(m, x, u)))(COINS)
    close(value, expected)
    fields = lambda g: (g.chain.initial_logits, g.chain.transition_logits, g.chain.coefficients, g.emissions)  # noqa: E731
    close(fields(gradient), fields(of_paths))
    # the gradient of the statistics is that of the likelihood: Fisher's identity
    statistics = COINS.e_step(x[None], jnp.ones(1), context=u[None])[0].chain
    close(statistics.gradient[..., :-1], of_paths.chain.coefficients)
    close(statistics.gradient[..., -1], of_paths.chain.transition_logits)
    moved = u.copy()
    moved[0] += 5  # drives no move
    close(COINS.log_prob(x, context=moved), value, 0)
    one = x[:1]
    close(COINS.log_prob(one, context=u[:1]), by_paths(COINS, one, u[:1]))
    state = None
    for t in range(4):
        state = COINS.filter_step(state, x[t], u[t])
    close(state.log_normalizer, value)
    swapped = COINS.permute([1, 0])
    close(swapped.log_prob(x, context=u), value)
    posterior = COINS.pairwise(x, context=u)
    assert COINS.path_entropy(x, context=u) > 0 and COINS.viterbi(x, context=u).path.shape == (4,)
    close(posterior.sum((1, 2)), np.ones(3))


def test_steps_that_are_not_there_do_not_count():
    rows = [RNG.integers(0, 2, n) for n in (3, 4)]
    u = np.float32(RNG.normal(size=(2, 6, INPUTS)))
    noisy = u.copy()
    noisy[0, 3:], noisy[1, 4:] = 1e3, -1e3
    packed = jg.Sequences.pack(rows, steps=6)
    value = COINS.log_prob(packed, context=u)
    close(value, [by_paths(COINS, row, u[i, : len(row)]) for i, row in enumerate(rows)])
    one, other = (COINS.e_step(packed, jnp.ones(2), context=c)[0] for c in (u, noisy))
    close(one, other, 0)
    assert abs(one.chain.inputs[:, -1, -1].sum() - (2 + 3)) < 1e-5


TRUE = np.array([[[0.0, 0.0], [2.0, 0.0]], [[0.0, -1.5], [0.0, 0.0]]])


def simulated():
    chain = jg.InputChain.from_values([0.5, 0.5], [[0.8, 0.2], [0.3, 0.7]], TRUE)
    emissions = jg.DiagonalGaussian.from_values([[0.0], [3.0]], [[0.7], [0.7]])
    hmm = jg.HMM.from_chain(chain, emissions)
    u = np.float32(np.random.default_rng(1).normal(size=(40, 100, 2)))
    return hmm, u, hmm.sample(KEY, (40,), context=u, length=100)


def test_a_fit_finds_the_weights():
    hmm, u, x = simulated()
    start = jg.HMM.from_chain(jg.InputChain.from_values(None, np.full((2, 2), 0.5), 2), hmm.emissions)
    fitted = jg.fit(KEY, start, (x, u), jg.EM(), steps=150, tolerance=0.0)
    rises(fitted, 1e-4)  # nats per sequence of 100 steps, log-likelihoods near -190
    # a row's weights are known up to a constant vector; about four standard errors of 2000 moves a state
    slope = lambda m: m.chain.coefficients[:, 1] - m.chain.coefficients[:, 0]  # noqa: E731
    close(slope(fitted.model), TRUE[:, 1] - TRUE[:, 0], 0.3)
    close(fitted.model.chain.transition_given(np.zeros(2)), [[0.8, 0.2], [0.3, 0.7]], 0.06)
    assert fitted.history["log_likelihood"][-1] > float(hmm.log_prob(x, context=u).mean())
    assert fitted.history["repaired"][-1] == 0 and latent.free_parameters(fitted.model) == 1 + 2 * 3 + 4
    # a maximum: the gradient vanishes
    gradient = jax.grad(lambda m: m.log_prob(x, context=u).mean())(fitted.model)
    close(gradient.chain.coefficients, np.zeros((2, 2, 2)), 0.02)
    climbed = jg.fit(KEY, start, (x, u), jg.Gradient(jg.losses.nll, optax.adam(0.1)), steps=60, batch_size=40)
    close(slope(climbed.model), slope(fitted.model), 0.2)


def test_inputs_far_from_zero_and_collinear_ones():
    hmm, u, x = simulated()
    both = np.stack([u[..., 0], u[..., 0]], axis=-1)
    for given, center in ((both, None), (u + 1000, [1000.0, 1000.0]), (0 * u, None)):
        chain = jg.InputChain.from_values(None, np.full((2, 2), 0.5), np.zeros((2, 2, 2)), center=center)
        fitted = jg.fit(KEY, jg.HMM.from_chain(chain, hmm.emissions), (x, given), jg.EM(), steps=40, tolerance=0.0)
        rises(fitted, 1e-4)
        singular = center is None
        assert (fitted.history["repaired"] == (2 if singular else 0)).all()
    close(fitted.model.chain.coefficients, np.zeros((2, 2, 2)), 0)  # nothing varies: nothing moves


def test_hard_zeros_and_held_weights_stay():
    hmm, u, x = simulated()
    weight = np.float32(RNG.normal(size=(2, 2, 2)))
    chain = jg.InputChain.from_values([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], weight)
    fitted = jg.fit(KEY, jg.HMM.from_chain(chain, hmm.emissions), (x, u), jg.EM(), steps=30, tolerance=0.0)
    rises(fitted, 1e-4)
    assert fitted.model.chain.transition_given(u[0, 0])[1].tolist() == [0.0, 1.0]
    assert fitted.model.initial.tolist() == [1.0, 0.0] and latent.free_parameters(fitted.model) == 3 + 4
    gradient = jax.grad(lambda m: m.log_prob(x, context=u).mean())(fitted.model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    held = np.zeros((2, 2, 2), bool)
    held[0, 1, 0] = held[1, 0, 1] = True
    start = jg.HMM.from_chain(jg.InputChain.from_values(None, np.full((2, 2), 0.5), weight), hmm.emissions)
    em = jg.EM(frozen={"chain.coefficients": held, "emissions": True})
    fitted = jg.fit(KEY, start, (x, u), em, steps=30, tolerance=0.0)
    rises(fitted, 1e-4)
    close(fitted.model.chain.coefficients[held], weight[held], 0)
    assert np.abs(fitted.model.chain.coefficients - weight)[~held].min() > 0


def test_bounds_move_to_another_chain():
    """The quadratic that one chain made is the same quadratic, seen from another."""
    hmm, u, x = simulated()
    statistics = hmm.e_step(x, context=u)[0].chain
    turn = jnp.asarray(RNG.normal(size=(2, 2, 2)) * 0.1, jnp.float32)
    other = jg.InputChain(hmm.chain.initial_logits, hmm.chain.transition_logits, hmm.chain.coefficients + turn,
                          hmm.chain.center)  # fmt: skip
    there = other.recentre(hmm.chain, statistics)
    # both have their top at the same chain; logits of a row up to a constant
    a, b = hmm.chain.m_step(statistics), other.m_step(there)
    close(a.transition_given(u[0, :5]), b.transition_given(u[0, :5]), 1e-4)
    online = jg.fit(KEY, hmm, (x, u), jg.StepwiseEM(), batch_size=20, steps=5)
    assert np.isfinite(online.history["log_likelihood"]).all()


def test_what_is_no_chain_with_inputs():
    make = jg.InputChain.from_values
    with pytest.raises(jg.ModelError, match="probabilities"):
        make([0.5, 0.6], np.full((2, 2), 0.5), 1)
    with pytest.raises(jg.ModelError, match="another shape"):
        make(None, np.full((2, 3), 0.5), 1)
    with pytest.raises(jg.ModelError, match="coefficients do not fit"):
        make(None, np.full((2, 2), 0.5), np.zeros((2, 3, 1)))
    with pytest.raises(jg.ModelError, match="coefficients do not fit"):
        make(None, np.full((2, 2), 0.5), 2, center=[0.0])
    with pytest.raises(jg.ModelError, match="depend on its inputs"):
        COINS.transition  # noqa: B018
    with pytest.raises(jg.ShapeError, match="no inputs"):
        CHAIN.transition_given(np.zeros(3))
    with pytest.raises(jg.ShapeError, match="context"):
        COINS.log_prob(np.array([0, 1]))
    line = jg.LinearRegression.from_values(np.zeros((2, 1, 1)), np.zeros((2, 1)), np.ones((2, 1, 1)))
    with pytest.raises(jg.ModelError, match="different contexts"):
        jg.HMM.from_chain(CHAIN, line)


# durations

MOVE3 = np.array([[0.0, 0.3, 0.7], [0.6, 0.0, 0.4], [0.5, 0.5, 0.0]])
TWO = jg.SemiMarkovChain.from_values([0.6, 0.4], None, [[0.2, 0.5, 0.3], [0.7, 0.0, 0.3]])


def by_segments(model, x):
    """`p(x)`, and of each step the posterior of the state, as sums over all segmentations in plain arithmetic."""
    start, move, durations = (np.asarray(a, np.float64) for a in (model.chain.initial, model.chain.transition,
                              model.chain.durations))  # fmt: skip
    seen = np.exp(np.asarray(jax.vmap(lambda e: e.log_prob(x))(model.emissions), np.float64))
    (s, m), steps = durations.shape, len(x)
    total, posterior = 0.0, np.zeros((steps, s))

    def extend(at, before, probability, states):
        nonlocal total, posterior
        if at == steps:
            total += probability
            posterior[np.arange(steps), states] += probability
            return
        for state in range(s):
            enter = start[state] if before is None else move[before, state]
            for d in range(1, min(m, steps - at) + 1):
                # the last segment is as long as it is, or longer
                lasts = durations[state, d - 1 :].sum() if at + d == steps else durations[state, d - 1]
                value = probability * enter * lasts * seen[state, at : at + d].prod()
                extend(at + d, state, value, [*states, *[state] * d])

    extend(0, None, 1.0, [])
    return np.log(total), posterior / total


@functools.cache
def segments_of(make):
    return jg.HMM.from_chain(TWO, make(), tie=TWO.tie)


def coins():
    return jg.Bernoulli.from_values([0.2, 0.9])


@pytest.mark.parametrize("steps", [1, 5])
def test_durations_by_enumeration(steps):
    hmm, x = segments_of(coins), np.array([0, 1, 1, 0, 1])[:steps]
    expected, posterior = by_segments(hmm, x)
    close(hmm.log_prob(x), expected)
    close(hmm.smooth(x).reshape(steps, 2, 3).sum(-1), posterior)
    path = hmm.viterbi(x).path
    remaining, states = hmm.chain.remaining(path), hmm.chain.segment(path)
    for t in range(1, steps):
        same = remaining[t - 1] > 1
        assert (states[t] == states[t - 1]) == same and (not same or remaining[t] == remaining[t - 1] - 1)


def test_statistics_count_segments():
    # durations that only one segmentation fits: 0 0 1 0 0 | 1..
    chain = jg.SemiMarkovChain.from_values(None, None, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    hmm = jg.HMM.from_chain(chain, jg.Bernoulli.from_values([0.0, 1.0]), tie=chain.tie)
    x = np.array([[0, 0, 1, 0, 0, 1]])
    statistics = hmm.e_step(x)[0].chain
    close(statistics.initial, [1.0, 0.0])
    close(statistics.transition, [[0.0, 2.0], [1.0, 0.0]])
    close(statistics.duration, [[0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
    assert hmm.chain.segment(hmm.viterbi(x[0]).path).tolist() == x[0].tolist()
    packed = jg.Sequences.pack([[0, 0, 1], [1, 0, 0, 1]], steps=6)
    close(hmm.e_step(packed)[0].chain.duration, [[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]][0:2])
    assert hmm.chain.segment(hmm.viterbi(packed).path)[0].tolist() == [0, 0, 1, -1, -1, -1]


def test_a_fit_finds_the_durations():
    durations = np.array([[0.0, 0.1, 0.2, 0.4, 0.3], [0.6, 0.3, 0.1, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1, 0.6]])
    emissions = jg.DiagonalGaussian.from_values([[0.0], [2.0], [4.0]], [[0.6]] * 3)
    chain = jg.SemiMarkovChain.from_values(None, MOVE3, durations)
    hmm = jg.HMM.from_chain(chain, emissions, tie=chain.tie)
    x = hmm.sample(KEY, (60,), length=100)
    flat = jg.SemiMarkovChain.from_values(None, None, np.full((3, 5), 0.2))
    start = jg.HMM.from_chain(flat, emissions, tie=flat.tie)
    fitted = jg.fit(KEY, start, x, jg.EM(), steps=60, tolerance=0.0)
    rises(fitted, 1e-4)  # nats per sequence, log-likelihoods near -150
    found = fitted.model.chain
    # four standard errors of shares of about 600 segments each, and what noise hides
    close(found.durations, durations, 0.12)
    close(found.transition, MOVE3, 0.12)
    assert np.isneginf(np.diagonal(found.transition_logits)).all() and np.diagonal(found.transition).sum() == 0
    assert fitted.history["log_likelihood"][-1] > float(hmm.log_prob(x).mean())
    assert latent.free_parameters(found) == 2 + 3 + 12 and fitted.history["repaired"][-1] == 0
    gradient = jax.grad(lambda m: m.log_prob(x).mean())(fitted.model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_priors_and_held_durations():
    hmm = segments_of(coins)
    x = hmm.sample(KEY, (20,), length=30)
    prior = jg.SemiMarkovChain.from_values([0.6, 0.4], None, np.full((2, 3), 1 / 3), duration_prior=[[1, 1, 50.0]] * 2,
                                           initial_prior=3.0, transition_prior=2.0)  # fmt: skip
    fitted = jg.fit(KEY, jg.HMM.from_chain(prior, coins(), tie=prior.tie), x, steps=30, tolerance=0.0)
    rises(fitted, 2e-5)
    assert (fitted.model.chain.durations[:, 2] > hmm.chain.durations[:, 2]).all()
    held = np.zeros((2, 3), bool)
    held[0, 0] = True
    fitted = jg.fit(KEY, hmm, x, jg.EM(frozen={"chain.duration_logits": held}), steps=20, tolerance=0.0)
    rises(fitted, 2e-5)
    close(fitted.model.chain.durations[0, 0], 0.2)
    close(fitted.model.chain.durations.sum(1), np.ones(2))
    assert fitted.model.chain.durations[1, 1] == 0
    # emissions of no part in the data leave the rows of their state as they were
    alone = jg.SemiMarkovChain.from_values([1.0, 0.0, 0.0], [[0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]], np.full((3, 2), 0.5))
    hmm = jg.HMM.from_chain(alone, jg.Bernoulli.from_values([0.2, 0.9, 0.5]), tie=alone.tie)
    fitted = jg.fit(KEY, hmm, x, steps=3, tolerance=0.0)
    close(fitted.model.chain.durations[2], [0.5, 0.5])
    assert fitted.history["repaired"][-1] >= 2


def test_semi_markov_and_inputs_make_other_models():
    """A mixture of them, and a regression within: any model is a part of any other."""
    lines = jg.LinearRegression.from_values(np.zeros((2, 1, 2)), [[0.0], [2.0]], np.ones((2, 1, 1)))
    hmm = jg.HMM.from_chain(CHAIN, lines)
    u = np.float32(RNG.normal(size=(6, 8, 2)))
    x = hmm.sample(KEY, (6,), context=u, length=8)
    other = jg.HMM.from_chain(CHAIN, algebra.take(lines, np.array([1, 0])))
    mixture = jg.Mixture.from_components(algebra.stack([hmm, other]))
    fitted = jg.fit(KEY, mixture, (x, u), jg.EM(), steps=4, tolerance=0.0)
    rises(fitted, 2e-5)


def test_what_is_no_semi_markov_chain():
    make = jg.SemiMarkovChain.from_values
    with pytest.raises(jg.ModelError, match="two states"):
        make([1.0], [[1.0]], [[0.5, 0.5]])
    with pytest.raises(jg.ModelError, match="another state"):
        make(None, np.full((2, 2), 0.5), np.full((2, 2), 0.5))
    with pytest.raises(jg.ModelError, match="probabilities"):
        make(None, None, [[0.5, 0.6], [0.5, 0.5]])
    with pytest.raises(jg.ModelError, match="another shape"):
        make([0.5, 0.5, 0.0], None, np.full((2, 2), 0.5))
    with pytest.raises(jg.ModelError, match="Dirichlet"):
        make(None, None, np.full((2, 2), 0.5), duration_prior=0.0)
    with pytest.raises(jg.ModelError, match="tie"):
        jg.HMM.from_chain(TWO, coins())
    with pytest.raises(jg.ModelError, match="one order"):
        segments_of(coins).permute([1, 0, 2, 3, 4, 5])
