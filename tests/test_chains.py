"""Hidden Markov chains against enumeration of every path, known figures, hard zeros and a long float64 reference."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops.chains import forward_filter, log_normalizer, sample_path, sample_posterior, smoother, viterbi

INF = np.inf
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

GRADIENT = jax.value_and_grad(log_normalizer, (0, 1, 2))


@jax.jit
def everything(*chain):
    """All deterministic results of one chain, compiled together once per shape: compiling is most of the time here."""
    return forward_filter(*chain), smoother(*chain), viterbi(*chain), *GRADIENT(*chain)


def log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def run(function, chain, dtype):
    """Results as numpy arrays, computed in one precision."""
    with jax.enable_x64(dtype == np.float64):
        return jax.tree.map(np.asarray, function(*(jnp.asarray(x, dtype) for x in chain)))


def random_chain(seed, states, steps, varying=False, zeros=False):
    rng = np.random.default_rng(seed)
    pi = rng.dirichlet(np.ones(states))
    a = rng.dirichlet(np.ones(states), (steps - 1, states) if varying else states)
    likelihood = rng.gamma(0.5, size=(steps, states))
    if zeros:
        # A path of positive probability always remains: state 0, which is always allowed.
        a[..., -1, 1:] = 0
        pi[-1] = 0
        a, pi = a / a.sum(-1, keepdims=True), pi / pi.sum()
        likelihood[rng.random(likelihood.shape) < 0.2] = 0
        likelihood[:, 0] += 0.1
    return log(pi), log(a), log(likelihood)


def enumerate_paths(log_pi, log_a, log_b):
    """All paths [P, T], their log-probabilities [P] and the pairs they use [P, T - 1, K, K]."""
    steps, states = log_b.shape
    paths = np.array(list(itertools.product(range(states), repeat=steps)))
    log_a = np.broadcast_to(log_a, (steps - 1, states, states))
    time = np.arange(steps)
    moves = log_a[time[:-1], paths[:, :-1], paths[:, 1:]].sum(1)
    log_p = log_pi[paths[:, 0]] + moves + log_b[time, paths].sum(1)
    visits = paths[:, :, None] == np.arange(states)
    return paths, log_p, visits.astype(float), visits[:, :-1, :, None] * visits[:, 1:, None, :]


CASES = [
    (dtype, seed, states, steps, varying, zeros)
    for seed, (states, steps) in enumerate([(2, 6), (3, 4), (3, 1), (1, 3)])
    for varying in (False, True)
    for zeros in (False, True)
    for dtype in (np.float32, np.float64)
    if seed < 2 or (dtype == np.float32 and not (zeros and states == 1))
]


@pytest.mark.parametrize(("dtype", "seed", "states", "steps", "varying", "zeros"), CASES)
def test_everything_equals_enumeration(dtype, seed, states, steps, varying, zeros):
    chain = random_chain(seed, states, steps, varying, zeros)
    paths, log_p, visits, pairs = enumerate_paths(*chain)
    total = np.log(np.exp(log_p).sum())
    weight = np.exp(log_p - total)
    marginals, counts = np.tensordot(weight, visits, 1), np.tensordot(weight, pairs, 1)
    counts = counts if varying else counts.sum(0)
    # Sums of some tens of rounded logs of moderate size.
    close = dict(rtol=30 * np.finfo(dtype).eps, atol=30 * np.finfo(dtype).eps)

    filtered, posterior, decoded, value, gradients = run(everything, chain, dtype)
    np.testing.assert_allclose(posterior.log_normalizer, total, **close)
    np.testing.assert_allclose(posterior.marginals, marginals, **close)
    np.testing.assert_allclose(posterior.transition_counts, counts, **close)

    np.testing.assert_allclose(value, total, **close)
    for got, expected in zip(gradients, (marginals[0], counts, marginals), strict=True):
        np.testing.assert_allclose(got, expected, **close)

    np.testing.assert_allclose(filtered.log_normalizer, total, **close)
    evidence = 0.0
    for t in range(steps):
        log_pi, log_a, log_b = chain
        head = enumerate_paths(log_pi, log_a[:t] if varying else log_a, log_b[: t + 1])
        head_total = np.log(np.exp(head[1]).sum())
        expected = np.tensordot(np.exp(head[1] - head_total), head[2][:, -1], 1)
        np.testing.assert_allclose(np.exp(filtered.log_filtered[t]), expected, **close)
        np.testing.assert_allclose(filtered.log_evidence[t], head_total - evidence, **close)
        evidence = head_total

    np.testing.assert_allclose(decoded.log_prob, log_p.max(), **close)
    np.testing.assert_array_equal(decoded.path, paths[log_p.argmax()])
    assert decoded.path.dtype == np.int32
    for leaf in jax.tree.leaves((posterior, value, gradients, filtered, decoded.log_prob)):
        assert leaf.dtype == dtype


@DTYPES
def test_two_states(dtype):
    likelihood = np.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]])
    chain = log(np.array([0.5, 0.5])), log(np.array([[0.7, 0.3], [0.3, 0.7]])), log(likelihood)
    _, posterior, decoded, _, _ = run(everything, chain, dtype)
    # The figures are given to this many places.
    np.testing.assert_allclose(posterior.log_normalizer, -3.3725020443, atol=1e-6 if dtype == np.float32 else 6e-11)
    np.testing.assert_allclose(posterior.marginals[:, 0], [0.86734, 0.82042, 0.30748, 0.82042, 0.86734], atol=6e-6)
    np.testing.assert_array_equal(decoded.path, [0, 0, 1, 0, 0])
    np.testing.assert_allclose(decoded.log_prob, -4.459028291, atol=1e-6 if dtype == np.float32 else 6e-10)


@DTYPES
def test_rare_transition(dtype):
    chain = (
        np.array([0.0, -INF]),
        log(np.array([[1 - 1e-9, 1e-9], [0.5, 0.5]])),
        np.array([[0.0, -60.0], [0.0, -60.0], [-60.0, 0.0], [-60.0, 0.0]]),
    )
    _, posterior, _, value, gradients = run(everything, chain, dtype)
    # In float32 a log of about -21 is rounded by 1e-6, and the count by as much.
    loose = dtype == np.float32
    np.testing.assert_allclose(posterior.log_normalizer, -21.416413018506, atol=4e-6 if loose else 6e-13)
    np.testing.assert_allclose(posterior.transition_counts[0, 1], 1, atol=4e-6 if loose else 1e-14)
    np.testing.assert_array_equal(value, posterior.log_normalizer)
    np.testing.assert_array_equal(gradients[1], posterior.transition_counts)


@DTYPES
def test_contradictory_left_right(dtype):
    pattern = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    chain = (
        np.array([0.0, -INF, -INF]),
        log(np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])),
        -300.0 * pattern,
    )
    results = run(everything, chain, dtype)
    _, posterior, _, value, gradients = results
    np.testing.assert_allclose(value, -602.0794415417, atol=6e-5 if dtype == np.float32 else 6e-11)  # one ulp at 602
    _, log_p, visits, pairs = enumerate_paths(*chain)
    weight = np.exp(log_p - np.log(np.exp(log_p + 602).sum()) + 602)
    # The messages reach -600, where float32 has steps of 6e-5.
    close = dict(atol=2e-4 if dtype == np.float32 else 1e-12)
    for got in (posterior.marginals, gradients[2]):
        np.testing.assert_allclose(got, np.tensordot(weight, visits, 1), **close)
    for got in (posterior.transition_counts, gradients[1]):
        np.testing.assert_allclose(got, np.tensordot(weight, pairs, 1).sum(0), **close)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(results))


@pytest.mark.parametrize("varying", [False, True])
def test_impossible_data(varying):
    """A row of -inf at some time, or a state that the chain cannot leave where the data asks it to."""
    log_pi, log_a, log_b = random_chain(0, 2, 6, varying)
    chains = []
    for when in (0, 2, 5):
        missing = log_b.copy()
        missing[when] = -INF
        trapped = log_b.copy()
        trapped[when, 0] = -INF
        stay = np.broadcast_to(log(np.eye(2)), log_a.shape)
        chains += [(when, (log_pi, log_a, missing)), (when, (log(np.array([1.0, 0.0])), stay, trapped))]
    sample = jax.jit(sample_posterior)
    for first, chain in chains:
        filtered, posterior, decoded, value, gradients = run(everything, chain, np.float32)
        assert value == posterior.log_normalizer == filtered.log_normalizer == decoded.log_prob == -INF
        for leaf in (*posterior[1:], *gradients):
            np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
        assert np.isfinite(filtered.log_evidence[:first]).all()
        np.testing.assert_array_equal(filtered.log_evidence[first:], -INF)
        np.testing.assert_array_equal(filtered.log_filtered[first:], -INF)
        np.testing.assert_array_equal(decoded.path, -1)
        np.testing.assert_array_equal(run(lambda *c: sample(jax.random.key(0), *c), chain, np.float32), -1)


def test_nan_is_not_hidden():
    chain = random_chain(0, 2, 6)
    chain[2][3, 1] = np.nan
    _, posterior, _, value, gradients = run(everything, chain, np.float32)
    assert np.isnan(value)
    assert np.isnan(posterior.log_normalizer)
    assert np.isnan(gradients[1]).all()


@pytest.mark.parametrize("varying", [False, True])
def test_second_derivatives_are_posterior_covariances(varying):
    log_pi, log_a, log_b = chain = random_chain(5, 3, 4, varying, zeros=True)
    _, log_p, visits, pairs = enumerate_paths(*chain)
    weight = np.exp(log_p) / np.exp(log_p).sum()
    visits, uses = visits.reshape(len(weight), -1), pairs if varying else pairs.sum(1)
    uses = uses.reshape(len(weight), -1)
    centred = weight[:, None] * (visits - weight @ visits)
    with jax.enable_x64(True):

        @jax.jit
        def hessians(a, b):
            f = lambda a, b: log_normalizer(jnp.asarray(log_pi), a, b)  # noqa: E731
            return jax.hessian(f, 1)(a, b), jax.jacrev(jax.grad(f, 1), (0, 1))(a, b)

        forward, (mixed, reverse) = hessians(jnp.asarray(log_a), jnp.asarray(log_b))
    close = dict(atol=1e-12)  # float64 sums of numbers below one
    np.testing.assert_allclose(np.reshape(forward, (12, 12)), centred.T @ visits, **close)
    np.testing.assert_allclose(np.reshape(reverse, (12, 12)), centred.T @ visits, **close)
    np.testing.assert_allclose(np.reshape(mixed, (12, -1)), centred.T @ uses, **close)


def test_batches_by_vmap_and_forward_mode():
    log_pi, log_a, log_b = random_chain(6, 3, 5)
    b = jnp.asarray(np.stack([log_b, log_b[::-1], log_b * 2]), jnp.float32)
    pi, a = jnp.asarray(log_pi, jnp.float32), jnp.asarray(log_a, jnp.float32)
    together = jax.jit(jax.vmap(everything, (None, None, 0)))(pi, a, b)
    for i in range(3):
        # The same sums, fused differently.
        close = lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=2e-6, atol=2e-6)  # noqa: E731
        jax.tree.map(close, together, everything(pi, a, b[i]))
    directions = jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), (pi, a, b[0]))
    gradients = everything(pi, a, b[0])[-1]
    expected = sum(jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(jax.jvp(jax.jit(log_normalizer), (pi, a, b[0]), directions)[1], expected, rtol=1e-6)


def test_constant_offsets_in_the_likelihood_cost_no_digits():
    """A common term per time, as large as that of an image's density, changes only the log-normaliser."""
    log_pi, log_a, log_b = random_chain(7, 3, 5)
    log_b = np.round(log_b * 64) / 64  # exact in float32, also after adding 8192
    plain = run(everything, (log_pi, log_a, log_b), np.float32)[1]
    moved = run(everything, (log_pi, log_a, log_b - 8192.0), np.float32)[1]
    np.testing.assert_array_equal(plain.marginals, moved.marginals)
    np.testing.assert_array_equal(plain.transition_counts, moved.transition_counts)


