"""Sequences of different lengths, unseen steps, labels, structure, priors and streams of hidden Markov models."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import jaxgen as jg
from jaxgen.core import algebra, fast, latent
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.ops.chains import transitions

RNG = np.random.default_rng(0)
LENGTHS = (5, 9, 3, 12)
ROWS = [RNG.normal(size=(n, 2)).astype(np.float32) + 2 * (RNG.random((n, 1)) < 0.5) for n in LENGTHS]
PACKED = jg.Sequences.pack(ROWS)
MOVE = np.array([[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.2, 0.0, 0.8]], np.float32)


def model(**options):
    mean = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]], np.float32)
    emissions = jg.DiagonalGaussian.from_values(mean, np.ones_like(mean))
    return jg.HMM.from_values([0.5, 0.3, 0.2], MOVE, emissions, **options)


def close(one, two, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@jax.jit
def everything(hmm, x):
    return dict(
        log_prob=hmm.log_prob(x), smooth=hmm.smooth(x), path=hmm.viterbi(x).path, predict=hmm.predict(x),
        pairs=hmm.pairwise(x), lagged=hmm.smooth_lag(x, lag=2), entropy=hmm.path_entropy(x),
        drawn=hmm.sample_posterior(jax.random.key(0), x), statistics=hmm.e_step(x)[0],
    )  # fmt: skip


def test_a_packed_batch_gives_what_each_sequence_gives():
    hmm, rows = model(), [*ROWS[:3], ROWS[3][:5]]
    both = jg.Sequences.pack(rows)
    packed = everything(hmm, both)
    assert both.x.shape == (4, 64, 2) and packed["drawn"].shape == (4, 64)
    total = []
    for i in (0, 3):  # of one length: one program
        one, n = everything(hmm, rows[i][None]), len(rows[i])
        for name, tolerance in dict(log_prob=2e-5, entropy=1e-4).items():
            close(packed[name][i], one[name][0], tolerance)
        for name in ("smooth", "lagged"):
            close(packed[name][i, :n], one[name][0])
            assert not np.asarray(packed[name][i, n:]).any()
        for name in ("path", "predict"):
            assert np.array_equal(packed[name][i, :n], one[name][0])
            assert (np.asarray(packed[name][i, n:]) == -1).all()
        close(packed["pairs"][i, : n - 1], one["pairs"][0])
        assert ((np.asarray(packed["drawn"][i]) >= 0) == (np.arange(64) < n)).all()
        total.append(one["statistics"])
    some = everything(hmm, jax.tree.map(lambda leaf: leaf[[0, 3, 0, 3]], both))["statistics"]
    close(some, jax.tree.map(lambda a, b: 2 * (a + b), *total), 1e-4)  # sums of up to 20 terms around means up to 3
    # twice the padding changes nothing, not by a bit
    longer = everything(hmm, jg.Sequences.pack(rows, steps=128))
    for name in ("log_prob", "entropy"):
        assert np.array_equal(longer[name], packed[name])
    for name in ("smooth", "lagged", "path"):
        assert np.array_equal(longer[name][:, :64], packed[name])
    assert np.array_equal(longer["statistics"].chain.transition, packed["statistics"].chain.transition)


def test_what_is_padded_or_was_not_seen_may_hold_anything():
    hmm, seen = model(), [RNG.random(n) < 0.7 for n in LENGTHS]
    data = jg.Sequences.pack(ROWS, seen)
    holes = [np.where(flag[:, None], row, np.nan) for row, flag in zip(ROWS, seen, strict=True)]
    holed = jg.Sequences.pack(holes, seen)
    assert np.array_equal(hmm.log_prob(data), hmm.log_prob(holed))
    emissions = jg.DiagonalGaussian.from_values(hmm.emissions.mean, np.ones((3, 2), np.float32), missing=True)
    incomplete = jg.HMM(hmm.chain, emissions)
    # the same by emissions that marginalise missing entries
    for i, row in enumerate(holes):
        close(hmm.log_prob(data)[i], incomplete.log_prob(row))
    fitted, other = (jg.fit(jax.random.key(0), one, x, steps=5) for one, x in ((hmm, data), (hmm, holed)))
    close(fitted.model, other.model, 0)
    with pytest.raises(DataError, match="finite"):
        jg.fit(jax.random.key(0), hmm, jg.Sequences.pack(holes), steps=5)


def test_fifty_lengths_share_five_programs():
    hmm, traced = model(), []
    one = jax.jit(lambda data: (traced.append(data.shape), hmm.log_prob(data))[1])
    for n in np.linspace(1, 1000, 50).astype(int):
        one(jg.Sequences.pack([np.zeros((n, 2), np.float32)]))
    assert len(traced) <= 5


def test_lengths_weights_and_labels_in_one_fit():
    weight = np.array([1.0, 2.0, 0.0, 1.0], np.float32)
    doubled = jg.Sequences.pack([ROWS[0], ROWS[1], ROWS[1], ROWS[3]])
    fits = [jg.fit(jax.random.key(0), model(), data, steps=6, tolerance=0.0)
            for data in (dict(x=PACKED, weight=weight), doubled)]  # fmt: skip
    close(fits[0].model, fits[1].model, 1e-4)
    # all states known: the M-step counts
    label = np.full((4, 64), -1)
    paths = [RNG.integers(0, 2, n) for n in LENGTHS]
    for i, path in enumerate(paths):
        label[i, : len(path)] = path
    free = jg.HMM.from_values(None, np.full((3, 3), 1 / 3), model().emissions)
    known = jg.fit(jax.random.key(0), free, dict(x=PACKED, label=label), steps=1).model
    counts = np.zeros((2, 2))
    for path in paths:
        np.add.at(counts, (path[:-1], path[1:]), 1)
    close(known.transition[:2, :2], counts / counts.sum(1, keepdims=True), 1e-5)
    everything = np.concatenate([row[path == 0] for row, path in zip(ROWS, paths, strict=True)])
    close(known.emissions.mean[0], everything.mean(0), 1e-5)
    # an impossible label ends the fit with a status, no NaN
    label[0, :2] = [0, 2]
    with pytest.warns(jg.JaxgenWarning, match="not finite"):
        failed = jg.fit(jax.random.key(0), model(), dict(x=PACKED, label=label), steps=2)
    assert failed.status == jg.Status.NON_FINITE
    with pytest.raises(ModelError, match="labels"):
        jg.fit(jax.random.key(0), model(), dict(x=PACKED, label=label + 1), steps=2)


def test_priors_are_maximised_with_the_likelihood():
    prior = transitions.sticky(3, concentration=2.0, extra=20.0)
    start = model(transition_prior=prior, initial_prior=[2.0, 2.0, 2.0])
    fitted = jg.fit(jax.random.key(0), start, PACKED, steps=30, tolerance=0.0)
    objective = fitted.history["objective"]
    # two units in the last place of thirty nats
    assert np.diff(objective).min() > -4e-6 and np.diff(fitted.history["log_likelihood"]).min() < 0
    plain = jg.fit(jax.random.key(0), model(), PACKED, steps=30, tolerance=0.0)
    assert np.diag(fitted.model.transition).min() > np.diag(plain.model.transition).min()
    # the mode of a Dirichlet, of known paths: (counts + prior - 1) / sum
    chain = jg.MarkovChain.from_values(None, np.full((2, 2), 0.5), transition_prior=[[3.0, 1.0], [1.0, 3.0]])
    mode = jg.fit(jax.random.key(0), chain, np.array([[0, 0, 1, 1, 1, 0]]), steps=1).model
    np.testing.assert_allclose(jnp.exp(mode.log_transition), [[3 / 4, 1 / 4], [1 / 5, 4 / 5]], rtol=1e-6)
    assert np.isneginf(fitted.model.log_transition[0, 2])


def test_held_entries_stay_and_the_others_divide_the_rest():
    held = np.zeros((3, 3), bool)
    held[0, 0] = held[2, 2] = True
    em = jg.EM(frozen={"chain.transition_logits": held, "emissions.offset": True})
    fitted = jg.fit(jax.random.key(0), model(), PACKED, em, steps=30, tolerance=0.0)
    close(fitted.model.transition[held], MOVE[held], 1e-5)
    close(fitted.model.transition.sum(1), np.ones(3), 1e-5)
    assert np.diff(fitted.history["log_likelihood"]).min() > -4e-6
    assert abs(fitted.model.transition[1, 1] - MOVE[1, 1]) > 1e-3
    close(fitted.model.emissions.mean, model().emissions.mean, 0)


def test_a_stationary_start():
    move = transitions.banded(4, stay=0.7)
    emissions = jg.Poisson.from_values(np.array([[1.0], [5.0], [20.0], [50.0]]))
    hmm = jg.HMM.from_values(None, move, emissions, stationary=True)
    value, vector = np.linalg.eig(move.T)
    expected = np.real(vector[:, np.argmax(np.real(value))])
    close(hmm.initial, expected / expected.sum(), 1e-6)
    x = hmm.sample(jax.random.key(0), (40,), length=3)  # short: the start matters
    far = jg.HMM.from_values(None, transitions.banded(4, stay=0.3), hmm.emissions, stationary=True)
    fitted = jg.fit(jax.random.key(1), far, x, steps=40, tolerance=0.0)
    assert np.diff(fitted.history["objective"]).min() > -4e-6
    assert np.array_equal(np.isneginf(fitted.model.log_transition), move == 0)
    # at the end the likelihood has no slope, the start's part of it included
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), far)
        end = jg.fit(jax.random.key(1), wide, x, steps=400, tolerance=1e-13).model
        slope = jax.grad(lambda m: m.log_prob(x).mean())(end).chain.transition_logits
    assert np.abs(slope).max() < 1e-5
    gradient = jax.grad(lambda m: m.log_prob(x).mean())(far)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert latent.free_parameters(hmm) == 6 + 4  # rows of 2, 3, 3 and 2, and a rate each


def test_tied_emissions_are_those_of_the_untied():
    mean = np.array([[0.0, 0.0], [2.0, 2.0]], np.float32)
    emissions = jg.DiagonalGaussian.from_values(mean, np.ones((2, 2), np.float32))
    tied = jg.HMM.from_values([0.5, 0.3, 0.2], MOVE, emissions, tie=(0, 1, 0))
    twice = jg.HMM.from_values([0.5, 0.3, 0.2], MOVE, jax.tree.map(lambda leaf: leaf[np.array([0, 1, 0])], emissions))
    close(tied.log_prob(PACKED), twice.log_prob(PACKED))
    one, two = tied.e_step(PACKED)[0], twice.e_step(PACKED)[0]
    close(one.chain, two.chain)
    shared = jax.tree.map(lambda leaf: leaf[0] + leaf[2], two.emissions)
    close(jax.tree.map(lambda leaf: leaf[0], one.emissions), shared, 1e-4)
    fitted = jg.fit(jax.random.key(0), tied, PACKED, steps=20, tolerance=0.0)
    assert np.diff(fitted.history["log_likelihood"]).min() > -4e-6 and fitted.model.emissions.mean.shape == (2, 2)
    assert tied.sample(jax.random.key(0), length=4).shape == (4, 2)
    swapped = tied.permute([2, 1, 0])
    close(swapped.log_prob(PACKED), tied.log_prob(PACKED))
    with pytest.raises(ModelError, match="tie"):
        jg.HMM.from_values([0.5, 0.3, 0.2], MOVE, emissions, tie=(0, 0, 0))


def test_streams_of_single_steps():
    hmm, x = model(), ROWS[3]
    state, filtered = None, hmm.filter(x)
    for t, y in enumerate(x):
        state = hmm.filter_step(state, y)
        close(jnp.exp(state.log_filtered), jnp.exp(filtered.log_filtered[t]), 1e-5)
    close(state.log_normalizer, hmm.log_prob(x))
    ahead = jnp.exp(hmm.forecast(state, 4).log_states)
    expected = np.exp(state.log_filtered) @ np.stack([np.linalg.matrix_power(MOVE, h) for h in range(1, 5)])
    close(ahead, expected, 1e-5)
    # the density of what comes next is the mixture that it says
    following = jg.Mixture(hmm.forecast(state, 1).log_states[0], hmm.emissions)
    y = np.array([0.5, 1.0], np.float32)
    close(following.log_prob(y), hmm.filter_step(state, y).log_normalizer - state.log_normalizer, 1e-5)


def test_best_paths_and_entropy_by_enumeration():
    hmm, x = model(), ROWS[0]
    start, move, seen = (np.asarray(a, np.float64) for a in (hmm.log_initial, hmm.log_transition,
                         jax.vmap(lambda e: e.log_prob(x))(hmm.emissions).T))  # fmt: skip
    paths = list(itertools.product(range(3), repeat=len(x)))
    joint = np.array([start[p[0]] + sum(move[a, b] for a, b in itertools.pairwise(p))
                      + sum(seen[t, s] for t, s in enumerate(p)) for p in paths])  # fmt: skip
    order = np.argsort(-joint)[:5]
    best = hmm.viterbi(x, best=5)
    assert best.path.tolist() == [list(paths[i]) for i in order]
    close(best.log_prob, joint[order], 1e-5)
    posterior = np.exp(joint - np.logaddexp.reduce(joint))
    entropy = np.sum(scipy.special.entr(posterior))
    close(hmm.path_entropy(x), entropy, 1e-4)


def test_starts_from_data_and_from_a_mixture():
    key = jax.random.key(0)
    start = jg.HMM.init(key, PACKED, 3, jg.DiagonalGaussian.init, transition=transitions.left_right(3, stay=0.8))
    assert np.array_equal(np.isneginf(start.log_transition), transitions.left_right(3) == 0)
    fitted = jg.fit(key, start, PACKED, steps=20)
    assert np.array_equal(np.isneginf(fitted.model.log_transition), transitions.left_right(3) == 0)
    mixture = jg.Mixture.init(key, np.concatenate(ROWS), 2, jg.DiagonalGaussian.init)
    warm = jg.HMM.from_mixture(mixture)
    close(warm.transition.sum(1), np.ones(2), 1e-6)
    close(warm.emissions, mixture.components, 0)
    # restarts and batches of sequences
    many = jg.fit(key, lambda k: jg.HMM.init(k, PACKED, 2, jg.DiagonalGaussian.init), PACKED, restarts=3, steps=10)
    assert many.scores.shape == (3,) and np.isfinite(many.scores).all()
    online = jg.fit(key, warm, PACKED, jg.StepwiseEM(), batch_size=2, steps=20)
    assert np.isfinite(online.history["log_likelihood"]).all()
    assert float(online.model.log_prob(PACKED).sum()) > float(warm.log_prob(PACKED).sum())


def test_mixtures_of_sequences_of_different_lengths():
    key = jax.random.key(0)
    start = jg.Mixture.init(key, PACKED, 2, lambda key, x: jg.HMM.init(key, x, 2, jg.DiagonalGaussian.init))
    fitted = jg.fit(key, start, PACKED, steps=10, tolerance=0.0)
    assert np.diff(fitted.history["log_likelihood"]).min() > -1e-5
    assert fitted.model.responsibilities(PACKED).shape == (4, 2)


def test_sequences_that_are_none():
    with pytest.raises(DataError, match="no sequence"):
        jg.Sequences.pack([])
    with pytest.raises(DataError, match="empty"):
        jg.Sequences.pack([[], [1.0]])
    with pytest.raises(ShapeError, match="several kinds"):
        jg.Sequences.pack([np.zeros((3, 1)), np.zeros((3, 2))])
    with pytest.raises(ShapeError, match="steps=5"):
        jg.Sequences.pack([np.zeros(5)], steps=4)
    with pytest.raises(ShapeError, match="flags"):
        jg.Sequences.pack([np.zeros(5)], [np.ones(4, bool)])
    with pytest.raises(DataError, match="lengths"):
        model().log_prob(jg.Sequences(PACKED.x, np.array([0, 1, 2, 65])))
    with pytest.raises(ShapeError, match="belong together"):
        model().log_prob(jg.Sequences(PACKED.x, np.array([1, 2])))
    with pytest.raises(ShapeError, match="one event"):
        model().log_prob(jg.Sequences.pack([np.zeros(5)]))
    with pytest.raises(DataError, match="Sequences.pack"):
        jg.fit(jax.random.key(0), model(), [row.tolist() for row in ROWS])
    with pytest.raises(ModelError, match="Dirichlet"):
        model(transition_prior=-np.ones((3, 3)))
    with pytest.raises(ModelError, match="stay"):
        transitions.left_right(0)
    with pytest.raises(ModelError, match="not there"):
        jg.fit(jax.random.key(0), model().chain, np.array([[0, 3]]))
    with pytest.raises((ShapeError, FitError), match="context"):
        jg.fit(jax.random.key(0), model(), (PACKED, np.zeros((4, 64, 1))))


@pytest.mark.parametrize("n", [4000, 4096, 4097, 8192, 9973])
def test_many_steps_are_scored_in_blocks(n):
    x = jnp.asarray(np.random.default_rng(n).normal(size=(n, 2)), jnp.float32)
    emissions = model().emissions
    whole = algebra.component_log_prob(emissions, x).T
    close(fast.each_log_prob(emissions, x), whole, 1e-6)
    for limit in (0, 2**20):  # columns made block by block, and kept; rounding of sums of squares up to about 30
        events = fast.with_columns(emissions, x, limit)
        assert (events.columns is None) == (limit == 0)
        np.testing.assert_allclose(events.center, jnp.mean(x, axis=0), atol=1e-6)
        close(fast.each_log_prob(emissions.ready(events.center, n), events), whole, 1e-5)
