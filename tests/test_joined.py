"""Sequences of many lengths in rows of one: what `fit` makes of them changes no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.core.sequences import Joined, Sequences, join
from jaxgen.fit.em import EM
from jaxgen.ops import chains

RNG = np.random.default_rng(0)
LENGTHS = [5, 60, 33, 1, 18, 47, 60, 2, 29, 11]
SEQUENCES = [RNG.normal(size=(n, 2)) + 2 * RNG.integers(0, 2, (n, 1)) for n in LENGTHS]


def start(stationary=False):
    emissions = jg.DiagonalGaussian.from_values(np.array([[0.0, 0], [2, 1], [1, 2]]), np.ones((3, 2)))
    move = np.array([[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.2, 0.0, 0.8]])
    return jg.HMM.from_values(None if stationary else [0.5, 0.3, 0.2], move, emissions, stationary=stationary)


def test_rows_hold_every_step_once():
    data = Sequences.pack(SEQUENCES, observed=[RNG.random(n) < 0.8 for n in LENGTHS])
    label = np.where(np.arange(64) < np.array(LENGTHS)[:, None], np.arange(10)[:, None], -1)
    rows, known = join(data, label)
    assert rows.x.shape[0] * rows.x.shape[1] <= 1.2 * sum(LENGTHS)
    found = {}
    for row in range(len(rows.length)):
        begins = [*np.flatnonzero(rows.starts[row]), rows.length[row]]
        for a, b in zip(begins[:-1], begins[1:], strict=True):
            n = int(known[row, a])
            assert (known[row, a:b] == n).all()
            np.testing.assert_array_equal(rows.x[row, a:b], data.x[n, : LENGTHS[n]])
            np.testing.assert_array_equal(rows.observed[row, a:b], data.observed[n, : LENGTHS[n]])
            found[n] = b - a
    assert found == dict(enumerate(LENGTHS)) and np.sum(rows.count) == 10
    # nothing to gain
    assert join(Sequences(np.zeros((4, 8)), np.full(4, 8))) is None


@pytest.mark.parametrize("kind", ["scaled", "logs", "impossible"])
def test_the_smoother_of_rows_is_that_of_sequences(kind):
    rng = np.random.default_rng(1)
    b = -rng.exponential(size=(3, 9, 3))
    b[1] = -400.0 * (np.arange(9)[:, None] % 3 == np.arange(3)) if kind == "logs" else b[1]
    b[1, 2] = -np.inf if kind == "impossible" else b[1, 2]
    pi, a = np.log([0.5, 0.3, 0.2]), np.log([[0.5, 0.5, 1e-99], [1e-99, 0.5, 0.5], [1e-99, 1e-99, 1.0]])
    if kind == "logs":  # each sequence has to go against the chain
        a = np.where(a < -200, -np.inf, a)
    lengths, cuts = [9, 4, 7], [(0, 9), (9, 13), (13, 20)]
    rows = np.concatenate([b[n, :end] for n, end in enumerate(lengths)] + [np.full((2, 3), np.nan)])[None]
    starts = np.isin(np.arange(22), [0, 9, 13])[None]
    with jax.enable_x64(True):
        want = jax.jit(chains.smoother)(pi, a, b, length=jnp.array(lengths))
        for way in (None, chains.Blocked(4, sweeps=1)):
            got = jax.jit(lambda *c, way=way: chains.smoother(
                *c, length=jnp.array([20]), starts=jnp.asarray(starts), backend=way))(pi, a, rows)  # fmt: skip
            close = dict(rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(got.log_normalizer[0], want.log_normalizer.sum(), **close)
            if kind != "impossible":
                np.testing.assert_allclose(got.transition_counts[0], want.transition_counts.sum(0), **close)
            for n, (first, end) in enumerate(cuts):
                np.testing.assert_allclose(got.marginals[0, first:end], want.marginals[n, : lengths[n]], **close)
            np.testing.assert_array_equal(got.marginals[0, 20:], 0)


@pytest.mark.parametrize("stationary", [False, True])
def test_a_fit_is_that_of_padded_sequences(stationary):
    label = np.full((10, 64), -1)
    label[2, :30] = 1
    data = dict(x=Sequences.pack(SEQUENCES, observed=[RNG.random(n) < 0.8 for n in LENGTHS]), label=label)
    with jax.enable_x64(True):
        model, options = start(stationary), dict(steps=15, tolerance=0.0)
        assert isinstance(EM().arrange(model, jg.core.inputs.Batch(**data)).x, Joined)
        joined = jg.fit(jax.random.key(0), model, data, **options)
        # weights keep sequences apart
        padded = jg.fit(jax.random.key(0), model, data | {"weight": np.ones(10)}, **options)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), joined.history, padded.history)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-8), joined.model, padded.model)