def test_a_long_chain_in_float32():
    """T = 100 000 against a scaled recursion in float64 (numpy), from the same float32 numbers."""
    steps, states = 100_000, 3
    rng = np.random.default_rng(8)
    log_a = log(0.9 * np.eye(states) + 0.1 / states).astype(np.float32)
    log_pi = log(np.ones(states) / states).astype(np.float32)
    log_b = (rng.normal(size=(steps, states)) * 2 - 3).astype(np.float32)

    a, b = np.exp(log_a.astype(np.float64)), np.exp(log_b.astype(np.float64))
    alpha, scale, beta = np.empty((steps, states)), np.empty(steps), np.ones((steps, states))
    predicted = np.exp(log_pi.astype(np.float64))
    for t in range(steps):
        joint = predicted * b[t]
        scale[t] = joint.sum()
        alpha[t] = joint / scale[t]
        predicted = alpha[t] @ a
    for t in range(steps - 1, 0, -1):
        beta[t - 1] = a @ (b[t] * beta[t]) / scale[t]
    pairs = a * (alpha[:-1].T @ (b[1:] * beta[1:] / scale[1:, None]))

    filtered, posterior, decoded, value, gradients = run(everything, (log_pi, log_a, log_b), np.float32)
    # The promise is 1e-5 nats per step.
    assert abs(float(posterior.log_normalizer) - np.log(scale).sum()) < 1e-5 * steps
    np.testing.assert_allclose(posterior.marginals, alpha * beta, atol=1e-5)
    np.testing.assert_allclose(posterior.transition_counts, pairs, rtol=1e-5)
    np.testing.assert_allclose(filtered.log_evidence, np.log(scale), atol=1e-5)
    np.testing.assert_allclose([filtered.log_normalizer, value], posterior.log_normalizer, rtol=1.2e-7)  # one rounding
    np.testing.assert_allclose(gradients[1], pairs, rtol=1e-5)
    # The path's log-probability, recomputed in float64 from the path itself.
    path = decoded.path
    exact = np.concatenate([log_pi[path[:1]], log_a[path[:-1], path[1:]], log_b[np.arange(steps), path]])
    np.testing.assert_allclose(decoded.log_prob, exact.sum(dtype=np.float64), rtol=1.2e-7)


