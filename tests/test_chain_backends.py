"""Chains in every way of running them: batches, lengths, unseen steps, padding, k best paths, streams, fallbacks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.ops import chains
from jaxgen.ops.chains import Associative, Blocked, Sequential
from jaxgen.ops.chains.backends import choose, layout, ratio_gap

INF = np.inf
#: blocks far too short to forget in, and one sweep, so that repairs and fallbacks run
BACKENDS = [Sequential(), Blocked(2, sweeps=1), Associative()]
#: shape of most tests: compiling is most of the time here
B, T, K = 3, 5, 3
WAYS = pytest.mark.parametrize("backend", BACKENDS, ids=str)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


@functools.partial(jax.jit, static_argnames="backend")
def core(pi, a, b, length, observed, backend):
    """What has backends, in one program."""
    how = dict(length=length, observed=observed, backend=backend)
    value = lambda *c: jnp.sum(chains.log_normalizer(*c, **how))  # noqa: E731
    return {
        "filter": chains.forward_filter(pi, a, b, **how),
        "smoother": chains.smoother(pi, a, b, **how),
        "gradient": jax.grad(value, (0, 1, 2))(pi, a, b),
        "viterbi": chains.viterbi(pi, a, b, **how),
    }


@functools.partial(jax.jit, static_argnames=("best", "lag"))
def rest(pi, a, b, length, observed, best=3, lag=2):
    """What is made from it."""
    where = dict(length=length, observed=observed)
    return {
        "pairs": chains.pair_posteriors(pi, a, b, **where),
        "best": chains.viterbi_best(pi, a, b, best, **where),
        "decoded": chains.decode_posterior(pi, a, b, **where),
        "lag": chains.fixed_lag(pi, a, b, lag, **where),
        "drawn": chains.sample_posterior(jax.random.key(0), pi, a, b, **where),
    }


def run(chain, dtype, backend, length=None, observed=None, function=core):
    batch, steps = chain[2].shape[:2]
    length = np.full(batch, steps) if length is None else length
    observed = np.ones((batch, steps), bool) if observed is None else observed
    more = () if backend is None else (backend,)
    with jax.enable_x64(dtype == np.float64):
        arrays = [jnp.asarray(x, dtype) for x in chain]
        length = jnp.asarray(length, jnp.int32)
        return jax.tree.map(np.asarray, function(*arrays, length, jnp.asarray(observed), *more))


def random_chain(rng, batch, steps, states, varying=False, zeros=False):
    pi = rng.dirichlet(np.ones(states))
    a = rng.dirichlet(np.ones(states), (steps - 1, states) if varying else states)
    likelihood = rng.gamma(0.5, size=(batch, steps, states))
    if zeros:
        a[..., -1, 1:] = 0
        pi[-1] = 0
        likelihood[rng.random(likelihood.shape) < 0.2] = 0
        likelihood[..., 0] += 0.1
    return log(pi), log(a), log(likelihood)


def enumerate_paths(log_pi, log_a, log_b):
    """All paths [P, T] with their log-probabilities [P]."""
    steps, states = log_b.shape
    paths = np.array(list(itertools.product(range(states), repeat=steps)))
    time = np.arange(steps)
    log_a = np.broadcast_to(log_a, (max(steps - 1, 0), states, states)) if log_a.ndim == 2 else log_a[: steps - 1]
    moves = log_a[time[:-1], paths[:, :-1], paths[:, 1:]].sum(1)
    return paths, log_pi[paths[:, 0]] + moves + log_b[time, paths].sum(1)


def examples(count, varying):
    """Random zeros, lengths and unseen steps, where the data hold NaN."""
    rng = np.random.default_rng(2)
    for example in range(count):
        chain = random_chain(rng, B, T, K, varying, zeros=example % 2 == 0)
        length, observed = rng.integers(1, T + 1, B), rng.random((B, T)) < 0.8
        held = np.where(observed[..., None] & (np.arange(T) < length[:, None])[..., None], chain[2], np.nan)
        yield chain, (chain[0], chain[1], held), length, observed


def one_by_one(results, chain, length, observed):
    """Each sequence's results with the log-probabilities of all paths, marginals and pairs."""
    pi, a, b = chain
    for n, (end, seen) in enumerate(zip(length, observed, strict=True)):
        row = np.where(seen[:, None], b[n], 0)[:end]
        paths, log_p = enumerate_paths(pi, a, row)
        weight = np.exp(log_p) / np.exp(log_p).sum()
        visits = paths[:, :, None] == np.arange(len(pi))
        pairs = np.tensordot(weight, visits[:, :-1, :, None] & visits[:, 1:, None, :], 1)
        one = jax.tree.map(lambda x, n=n: x[n], {k: v for k, v in results.items() if k != "gradient"})
        yield n, one, row, end, seen[:end], log_p, np.tensordot(weight, visits, 1), pairs


