"""Chains of every kind against the sum and the maximum over all their paths, on cases that hypothesis makes up."""

import itertools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from jaxgen.ops import chains

K, T = 3, 6
PATHS = np.array(list(itertools.product(range(K), repeat=T)))
#: nats: hard zeros, near zeros that scaled space cannot hold, and everyday numbers
NATS = st.one_of(st.just(-np.inf), st.floats(-400, -80, width=32), st.floats(-5, 5, width=32))


@jax.jit
def answers(start, move, seen, length, observed):
    """All of it in one program, for each way of running."""
    given = {"length": length, "observed": observed}
    runs = []
    for backend in (chains.Sequential(), chains.Blocked(size=2), chains.Associative(), None):
        posterior = chains.smoother(start, move, seen, backend=backend, **given)
        value, slope = jax.value_and_grad(
            lambda s, backend=backend: chains.log_normalizer(start, move, s, backend=backend, **given)
        )(seen)
        runs.append((*posterior, value, slope))
    best = chains.viterbi_best(start, move, seen, 3, **given)
    return runs, chains.viterbi(start, move, seen, **given), best


@hypothesis.given(
    arrays.arrays(np.float32, (K,), elements=NATS), arrays.arrays(np.float32, (K, K), elements=NATS),
    arrays.arrays(np.float32, (T, K), elements=NATS), st.integers(1, T), arrays.arrays(bool, (T,)),
)  # fmt: skip
# what enters the second block has the direction of the guess and another size
@hypothesis.example(
    np.array([-80, -np.inf, -np.inf], np.float32),
    np.array([[-80, -np.inf, -np.inf], [-np.inf, -np.inf, -80], [-np.inf] * 3], np.float32),
    np.full((T, K), -np.inf, np.float32), 5, np.zeros(T, bool),
)  # fmt: skip
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_every_path(start, move, seen, length, observed):
    runs, decoded, best = jax.device_get(answers(start, move, seen, jnp.int32(length), observed))
    paths = np.unique(PATHS[:, :length], axis=0)
    rows = np.where(observed[:, None], seen, 0).astype(np.float64)[:length]
    joint = start.astype(np.float64)[paths[:, 0]] + rows[np.arange(length), paths].sum(1)
    joint = joint + move.astype(np.float64)[paths[:, :-1], paths[:, 1:]].sum(1)
    possible = np.isfinite(joint).any()
    total = logsumexp(joint) if possible else -np.inf
    share = np.exp(joint - total) if possible else np.zeros(len(joint))
    marginals = np.zeros((T, K))
    counts = np.zeros((K, K))
    for t in range(length):
        np.add.at(marginals[t], paths[:, t], share)
        if t:
            np.add.at(counts, (paths[:, t - 1], paths[:, t]), share)
    # float32 of sums up to some thousand nats: one rounding of each of twelve terms
    exact = 1e-5 + 4e-7 * 12 * 400
    for value, seen_marginals, seen_counts, again, slope in runs:
        assert not any(np.isnan(part).any() for part in (value, seen_marginals, seen_counts, slope))
        np.testing.assert_allclose([value, again], total, atol=exact, rtol=0)
        np.testing.assert_allclose(seen_marginals, marginals, atol=2e-3)  # e to the rounding of the nats
        np.testing.assert_allclose(seen_counts, counts, atol=4e-3)
        np.testing.assert_allclose(slope, marginals * observed[:, None], atol=2e-3)
    order = np.sort(joint)[::-1][:3]
    found = np.pad(order, (0, 3 - len(order)), constant_values=-np.inf)
    np.testing.assert_allclose(best.log_prob, found, atol=exact, rtol=0)
    np.testing.assert_allclose(decoded.log_prob, found[0], atol=exact, rtol=0)
    if possible:
        own = joint[(paths == decoded.path[:length]).all(1).argmax()]
        np.testing.assert_allclose(own, found[0], atol=exact, rtol=0)
    else:
        assert (decoded.path == -1).all()
    assert (decoded.path[length:] == -1).all()


def test_posterior_samples_of_many_states():
    """Drawn in two stages: the frequencies are the marginals, and what has probability zero never comes."""
    rng, states, n = np.random.default_rng(3), 30, 4000
    share = rng.dirichlet(np.full(states, 0.3), states) * (rng.random((states, states)) < 0.7)
    a = np.log(share + 1e-3 * np.eye(states) + np.finfo(float).tiny)
    a = np.where(a < -100, -np.inf, a - np.log(np.exp(a).sum(1, keepdims=True)))
    b = np.where(rng.random((4, states)) < 0.3, -np.inf, 2 * rng.normal(size=(4, states)))
    b[:, 0] = 0.0
    chain = [jnp.asarray(x, jnp.float32) for x in (np.full(states, -np.log(states)), a, b)]
    keys = jax.random.split(jax.random.key(1), n)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: chains.sample_posterior(key, *chain)))(keys))
    batch = jnp.broadcast_to(chain[2], (n, *b.shape))
    together = np.asarray(jax.jit(chains.sample_posterior)(keys[0], chain[0], chain[1], batch))
    share = np.asarray(chains.smoother(*chain).marginals)
    for paths in (drawn, together):
        seen = (paths[..., None] == np.arange(states)).mean(0)
        assert seen[share == 0].max() == 0
        # five standard deviations, and one draw for the rare ones
        assert (np.abs(seen - share) <= 5 * np.sqrt(share / n) + 1 / n).all()
        assert np.isfinite(np.asarray(a)[paths[:, :-1], paths[:, 1:]]).all()
