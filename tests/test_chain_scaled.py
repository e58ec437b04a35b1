"""Probability space: left where underflow can be seen, and nowhere else; against log space in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops import chains
from jaxgen.ops.chains import Associative, Sequential
from jaxgen.ops.chains.inputs import make_chain
from jaxgen.ops.chains.logs import smooth_logs
from jaxgen.ops.chains.scaled import normalize_scaled, smooth_scaled

INF = np.inf


def log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


@jax.jit
def fast(*chain):
    """Posteriors, normalisers, and which of both were right in probability space."""
    c, way = make_chain("", *chain)[0], Sequential()
    value = chains.log_normalizer(*chain, backend=way)
    return chains.smoother(*chain, backend=way), value, smooth_scaled(c, way)[1], normalize_scaled(c, way)[1]


@jax.jit
def _exact(*chain):
    return smooth_logs(make_chain("", *chain)[0], Sequential())


def exact(*chain):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _exact(*(jnp.asarray(x, float) for x in chain)))


def adversary(rng, kind, states, batch, steps):
    """Transitions and starts from 1e-60 to 1, with zeros; likelihoods up to hundreds of nats apart."""
    low = rng.choice([-10, -30, -37, -60])
    a = 10.0 ** rng.uniform(low, 0, (states, states)) + 1e-3 * np.diag(rng.random(states) < 0.8)
    pi = 10.0 ** rng.uniform(low, 0, states)
    if kind == "zeros":
        a *= rng.random(a.shape) < 0.6
    if kind == "left-right":
        a, pi = np.triu(a), pi * (np.arange(states) == 0)
    if kind == "apart":  # two chains that never meet
        a *= np.kron(np.eye(2), np.ones((states // 2, states // 2)))
    a[a.sum(1) == 0, 0] = 1
    b = -rng.exponential(rng.choice([1, 10, 50, 200]), (batch, steps, states))
    if kind == "impossible":
        b[rng.random(b.shape) < 0.3] = -INF
    return [np.asarray(x, np.float32) for x in (log(pi / pi.sum()), log(a / a.sum(1, keepdims=True)), b)]


@pytest.mark.parametrize("kind", ["dense", "zeros", "left-right", "apart", "impossible"])
def test_what_underflow_took_is_not_seen(kind):
    rng, used = np.random.default_rng(0), []
    for _ in range(8):
        chain = adversary(rng, kind, 4, 32, 20)
        posterior, value, sound, normalized = jax.tree.map(np.asarray, fast(*chain))
        want = exact(*chain)
        used.append(sound)
        np.testing.assert_array_equal(np.isfinite(posterior.log_normalizer), np.isfinite(want.log_normalizer))
        np.testing.assert_array_equal(np.isfinite(value), np.isfinite(want.log_normalizer))
        assert np.isfinite(want.log_normalizer[sound | normalized]).all()
        # a log-likelihood of thousands of nats has units of 1e-4 in float32
        close = dict(rtol=5e-7, atol=1e-5)
        np.testing.assert_allclose(posterior.log_normalizer, want.log_normalizer, **close)
        np.testing.assert_allclose(value, want.log_normalizer, **close)
        # log space has messages of -1000 nats, of which float32 keeps 6e-5
        for right, atol in ((sound, 5e-6), (np.isfinite(want.log_normalizer), 1e-3)):
            np.testing.assert_allclose(posterior.marginals[right], want.marginals[right], atol=atol)
            got, counts = posterior.transition_counts[right], want.transition_counts[right]
            np.testing.assert_allclose(got, counts, atol=20 * atol)  # sums of 19
    assert 0.1 < np.mean(used) < 0.99  # both ways were gone


@functools.partial(jax.jit, static_argnames="dtype")
def _sound(pi, a, b, dtype):
    chain = make_chain("", pi.astype(dtype), a.astype(dtype), b.astype(dtype))[0]
    return smooth_scaled(chain, Sequential())[1], normalize_scaled(chain, Sequential())[1]


def sound(*chain, dtype=np.float32):
    smoothed, normalized = _sound(*map(jnp.asarray, chain), dtype=dtype)
    assert smoothed[0] == normalized[0]
    return bool(smoothed[0])


def test_scaled_space_is_left_where_underflow_could_be_seen():
    flat, full = np.zeros((20, 3)), log(np.full((3, 3), 1 / 3))
    assert sound(full[0], full, flat)
    # any data at all, if the transitions are of ordinary size
    assert sound(full[0], full, -1e4 * np.eye(3)[np.arange(20) % 3])
    # hard zeros alone cost nothing
    cycle = log(np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]))
    start = np.array([0.0, -INF, -INF])
    assert sound(start, cycle, flat)
    # nor does an improbable state, or start, or transition, while nothing depends on it
    unlikely = np.where(np.arange(3) == 1, -200.0, flat)
    assert sound(start, cycle, unlikely)
    assert sound(np.array([0.0, -200.0, -200.0]), cycle, flat)
    assert sound(full[0], np.log(np.eye(3) + 1e-37), np.repeat(-9.0 * np.eye(3), [7, 7, 6], axis=0) @ (1 - np.eye(3)))
    # but it may be the only way on
    last = np.where(np.arange(20)[:, None] == 19, np.array([-INF, -INF, 0.0]), 0.0)
    assert sound(start, cycle, last)
    assert not sound(start, cycle, unlikely + last)
    assert not sound(start, full, np.where(np.arange(20)[:, None] == 4, -INF, flat))
    assert not sound(start, full, np.where((np.arange(20)[:, None] == 4) & (np.arange(3) == 1), np.nan, flat))


def test_what_both_directions_lose_is_found():
    """A chain that is improbable at the start and at the end, and by far the better one between."""
    pi, a = np.array([0.0, -100.0, -100.0]), log(np.array([[1.0, 0, 0], [0, 0.7, 0.3], [0, 0.3, 0.7]]))
    b = np.zeros((1, 40, 3))
    b[0, 10:30, 0], b[0, -1, 1:] = -50.0, -100.0
    chain = [np.asarray(x, np.float32) for x in (pi, a, b)]
    assert not sound(*chain)
    posterior = fast(*chain)[0]
    np.testing.assert_allclose(posterior.log_normalizer, exact(*chain).log_normalizer, rtol=1e-6)
    np.testing.assert_allclose(posterior.marginals[0, :, 0], 0, atol=1e-6)


def test_baum_welch_that_drives_transitions_to_zero_stays_in_probability_space():
    """Sticky chains: EM takes transitions that never happen to 1e-10, 1e-19, 1e-28, 1e-37 and zero."""
    rng = np.random.default_rng(1)
    states, steps = 6, 200
    path = np.repeat(rng.integers(0, states, (4, steps // 10)), 10, axis=1)
    b = np.where(path[..., None] == np.arange(states), 0.0, -30.0 + rng.normal(size=(4, steps, states)))
    pi, a = np.full(states, -np.log(states)), np.log(0.5 * np.eye(states) + 0.5 / states)
    for _ in range(12):
        posterior, _, smoothed, normalized = fast(*(np.asarray(x, np.float32) for x in (pi, a, b)))
        assert smoothed.all() and normalized.all()
        counts = np.asarray(posterior.transition_counts.sum(0), float)
        share = counts / counts.sum(1, keepdims=True)
        a = np.log(np.maximum(share, np.finfo(np.float32).tiny))
    assert (share < 1e-36).any()


def test_only_sequences_that_fail_are_computed_again():
    rng = np.random.default_rng(2)
    pi, a = np.log(np.full(3, 1 / 3)), log(np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]))
    plain = rng.normal(size=(19, 20, 3))
    bad = np.isin(np.arange(19), [0, 7, 9, 18])
    # against the direction of the chain, hundreds of nats
    b = np.where(bad[:, None, None], plain - 300.0 * (np.arange(20)[:, None] % 3 == np.arange(3)), plain)
    pi, a, plain, b = (np.asarray(x, np.float32) for x in (pi, a, plain, b))
    without, mixed = (jax.tree.map(np.asarray, fast(pi, a, c)) for c in (plain, b))
    np.testing.assert_array_equal(mixed[2], ~bad)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[~bad], y[~bad]), mixed[:2], without[:2])
    want = exact(pi, a, b)
    np.testing.assert_allclose(mixed[0].log_normalizer, want.log_normalizer, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(mixed[0].marginals, want.marginals, atol=1e-3)  # messages of -3000 nats


def test_underflow_is_never_seen():
    """Random sparse chains with likelihoods hundreds of nats apart, float32 against log space in float64."""
    rng = np.random.default_rng(7)
    pi, b = log(np.array([1.0, 0, 0, 0])), np.zeros((64, 12, 4))
    for n in range(64):
        b[n] = -rng.choice([0, 30, 60, 120], (12, 4))
    for zeros in range(4):
        shape = np.eye(4) + (rng.random((4, 4)) < 0.4) * 10.0 ** -rng.choice([0, 10, 25, 40], (4, 4))
        a = log(shape / shape.sum(1, keepdims=True))
        got = smooth(*(jnp.asarray(x, jnp.float32) for x in (pi, a, b)), backend=Sequential())
        with jax.enable_x64(True):
            want = smooth(*(jnp.asarray(x, float) for x in (pi, a, b)), backend=Associative())
        # messages reach -1000 nats, of which float32 keeps 6e-5
        np.testing.assert_allclose(got.marginals, want.marginals, atol=2e-3, err_msg=str(zeros))
        np.testing.assert_allclose(got.transition_counts, want.transition_counts, atol=8e-3)
        np.testing.assert_allclose(got.log_normalizer, want.log_normalizer, rtol=1e-6)


@functools.partial(jax.jit, static_argnames="backend")
def smooth(*chain, backend):
    return chains.smoother(*chain, backend=backend)


def test_calls_outside_of_programs_compile_once():
    """Loops that are called as they are: the second call with the same shapes compiles nothing."""
    from jaxgen import HMM, Bernoulli
    from jaxgen.ops.chains import transitions

    pi, a, b = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]])), jnp.zeros((9, 2))
    key = jax.random.key(0)
    hmm = HMM.from_values(None, [[0.7, 0.3], [0.3, 0.7]], Bernoulli.from_values([0.1, 0.8]), stationary=True)

    def calls():
        return [
            chains.viterbi(pi, a, b), chains.viterbi_best(pi, a, b, 2), chains.sample_posterior(key, pi, a, b),
            chains.fixed_lag(pi, a, b, 2), chains.forecast(pi, a, 3), chains.sample_path(key, pi, a, 5),
            chains.decode_posterior(pi, a, b), chains.smoother(pi, a, b), chains.forward_filter(pi, a, b),
            chains.log_normalizer(pi, a, b), chains.pair_posteriors(pi, a, b), transitions.stationary(jnp.exp(a)),
            hmm.forecast(pi, 3), hmm.initial, hmm.log_transition,
        ]  # fmt: skip

    jax.block_until_ready(calls())
    compiled = []

    def listen(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(calls())
        assert compiled == []
        jax.jit(lambda x: x * 2 + 5)(pi)
        assert len(compiled) == 1  # the listener hears
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