# sums of some tens of rounded logarithms of moderate size
close = functools.partial(np.testing.assert_allclose, atol=1e-12, rtol=1e-12)


def index(path):
    return int(np.ravel_multi_index(tuple(path), (K,) * len(path)))


@pytest.mark.parametrize(
    ("backend", "varying"), [(way, False) for way in BACKENDS] + [(way, True) for way in BACKENDS[1:]], ids=str
)
def test_backends_equal_enumeration(backend, varying):
    for chain, held, length, observed in examples(6, varying):
        results = run(held, np.float64, backend, length, observed)
        sums = np.zeros_like(chain[1])
        for n, one, row, end, seen, log_p, marginals, pairs in one_by_one(results, chain, length, observed):
            total = np.log(np.exp(log_p).sum())
            close([one["filter"].log_normalizer, one["smoother"].log_normalizer], total)
            close(one["smoother"].marginals[:end], marginals)
            counts = np.concatenate([pairs, np.zeros((T - end, K, K))]) if varying else pairs.sum(0)
            close(one["smoother"].transition_counts, counts)
            sums += counts
            close(results["gradient"][2][n][:end], np.where(seen[:, None], marginals, 0))
            for t in range(end):
                some, log_some = enumerate_paths(chain[0], chain[1], row[: t + 1])
                p = np.exp(log_some)
                close(np.exp(one["filter"].log_filtered[t]), [p[some[:, -1] == k].sum() / p.sum() for k in range(K)])
                close(one["filter"].log_evidence[: t + 1].sum(), np.log(p.sum()))
            close(one["viterbi"].log_prob, log_p.max())
            close(log_p[index(one["viterbi"].path[:end])], log_p.max())
            for zero in (one["smoother"].marginals, results["gradient"][2][n], one["filter"].log_evidence):
                np.testing.assert_array_equal(zero[end:], 0)
            np.testing.assert_array_equal(one["viterbi"].path[end:], -1)
            np.testing.assert_array_equal(one["filter"].log_filtered[end:], -INF)
        close(results["gradient"][1], sums)


@pytest.mark.parametrize("varying", [False, True])
def test_the_rest_equals_enumeration(varying):
    for chain, held, length, observed in examples(6, varying):
        results = run(held, np.float64, None, length, observed, rest)
        for _, one, row, end, _, log_p, marginals, pairs in one_by_one(results, chain, length, observed):
            close(one["pairs"][: end - 1], pairs)
            for t in range(end):
                some, log_some = enumerate_paths(chain[0], chain[1], row[: t + 3])
                p = np.exp(log_some)
                close(one["lag"][t], [p[some[:, t] == k].sum() / p.sum() for k in range(K)])
            want = np.append(np.sort(log_p)[::-1], [-INF] * 3)[:3]
            close(one["best"].log_prob, want)
            found = [index(p[:end]) for p, w in zip(one["best"].path, want, strict=True) if w > -INF]
            assert len(set(found)) == len(found)
            close(log_p[found], want[: len(found)])
            assert (one["best"].path[want == -INF] == -1).all()
            close(marginals[np.arange(end), one["decoded"][:end]], marginals.max(1))
            assert log_p[index(one["drawn"][:end])] > -INF
            for zero in (one["lag"][end:], one["pairs"][max(end - 1, 0) :]):
                np.testing.assert_array_equal(zero, 0)
            for path in (one["best"].path[:, end:], one["decoded"][end:], one["drawn"][end:]):
                np.testing.assert_array_equal(path, -1)