def test_the_program_does_not_grow_with_time():
    chains = [tuple(jnp.asarray(x, jnp.float32) for x in random_chain(9, 3, steps)) for steps in (26, 101)]
    draw = jax.jit(lambda *chain: sample_posterior(jax.random.key(0), *chain))
    for function in (everything, draw):
        lines = [len(function.lower(*chain).as_text().splitlines()) for chain in chains]
        assert lines[0] == lines[1]


@pytest.mark.parametrize("varying", [False, True])
def test_posterior_samples_have_the_frequencies_of_the_paths(varying):
    chain = random_chain(10, 3, 4, varying, zeros=True)
    paths, log_p, _, _ = enumerate_paths(*chain)
    probability = np.exp(log_p) / np.exp(log_p).sum()
    n = 20_000
    keys = jax.random.split(jax.random.key(11), n)
    chain = [jnp.asarray(x, jnp.float32) for x in chain]
    sampled = np.asarray(jax.jit(jax.vmap(lambda key: sample_posterior(key, *chain)))(keys))
    assert sampled.dtype == np.int32
    counts = np.bincount(np.ravel_multi_index(tuple(sampled.T), (3,) * 4), minlength=81)
    assert (paths == np.array(np.unravel_index(np.arange(81), (3,) * 4)).T).all()
    assert counts[probability == 0].sum() == 0
    # Five standard deviations on each of 81 cells, and one count for the rare ones.
    assert (np.abs(counts - n * probability) <= 5 * np.sqrt(n * probability) + 1).all()


