"""Hidden Markov models against hmmlearn, enumeration of all paths, and published values."""

import functools
import itertools

import hmmlearn.hmm
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.bijections import Affine
from jaxgen.core.errors import DataError, FitError, ModelError, ShapeError
from jaxgen.models.chains.emissions import emission_statistics
from jaxgen.models.chains.hmm import HMM
from jaxgen.models.chains.markov import MarkovChain
from jaxgen.models.densities.categorical import Categorical
from jaxgen.models.densities.diagonal_gaussian import DiagonalGaussian
from jaxgen.models.densities.gaussian import Gaussian
from jaxgen.models.densities.poisson import Poisson
from jaxgen.models.densities.standard_normal import StandardNormal
from jaxgen.models.latent.mixture import Mixture
from jaxgen.models.neural.flow import Flow

RNG = np.random.RandomState(0)
N, T, D, K = 3, 60, 2, 3
STEPS = 50
SERIES = RNG.randn(N, T, D) + 3 * RNG.randint(0, 3, (N, T // 10)).repeat(10, axis=1)[..., None]


def start_values():
    """Start, transitions and emission parameters that no model has converged to."""
    rng = np.random.RandomState(1)
    initial, transition = rng.dirichlet(np.ones(K)), rng.dirichlet(3 * np.ones(K), K)
    mean, factor = 2 * rng.randn(K, D), rng.randn(K, D, D)
    covariance = factor @ factor.transpose(0, 2, 1) + np.eye(D)
    return initial, transition, mean, covariance, rng.dirichlet(np.ones(4), K), rng.gamma(3, 1, (K, D))


def families():
    """Per family: the peer, data, and the emissions with the same parameters (a function of the dtype)."""
    _, _, mean, covariance, labels, rate = start_values()
    # hmmlearn's own priors on covariances are not flat
    flat = dict(n_components=K, n_iter=STEPS, tol=-np.inf, init_params="")
    gaussian = dict(**flat, covars_prior=0.0, covars_weight=0.0, min_covar=0.0)
    diagonal = np.einsum("kdd->kd", covariance)
    return {
        "categorical": (
            hmmlearn.hmm.CategoricalHMM(**flat), {"emissionprob_": labels}, RNG.randint(0, 4, (N, T)),
            lambda dtype: Categorical.from_values(labels.astype(dtype)),
        ),
        "diagonal": (
            hmmlearn.hmm.GaussianHMM(covariance_type="diag", **gaussian), {"means_": mean, "covars_": diagonal}, SERIES,
            lambda dtype: DiagonalGaussian.from_values(mean.astype(dtype), np.sqrt(diagonal).astype(dtype)),
        ),
        "full": (
            hmmlearn.hmm.GaussianHMM(covariance_type="full", **gaussian),
            {"means_": mean, "covars_": covariance}, SERIES,
            lambda dtype: Gaussian.from_values(mean.astype(dtype), covariance.astype(dtype)),
        ),
        "tied": (
            hmmlearn.hmm.GaussianHMM(covariance_type="tied", **gaussian),
            {"means_": mean, "covars_": covariance[0]}, SERIES,
            lambda dtype: Gaussian.from_values(
                mean.astype(dtype), np.stack([covariance[0]] * K).astype(dtype), tied=True
            ),
        ),
        "spherical": (
            hmmlearn.hmm.GaussianHMM(covariance_type="spherical", **gaussian),
            {"means_": mean, "covars_": diagonal.mean(1)}, SERIES,
            lambda dtype: DiagonalGaussian.from_values(
                mean.astype(dtype), np.sqrt(diagonal.mean(1))[:, None].repeat(D, 1).astype(dtype), spherical=True
            ),
        ),
        "poisson": (
            hmmlearn.hmm.PoissonHMM(**flat), {"lambdas_": rate}, RNG.poisson(np.abs(SERIES)),
            lambda dtype: Poisson.from_values(rate.astype(dtype)),
        ),
    }  # fmt: skip


@functools.partial(jax.jit, static_argnames="steps")
def baum_welch(model, x, steps):
    fitted = jg.scan_fit(jax.random.key(0), model, x, jg.EM(), steps=steps)
    return fitted.history["log_likelihood"], fitted.model, fitted.status


@jax.jit
def everything(model, x):
    """All answers of a model in one program, which compiles once per shape."""
    return model.log_prob(x), model.smooth(x), model.viterbi(x), model.filter(x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["categorical", "diagonal", "spherical", "full", "tied", "poisson"])
def test_fifty_iterations_equal_hmmlearn(name, dtype):
    peer, parameters, x, emissions = families()[name]
    initial, transition = start_values()[:2]
    peer.startprob_, peer.transmat_ = initial, transition
    for key, value in parameters.items():
        setattr(peer, key, value)
    flat, lengths = x.reshape(N * T, -1), [T] * N
    peer.fit(flat, lengths)
    with jax.enable_x64(dtype == np.float64):
        x = x if x.dtype.kind == "i" else x.astype(dtype)
        model = HMM.from_values(initial.astype(dtype), transition.astype(dtype), emissions(dtype))
        history, model, _ = jax.device_get(baum_welch(model, x, STEPS))
    assert {leaf.dtype for leaf in jax.tree.leaves((history, model))} == {np.dtype(dtype)}
    # nats per time step: the two programs' rounding
    np.testing.assert_allclose(history / T, np.array(peer.monitor_.history) / (N * T), rtol=0,
                               atol=1e-9 if dtype == np.float64 else 1e-5)  # fmt: skip
    # the models themselves: rounding that fifty steps have carried along the flattest direction
    tolerance = 1e-6 if dtype == np.float64 else 5e-3
    np.testing.assert_allclose(model.transition, peer.transmat_, atol=tolerance)
    np.testing.assert_allclose(model.initial, peer.startprob_, atol=tolerance)
    if name == "full" and dtype == np.float64:
        with jax.enable_x64(True):
            _, marginals, best, _ = jax.device_get(everything(model, x))
        log_prob, states = peer.decode(flat, lengths)
        np.testing.assert_allclose(best.log_prob.sum(), log_prob, rtol=1e-8)
        assert np.array_equal(best.path.reshape(-1), states)
        np.testing.assert_allclose(marginals.reshape(N * T, K), peer.predict_proba(flat, lengths), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_two_states_by_hand(dtype):
    # likelihoods [.9, .2] of what was seen at the first time, and so on
    with jax.enable_x64(dtype == np.float64):
        emissions = Categorical.from_values(np.array([[0.9, 0.1], [0.2, 0.8]], dtype))
        transition = np.array([[0.7, 0.3], [0.3, 0.7]], dtype)
        model = HMM.from_values(np.array([0.5, 0.5], dtype), transition, emissions)
        log_prob, marginals, best, filtered = jax.device_get(everything(model, jnp.array([0, 0, 1, 0, 0])))
    # the digits that are given, or the rounding of the dtype
    digits = 5e-11 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(log_prob, -3.3725020443, rtol=digits)
    np.testing.assert_allclose(filtered.log_evidence.sum(), -3.3725020443, rtol=digits)
    np.testing.assert_allclose(marginals[:, 0], [0.86734, 0.82042, 0.30748, 0.82042, 0.86734], atol=5e-6)
    np.testing.assert_allclose(best.log_prob, -4.459028291, rtol=max(digits, 1e-9))
    assert best.path.tolist() == [0, 0, 1, 0, 0]


LEFT_RIGHT = ([0.6, 0.4, 0.0], [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])


def left_right():
    labels = [[0.7, 0.2, 0.1, 0.0], [0.1, 0.7, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]
    return HMM.from_values(*LEFT_RIGHT, Categorical.from_values(labels))


def test_enumeration_of_all_paths():
    model, x = left_right(), jnp.array([[0, 1, 1, 3], [1, 0, 3, 2], [2, 2, 2, 2]])
    log_prob, marginals, best, filtered = everything(model, x)
    pi, a, p = (np.asarray(v, np.float64) for v in (model.initial, model.transition, model.emissions.probs))
    for n, seen in enumerate(np.asarray(x)):
        joint = {
            z: pi[z[0]] * np.prod([a[i, j] for i, j in itertools.pairwise(z)]) * np.prod(p[list(z), seen])
            for z in itertools.product(range(3), repeat=4)
        }
        total = sum(joint.values())
        np.testing.assert_allclose(log_prob[n], np.log(total), rtol=1e-6)
        for t, k in itertools.product(range(4), range(3)):
            np.testing.assert_allclose(marginals[n, t, k], sum(v for z, v in joint.items() if z[t] == k) / total,
                                       atol=1e-6)  # fmt: skip
        path = max(joint, key=joint.get)
        assert best.path[n].tolist() == list(path)
        np.testing.assert_allclose(best.log_prob[n], np.log(joint[path]), rtol=1e-6)
    np.testing.assert_allclose(np.exp(filtered.log_filtered[:, -1]), marginals[:, -1], atol=1e-6)


def test_impossible_sequences_stay_so():
    # the last state shows every label, the first never label 3, and the start is in neither of the others
    model = HMM.from_values([1.0, 0.0, 0.0], [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], left_right().emissions)
    x = jnp.array([[0, 1, 1, 3], [0, 1, 1, 2], [0, 0, 0, 0]])
    log_prob, marginals, best, _ = everything(model, x)
    assert log_prob[0] == -jnp.inf
    assert np.isfinite(log_prob[1])
    assert not marginals[0].any()
    assert best.path[0].tolist() == [-1] * 4
    assert model.sample_posterior(jax.random.key(0), x)[0].tolist() == [-1] * 4
    gradient = jax.grad(lambda m: jnp.sum(jnp.where(m.log_prob(x) > -jnp.inf, m.log_prob(x), 0)))(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    # weight zero silences an impossible sequence; otherwise the fit says what happened
    for weight, expected in ((0.0, jg.Status.FINISHED), (1.0, jg.Status.NON_FINITE)):
        history, _, status = baum_welch(model, (x, None, jnp.array([weight, 1.0, 1.0])), 3)
        assert int(status) == expected
        assert np.isfinite(history).all() == (weight == 0)


def test_zeros_stay_zero_and_unused_rows_stay():
    model, x = left_right(), jnp.array([[0, 0, 1, 1, 3], [0, 1, 1, 2, 3]])
    _, fitted, _ = baum_welch(model, x, 10)
    for name in ("initial_logits", "transition_logits"):
        before, after = getattr(model.chain, name), getattr(fitted.chain, name)
        assert np.array_equal(np.isneginf(before), np.isneginf(after))
        assert np.array_equal(after == -jnp.inf, before == -jnp.inf)
        assert not np.allclose(before, after)
    assert np.isneginf(fitted.emissions.logits[0, 3])
    # a single step in time says nothing of transitions: all three rows stay, and are counted
    step = jax.jit(lambda m, x: m.maximize(m.e_step(x)[0]))
    new, repairs = step(model, x[:, :1])
    assert np.array_equal(new.chain.transition_logits, model.chain.transition_logits)
    assert int(repairs) == 3 + 1  # and the last state, where no sequence starts, keeps its labels
    assert np.array_equal(new.emissions.logits[2], model.emissions.logits[2])


def test_statistics_are_additive_and_linear():
    model, x = left_right(), jnp.asarray(RNG.randint(0, 3, (6, 8)))
    weight = jnp.asarray(RNG.rand(6), jnp.float32)
    e_step = jax.jit(lambda w: model.e_step(x, w)[0])
    whole, one, other = e_step(2 * weight), e_step(weight.at[:2].set(0)), e_step(weight.at[2:].set(0))
    for total, a, b in zip(*map(jax.tree.leaves, (whole, one, other)), strict=True):
        np.testing.assert_allclose(total, 2 * (a + b), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole.chain.initial.sum(), 2 * weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(whole.chain.transition.sum(), 2 * 7 * weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(whole.emissions.sum(), 2 * 8 * weight.sum(), rtol=1e-5)


def test_long_sequences_are_summed_in_blocks():
    x = jnp.asarray(RNG.randint(0, 4, 9001))  # no multiple of any block
    weight = jnp.asarray(RNG.rand(9001, 3), jnp.float32)
    emissions = left_right().emissions
    blocked = jax.jit(functools.partial(emission_statistics, emissions))(x, weight)
    expected = np.stack([np.bincount(x, np.asarray(weight[:, k], np.float64)) for k in range(3)])
    np.testing.assert_allclose(blocked, expected, rtol=2e-6)  # float32 sums of 3000 terms at most


@pytest.mark.parametrize(("k", "value", "rates"), [(2, -341.8787, [15.4208, 26.0182]),
                                                   (3, -328.5275, [13.1338, 19.7132, 29.7097])])  # fmt: skip
def test_earthquakes(k, value, rates):
    counts = jg.data.earthquakes().counts[None]
    with jax.enable_x64(True):
        fitted = jg.fit(jax.random.key(0), lambda key: HMM.init(key, counts, k, Poisson.init), counts,
                        restarts=8, steps=2000, tolerance=1e-9)  # fmt: skip
        found = np.sort(np.asarray(fitted.model.emissions.rate))
    # the digits that are published; a rate is known to the root of what the likelihood is
    np.testing.assert_allclose(fitted.scores.max(), value, atol=6e-5)
    np.testing.assert_allclose(found, rates, atol=2e-4)
    assert fitted.history["repaired"].sum() == 0


def test_samples_have_the_chain_s_statistics():
    # states that can be seen; started from the stationary distribution, so that all times are alike
    transition = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])
    values, vectors = np.linalg.eig(transition.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    model = HMM.from_values(stationary, transition, Categorical.from_values(np.eye(3)))
    x = np.asarray(model.sample(jax.random.key(0), (50, 20), length=20))
    assert x.shape == (50, 20, 20)
    x = x.reshape(1000, 20)
    for t in (0, 19):  # five standard errors of a thousand independent draws
        frequency = np.bincount(x[:, t], minlength=3) / 1000
        assert (np.abs(frequency - stationary) < 5 * np.sqrt(stationary * (1 - stationary) / 1000)).all()
    moves = np.zeros((3, 3))
    np.add.at(moves, (x[:, :-1], x[:, 1:]), 1)
    np.testing.assert_allclose(moves / moves.sum(1, keepdims=True), transition, atol=0.03)
    assert moves[0, 2] == moves[2, 1] == 0
    # where states can be seen, what clusters sequences is the plain count of states and moves
    features = np.asarray(model.features(jnp.asarray(x[:50])))
    np.testing.assert_allclose(features[:, :3], (x[:50, :, None] == np.arange(3)).mean(1), atol=1e-6)
    np.testing.assert_allclose(features[:, 3:].sum(0).reshape(3, 3) * 19,
                               [[((x[:50, :-1] == i) & (x[:50, 1:] == j)).sum() for j in range(3)] for i in range(3)],
                               atol=1e-3)  # fmt: skip


def test_posterior_samples_have_the_smoothed_marginals():
    model, x = left_right(), jnp.array([0, 1, 1, 3])
    marginals = everything(model, jnp.stack([x] * 3))[1][0]
    draws = np.asarray(model.sample_posterior(jax.random.key(0), jnp.broadcast_to(x, (4000, 4))))
    frequency = np.stack([(draws == k).mean(0) for k in range(3)], axis=1)
    assert (np.abs(frequency - marginals) <= 5 * np.sqrt(marginals * (1 - marginals) / 4000)).all()


def test_hmm_of_mixtures_improves_at_every_step():
    x = jnp.asarray(SERIES, jnp.float32)
    model = HMM.init(jax.random.key(0), x, 2, lambda key, x: Mixture.init(key, x, 2, DiagonalGaussian.init))
    assert model.event_shape == (None, D)
    history, fitted, _ = baum_welch(model, x, 15)
    assert np.diff(history).min() > -1e-6 * T * 4  # rounding of values near 4 nats for each of T steps
    assert history[-1] > history[0] + 1


def test_mixture_of_hmms_tells_fast_from_slow():
    # the same two levels, the same share of time in each: only the transitions differ
    change = RNG.rand(20, T) < np.where(np.arange(20) < 10, 0.05, 0.7)[:, None]
    x = jnp.asarray(3 * (np.cumsum(change, axis=1) % 2) + 0.5 * RNG.randn(20, T), jnp.float32)[..., None]
    model = Mixture.init(jax.random.key(0), x, 2, lambda key, x: HMM.init(key, x, 2, DiagonalGaussian.init))
    history, fitted, _ = baum_welch(model, x, 15)
    assert np.diff(history).min() > -1e-6 * T * 2  # as above
    for stage in (model, fitted):  # the start clusters sequences by their dynamics
        label = np.asarray(stage.predict(x))
        assert len(set(label[:10])) == len(set(label[10:])) == 1
        assert label[0] != label[10]
    stay = np.asarray(jnp.diagonal(fitted.components.transition, axis1=1, axis2=2))
    np.testing.assert_allclose(stay[label[0]], 0.95, atol=0.05)  # a few hundred transitions
    np.testing.assert_allclose(stay[label[10]], 0.3, atol=0.1)


def test_emissions_without_em_train_by_gradient_beside_hard_zeros():
    shift = jnp.array([[-1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    emissions = jax.vmap(lambda s: Flow(StandardNormal((D,)), Affine(s, jnp.zeros(D))))(shift)
    model = HMM.from_values(*LEFT_RIGHT, emissions)
    x = jnp.asarray(SERIES, jnp.float32)
    gradient = jax.grad(lambda m: jnp.mean(m.log_prob(x)))(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    with pytest.raises(FitError, match="Gradient"):
        jg.EM().init(jax.random.key(0), model)
    fitted = jg.fit(jax.random.key(0), model, x, steps=60)
    assert fitted.status == jg.Status.FINISHED
    assert np.mean(fitted.model.log_prob(x)) > np.mean(model.log_prob(x)) + 1
    assert np.array_equal(np.isneginf(fitted.model.chain.transition_logits), np.isneginf(model.chain.transition_logits))


def size(jaxpr):
    """Equations in a program, with all that it calls."""
    values = (v for equation in jaxpr.eqns for v in equation.params.values())
    parts = (part for v in values for part in (v if isinstance(v, (tuple, list)) else [v]))
    programs = (getattr(part, "jaxpr", part) for part in parts)
    return len(jaxpr.eqns) + sum(size(part) for part in programs if hasattr(part, "eqns"))


def test_programs_do_not_grow_with_states_or_time():
    def equations(k, t):
        emissions = DiagonalGaussian.from_values(np.zeros((k, D)), np.ones((k, D)))
        model = HMM(MarkovChain(jnp.zeros(k), jnp.zeros((k, k))), emissions)

        def program(key, x):
            statistics, _ = model.e_step(x)
            paths = model.viterbi(x), model.sample_posterior(key, x), model.sample(key, length=t)
            return model.m_step(statistics), model.log_prob(x), model.smooth(x), model.filter(x), paths

        return size(jax.make_jaxpr(program)(jax.random.key(0), jnp.zeros((2, t, D))).jaxpr)

    assert equations(3, 40) == equations(9, 300) > 100


def test_errors():
    key, x = jax.random.key(0), jnp.asarray(SERIES, jnp.float32)
    emissions = left_right().emissions
    for initial, transition in (
        ([0.5, 0.6, 0.0], np.eye(3)), ([1.5, -0.5, 0.0], np.eye(3)), ([1.0, 0.0], np.eye(3)),
        ([1.0, 0.0, 0.0], np.eye(2)), ([1.0, 0.0, 0.0], np.ones((3, 3))),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=r"(?s)from_values.*expected"):
            HMM.from_values(initial, transition, emissions)
    for k, stickiness in ((0, 0.9), (N * T + 1, 0.9), (2, 1.5)):
        with pytest.raises(ModelError, match="states"):
            HMM.init(key, x, k, Gaussian.init, stickiness=stickiness)
    with pytest.raises(ShapeError, match=r"\(x\)\[None\]"):
        HMM.init(key, jnp.zeros(5), 2, Poisson.init)
    with pytest.raises(ShapeError, match=r"\(x\)\[None\] for one sequence"):
        HMM.init(key, x[0], 2, Gaussian.init)
    with pytest.raises(DataError, match="NaN"):
        HMM.init(key, np.full((2, 3, 1), np.nan), 2, Gaussian.init)
    model = left_right()
    with pytest.raises(FitError, match=r"\(data\)\[None\]"):
        jg.fit(key, model, jnp.array([0, 1, 2]))
    with pytest.raises(ShapeError, match="length"):
        model.log_prob(jnp.zeros(()))
    with pytest.raises(DataError, match="empty"):
        model.log_prob(jnp.zeros((2, 0), int))
    with pytest.raises(ShapeError, match="context"):
        model.log_prob(jnp.array([0, 1]), context=jnp.zeros(1))
    with pytest.raises(ShapeError, match="length"):
        model.sample(key)