LEFT_RIGHT = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
#: chains of up to three states and five steps, with their log-likelihoods
FIGURES = {
    "two states": (
        [0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], log(np.array([[0.9, 0.2]] * 2 + [[0.1, 0.8]] + [[0.9, 0.2]] * 2)),
        -3.3725020443,
    ),
    "rare transition": (
        [1, 0], [[1 - 1e-9, 1e-9], [0.5, 0.5]], [[0, -60]] * 2 + [[-60, 0]] * 2, -21.416413018506,
    ),
    "contradictory": ([1, 0, 0], LEFT_RIGHT, -300 * np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]),
                      -602.0794415417),
}  # fmt: skip


@DTYPES
@WAYS
def test_published_figures(backend, dtype):
    for name, (pi, a, b, value) in FIGURES.items():
        b = np.asarray(b, float)
        steps, states = b.shape
        padded = np.full(K, -INF), np.full((K, K), -INF), np.full((B, T, K), -INF)
        padded[0][:states], padded[1][:states, :states], padded[2][:, :steps, :states] = log(np.array(pi)), log(a), b
        results = run(padded, dtype, backend, np.full(B, steps))
        # a few units in the last place of the largest message, or of what was published
        unit = 4 * np.finfo(dtype).eps * abs(value) + 6e-11
        for got in (results["filter"], results["smoother"]):
            np.testing.assert_allclose(got.log_normalizer, value, atol=unit)
        assert not any(np.isnan(x).any() for x in jax.tree.leaves(results)), name
        paths, log_p = enumerate_paths(padded[0], padded[1], padded[2][0, :steps])
        weight = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
        marginals = np.tensordot(weight, paths[:, :, None] == np.arange(K), 1)
        np.testing.assert_allclose(results["smoother"].marginals[0, :steps], marginals, atol=8 * unit)
        np.testing.assert_allclose(results["gradient"][2][0, :steps], marginals, atol=8 * unit)
        np.testing.assert_allclose(results["gradient"][1], results["smoother"].transition_counts.sum(0), rtol=1e-6)
        if name == "two states":
            expected = [0.86734, 0.82042, 0.30748, 0.82042, 0.86734]
            np.testing.assert_allclose(results["smoother"].marginals[0, :, 0], expected, atol=6e-6)
            assert results["viterbi"].path[0].tolist() == [0, 0, 1, 0, 0]
            np.testing.assert_allclose(results["viterbi"].log_prob, -4.459028291, atol=unit + 6e-10)
        if name == "rare transition":
            np.testing.assert_allclose(results["smoother"].transition_counts[0, 0, 1], 1, atol=unit)


@WAYS
def test_impossible_and_not_a_number(backend):
    """One sequence of a batch that cannot be, one that is NaN: the third is as it is alone."""
    pi, a, b = random_chain(np.random.default_rng(3), B, T, K)
    b[0, 2], b[1, 3, 0] = -INF, np.nan
    results = run((pi, a, b), np.float32, backend)
    assert results["smoother"].log_normalizer[0] == results["viterbi"].log_prob[0] == -INF
    for x in (*results["smoother"][1:], results["gradient"][2]):
        np.testing.assert_array_equal(x[0], 0)
    np.testing.assert_array_equal(results["viterbi"].path[0], -1)
    assert (results["filter"].log_filtered[0, 2:] == -INF).all()
    assert np.isfinite(results["filter"].log_evidence[0, :2]).all()
    assert np.isnan(results["smoother"].log_normalizer[1]) and np.isnan(results["filter"].log_normalizer[1])
    if backend == BACKENDS[0]:
        made = run((pi, a, b), np.float32, None, function=rest)
        assert (made["best"].log_prob[0] == -INF).all()
        for path in (made["best"].path, made["decoded"], made["drawn"]):
            np.testing.assert_array_equal(path[0], -1)
        np.testing.assert_array_equal(made["pairs"][0], 0)
        np.testing.assert_array_equal(made["lag"][0], 0)
    b[:2] = b[2]
    alone = run((pi, a, b), np.float32, backend)
    for name in ("filter", "smoother", "viterbi"):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2], y[2]), results[name], alone[name])