@pytest.mark.parametrize("varying", [False, True])
def test_prior_samples_have_the_frequencies_of_the_chain(varying):
    log_pi, log_a, _ = random_chain(12, 3, 4, varying, zeros=True)
    _, log_p, _, _ = enumerate_paths(log_pi, log_a, np.zeros((4, 3)))
    n = 20_000
    keys = jax.random.split(jax.random.key(13), n)
    # Neither needs to be normalised.
    pi, a = jnp.asarray(log_pi, jnp.float32) + 3, jnp.asarray(log_a, jnp.float32) - 200
    sampled = np.asarray(jax.jit(jax.vmap(lambda key: sample_path(key, pi, a, 4)))(keys))
    assert sampled.dtype == np.int32
    counts = np.bincount(np.ravel_multi_index(tuple(sampled.T), (3,) * 4), minlength=81)
    assert counts[log_p == -INF].sum() == 0
    assert (np.abs(counts - n * np.exp(log_p)) <= 5 * np.sqrt(n * np.exp(log_p)) + 1).all()
    if not varying:
        assert sample_path(keys[0], pi, a, 1).shape == (1,)


def test_wrong_shapes_are_named():
    pi, a, b = jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((5, 2))
    for function in (forward_filter, smoother, viterbi, log_normalizer):
        for chain in ((pi, a, b.T), (pi, a[0], b), (pi, jnp.zeros((5, 2, 2)), b), (pi, a, b[:0])):
            with pytest.raises(ValueError, match="expected"):
                function(*chain)
    with pytest.raises(ValueError, match="length >= 1"):
        sample_path(jax.random.key(0), pi, a, 0)
    with pytest.raises(ValueError, match="expected"):
        sample_path(jax.random.key(0), pi, jnp.zeros((3, 2, 2)), 3)