@pytest.mark.parametrize("backend", [Sequential(), Blocked(8), Associative()], ids=str)
def test_padding_changes_no_bit(backend):
    pi, a, b = random_chain(np.random.default_rng(4), 2, 37, K, zeros=True)

    @jax.jit
    def some(b, length):
        how = dict(length=length, backend=backend)
        c = jnp.asarray(pi, jnp.float32), jnp.asarray(a, jnp.float32), b
        path = chains.sample_posterior(jax.random.key(0), *c, **how) if backend == Sequential() else None
        return chains.smoother(*c, **how), chains.viterbi(*c, **how), path

    wide = np.full((2, 64, K), np.nan, np.float32)
    wide[:, :37] = b
    plain, padded = some(jnp.asarray(b, jnp.float32), None), some(wide, jnp.full(2, 37))
    for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(x, y[tuple(slice(None, n) for n in x.shape)])  # time is the only axis that grew


def long_chain(states=4, steps=1500, seed=6):
    rng = np.random.default_rng(seed)
    a = log(0.8 * np.eye(states) + 0.2 * rng.dirichlet(np.ones(states), states))
    return log(rng.dirichlet(np.ones(states))), a, 2 * rng.normal(size=(2, steps, states)) - 900


@functools.partial(jax.jit, static_argnames="backend")
def smooth(*chain, backend):
    return chains.smoother(*chain, backend=backend)


@DTYPES
def test_backends_agree_on_a_long_chain(dtype):
    with jax.enable_x64(dtype == np.float64):
        arrays = [jnp.asarray(x, dtype) for x in long_chain()]
        want = smooth(*arrays, backend=Sequential())
        got = [smooth(*arrays, backend=way) for way in (Blocked(64), Associative())]
        viterbi = jax.jit(chains.viterbi, static_argnames="backend")
        paths = [viterbi(*arrays, backend=way) for way in (Blocked(64), Sequential())]
    per_step = 1e-5 if dtype == np.float32 else 1e-10
    for one in got:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=per_step, atol=per_step), one, want)
    # blocks that fit together hold what the sequential recursion computes
    jax.tree.map(np.testing.assert_array_equal, *paths)


@pytest.mark.parametrize("stay", [0.5, 0.999999])
def test_slow_chains_fall_back(stay):
    """With little mixing and no information, boundaries never settle: blocks then run one after the other."""
    a = log(np.array([[stay, 1 - stay], [1 - stay, stay]]))
    chain = log(np.array([0.99, 0.01])), a, np.zeros((1, 512, 2))
    arrays = [jnp.asarray(x, jnp.float32) for x in chain]
    got, want = (smooth(*arrays, backend=way) for way in (Blocked(8), Sequential()))
    np.testing.assert_allclose(got.marginals, want.marginals, rtol=3e-6)
    exact = [0.99]
    for _ in range(511):
        exact.append(exact[-1] * stay + (1 - exact[-1]) * (1 - stay))
    np.testing.assert_allclose(got.marginals[0, :, 0], exact, rtol=3e-5)


def test_a_million_steps_in_float32():
    rng = np.random.default_rng(8)
    steps = 1_000_000
    a = log(0.9 * np.eye(3) + 0.1 / 3).astype(np.float32)
    pi, b = log(np.ones(3) / 3).astype(np.float32), (rng.normal(size=(steps, 3)) * 2 - 3).astype(np.float32)
    values = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            values.append(float(jax.jit(chains.log_normalizer)(*(jnp.asarray(x, dtype) for x in (pi, a, b)))))
    assert abs(values[0] - values[1]) < 1e-5 * steps


def test_viterbi_in_float32_is_the_path_in_float64():
    rng = np.random.default_rng(9)
    a, b = log(rng.dirichlet(np.ones(8) * 5, 8) * 0.4 + 0.6 * np.eye(8)), rng.normal(size=(20_000, 8)) * 2
    chain = [x.astype(np.float32) for x in (np.full(8, -np.log(8)), a, b)]
    paths = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            paths.append(np.asarray(jax.jit(chains.viterbi)(*(jnp.asarray(x, dtype) for x in chain)).path))
    np.testing.assert_array_equal(*paths)


def test_ties_go_to_the_lower_state():
    for way in BACKENDS:
        results = run((np.zeros(K), np.zeros((K, K)), np.zeros((B, T, K))), np.float64, way)
        assert not results["viterbi"].path.any()
    best = jax.jit(chains.viterbi_best, static_argnums=3)(jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((2, 2)), 5)
    assert best.log_prob.tolist() == [0, 0, 0, 0, -INF]
    assert {tuple(p) for p in best.path.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1), (-1, -1)}


def test_a_stream_is_a_filter():
    pi, a, b = (jnp.asarray(x, jnp.float32) for x in random_chain(np.random.default_rng(10), 2, 6, 3, varying=True))
    forward, step = jax.jit(chains.forward_filter), jax.jit(chains.filter_step)
    whole = forward(pi, a, b)
    state = chains.start_filter(pi, b[:, 0])
    for t in range(1, 6):
        state = step(state, b[:, t], a[t - 1])
        np.testing.assert_allclose(state.log_filtered, whole.log_filtered[:, t], atol=3e-6)
    np.testing.assert_allclose(state.log_normalizer, whole.log_normalizer, rtol=3e-6)
    ahead = chains.forecast(state.log_filtered, a[0], 4)
    unseen = jnp.concatenate([b, jnp.full((2, 4, 3), jnp.nan)], axis=1)
    moves = jnp.concatenate([a, jnp.broadcast_to(a[0], (4, 3, 3))])
    later = forward(pi, moves, unseen, observed=jnp.arange(10) < 6)
    np.testing.assert_allclose(ahead, later.log_filtered[:, 6:], atol=3e-6)


@pytest.mark.parametrize("way", [Sequential(), Blocked(2)], ids=str)
def test_batches_of_chains_and_vmap(way):
    """Transitions of each sequence's own and lengths, natively and under vmap."""
    rng = np.random.default_rng(11)
    pi, a, b = (jnp.asarray(x, jnp.float32) for x in random_chain(rng, 3, 6, 3, varying=True))
    own = jnp.stack([a, a[::-1], jnp.roll(a, 1, 0)])
    length = jnp.array([6, 4, 0])
    one = lambda a, b, n: chains.smoother(pi, a, b, length=n, backend=way)  # noqa: E731
    whole = jax.jit(one)(own, b, length)
    mapped = jax.jit(jax.vmap(one))(own, b, length)
    alone = jax.jit(one)
    for n in range(3):
        each = alone(own[n], b[n], length[n])
        for other in (whole, mapped):
            jax.tree.map(lambda x, y, n=n: np.testing.assert_allclose(x[n], y, rtol=3e-6, atol=3e-6), other, each)
    assert whole.log_normalizer[2] == 0
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(whole))


def test_gradients_of_filtered_and_smoothed():
    """Against finite differences, for a program that has blocks and fallbacks."""
    pi, a, b = random_chain(np.random.default_rng(12), 1, 9, 2)
    with jax.enable_x64(True):
        pi, a, b = (jnp.asarray(x) for x in (pi, a, b[0]))

        @jax.jit
        def both(b):
            filtered = chains.forward_filter(pi, a, b, backend=Blocked(4)).log_filtered[4, 0]
            return filtered + chains.smoother(pi, a, b, backend=Blocked(4)).marginals[3, 0]

        gradient = jax.jit(jax.grad(both))(b)
        step = np.zeros((9, 2))
        step[4, 1] = 1e-5
        assert abs(gradient[4, 1]) > 1e-3
        # the error of a central difference is the square of its step
        np.testing.assert_allclose(gradient[4, 1], (both(b + step) - both(b - step)) / 2e-5, atol=1e-9)


def count(jaxpr):
    inner = [p for e in jaxpr.eqns for v in e.params.values() for p in (v if isinstance(v, (tuple, list)) else (v,))]
    inner = [getattr(p, "jaxpr", p) for p in inner]
    return len(jaxpr.eqns) + sum(count(p) for p in inner if hasattr(p, "eqns"))


@pytest.mark.parametrize("backend", [Sequential(), Blocked(16)], ids=str)
def test_programs_do_not_grow_and_compile_once(backend):
    sizes = set()
    for states, steps in ((3, 40), (9, 300)):
        shapes = jnp.zeros(states), jnp.zeros((states, states)), jnp.zeros((2, steps, states))
        program = lambda *c: core.__wrapped__(*c, jnp.array([3, 4]), None, backend)  # noqa: E731
        sizes.add(count(jax.make_jaxpr(program)(*shapes).jaxpr))
    assert len(sizes) == 1 and min(sizes) > 100
    traces = []

    @functools.partial(jax.jit, static_argnames="backend")
    def once(*chain, backend):
        traces.append(1)
        return chains.smoother(*chain, backend=backend)

    for way in (Blocked(16), Blocked(size=16)):
        once(jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((3, 2)), backend=way)
    assert len(traces) == 1


def test_choice_and_layout():
    assert choose(None, 1, 100_000, 8) == choose(None, 64, 5000, 32) == Sequential()
    assert choose(Associative(), 1, 5, 2) == Associative()
    x = jnp.arange(2 * 7 * 3.0).reshape(2, 7, 3)
    for way in (Sequential(), Blocked(3), Blocked(7), Blocked(9)):
        shape = layout(way, 2, 7)
        np.testing.assert_array_equal(shape.join(shape.cut(x)), x)
        np.testing.assert_array_equal(shape.at(shape.cut(x), jnp.array([1, 6])), x[jnp.arange(2), jnp.array([1, 6])])
    assert ratio_gap(jnp.ones((3, 1)), jnp.array([[1.0], [1.0], [2.0]]))[0] == pytest.approx(np.log(2))
    assert ratio_gap(jnp.ones((2, 1)), jnp.array([[1.0], [0.0]]))[0] == INF


def test_errors():
    pi, a, b = jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros((3, 5, 2))
    for options, match in (
        (dict(length=jnp.array([5, 6, 5])), "from 0 to T = 5"), (dict(length=jnp.array([5, 4])), "length does not fit"),
        (dict(length=jnp.ones(3)), "integer"), (dict(observed=jnp.ones((3, 4), bool)), "observed does not fit"),
    ):  # fmt: skip
        for function in (chains.forward_filter, chains.smoother, chains.viterbi, chains.log_normalizer):
            with pytest.raises(ValueError, match=match):
                function(pi, a, b, **options)
    for call, match in (
        (lambda: chains.viterbi_best(pi, a, b, 0), "best >= 1"), (lambda: chains.fixed_lag(pi, a, b, -1), "lag >= 0"),
        (lambda: chains.forecast(pi, a, 0), "horizon"), (lambda: chains.forecast(pi, a[None], 2), "horizon"),
        (lambda: chains.smoother(pi, jnp.zeros((2, 4, 2, 2)), b), "expected"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            call()
