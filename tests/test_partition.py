"""Partition functions by annealing, exchange and bridges, against enumeration by numpy and closed forms."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from machines import enumerated, family, fits, index, states
from scipy import optimize, special, stats

from jaxgen.annealing import Trajectory, exchanged, ladder, replicas
from jaxgen.core import algebra
from jaxgen.core.errors import DataError, FitError, JaxgenWarning, ModelError
from jaxgen.core.protocols import Kind
from jaxgen.metrics.bridge import Bracket, acceptance_ratio, bar, bracket, replica_exchange
from jaxgen.metrics.likelihood import score
from jaxgen.metrics.partition import ais, energy_gap, log_likelihood, reverse_ais, smc
from jaxgen.models.energy.rbm import RBM
from jaxgen.ops.noise import uniform

DATA = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]], np.int32)
STATES = jnp.asarray(states(8), jnp.float32)
LOG_Z, LOG_P = enumerated(8, 6, 2.0)
RBM_8_6 = family(8, 6, 2.0)


def exact_samples(key, n):
    return STATES[jax.random.choice(key, len(STATES), (n,), p=jnp.exp(jnp.asarray(LOG_P)))]


def backward(key):
    first, second = jax.random.split(key)
    return reverse_ais(first, RBM_8_6, exact_samples(second, 40), steps=60)


def ratio(key):
    there, back, draw = jax.random.split(key, 3)
    few = {"steps": 10}
    return bar(ais(there, RBM_8_6, chains=80, **few), reverse_ais(back, RBM_8_6, exact_samples(draw, 40), **few))


def other_base(key):
    path = RBM_8_6.annealing_path(np.linspace(-1, 1, 8))  # not the machine's own biases
    return ais(key, path, chains=40, betas=jnp.linspace(0, 1, 60) ** 2)


ESTIMATES = {
    "ais": other_base,
    "smc": lambda key: smc(key, RBM_8_6, chains=100, steps=30, resample=0.9),
    "reverse": backward,
    "bar": ratio,
    "replica exchange": lambda key: replica_exchange(key, RBM_8_6, replicas=5, chains=8, sweeps=100, burn_in=50)[0],
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_standard_errors_are_honest(name):
    log_z, error = jax.jit(jax.vmap(lambda key: ESTIMATES[name](key)[:2]))(jax.random.split(jax.random.key(2), 100))
    z = (log_z - LOG_Z) / error
    # z is near standard normal; the mean of 100 is 5 of its deviations from 0 once in two million, the spread of z and
    # the bias of a log of a mean (half the squared error, here at most .02 / error .15) stay well inside
    assert abs(z.mean()) < 0.5
    assert 0.75 < z.std() < 1.45
    assert 0.02 < error.mean() < 0.3


def test_a_thousand_temperatures_are_within_a_twentieth():
    estimate = ais(jax.random.key(0), RBM_8_6, chains=500, steps=1000)
    assert abs(estimate.log_z - LOG_Z) < 0.05
    assert estimate.kind is Kind.ESTIMATE
    assert 400 < estimate.ess <= 500
    assert estimate.log_weights.shape == (500,)


def test_brackets_contain_the_truth():
    """Forward and reverse annealing err to their own sides, with samples of the model and with those of the chains."""
    for seed in range(5):
        first, second = jax.random.split(jax.random.key(seed))
        for x in (exact_samples(first, 300), None):
            found = bracket(second, RBM_8_6, x, chains=300, steps=100)
            assert found.low < LOG_Z < found.high
            assert abs(found.log_z - LOG_Z) < 5 * found.standard_error
            assert 0 < found.width < 0.5
    # few temperatures: far apart, on the side that each is said to err to
    forward = jax.vmap(lambda key: ais(key, RBM_8_6, chains=10, steps=3).log_z)(jax.random.split(first, 200))
    reverse = jax.vmap(lambda key: reverse_ais(key, RBM_8_6, exact_samples(key, 10), steps=3).log_z)(
        jax.random.split(second, 200)
    )
    assert forward.mean() < LOG_Z - 0.1 < LOG_Z + 0.1 < reverse.mean()


def test_bracket_warns():
    with pytest.warns(JaxgenWarning, match="wider than a nat"):
        bracket(jax.random.key(0), family(8, 6, 6.0), chains=5, steps=2)
    # two modes, of which x knows the one that is e^-4 as likely, and the chains find both: neither end is left out
    rbm = RBM.from_values(np.full(6, -6.7), np.full(4, -9.0), np.full((6, 4), 3.0))
    with pytest.warns(JaxgenWarning, match="wrong way round"):
        found = bracket(jax.random.key(0), rbm.annealing_path(np.zeros(6)), np.ones((200, 6)), chains=200, steps=100)
    assert found.reverse.log_z + 1 < found.forward.log_z
    assert found.low < rbm.log_partition() < found.high


def test_likelihoods_say_what_they_are():
    rbm, log_p = family(4, 3), enumerated(4, 3)[1][index(DATA)]
    exact = log_likelihood(rbm, DATA)
    assert (exact.kind, exact.events, exact.low) == (Kind.EXACT, 3, None)
    np.testing.assert_allclose(exact[:2], [log_p.mean(), stats.sem(log_p)], atol=1e-6)
    estimate = ais(jax.random.key(0), rbm)
    assert abs(estimate.log_z - 5.0064656) < 0.05
    found = log_likelihood(rbm, DATA, estimate)
    assert (found.kind, found.low, found.high) == (Kind.ESTIMATE, None, None)
    assert found.standard_error > exact.standard_error
    np.testing.assert_allclose(found.mean - exact.mean, 5.0064656 - estimate.log_z, atol=1e-5)
    both = Bracket(5.0, 5.2, 5.1, 0.02, estimate, estimate)
    held = log_likelihood(rbm, DATA, both)
    # mean energy is exact, so the ends of the score are those of log Z, the other way round
    np.testing.assert_allclose([held.low, held.mean, held.high], exact.mean + 5.0064656 - np.array([5.2, 5.1, 5.0]),
                               atol=1e-5)  # fmt: skip
    assert f"in [{held.low:.4f}, {held.high:.4f}]" in str(held)
    assert held.kind is Kind.ESTIMATE
    assert "in [5.0000, 5.2000]" in str(both)
    large = family(24, 23, 0.3)  # not enumerable: the score of the front door is bracketed too
    scored = score(jax.random.key(1), large, np.zeros((2, 24)))
    assert scored.low < scored.mean < scored.high < scored.low + 0.2


def test_an_estimate_that_is_no_number_says_so():
    broken = dataclasses.replace(family(4, 3), weights=jnp.full((4, 3), jnp.nan))
    x, key = jnp.zeros((4, 4)), jax.random.key(0)
    backwards = lambda key, model, steps: reverse_ais(key, model, x, steps=steps)  # noqa: E731
    for estimate in (functools.partial(ais, chains=4), functools.partial(smc, chains=4), backwards):
        with pytest.warns(JaxgenWarning, match=r"log Z is nan: of 4 of 4 chains"):
            estimate(key, broken, steps=2)


def test_energy_gap_is_a_difference_of_exact_likelihoods():
    rbm = family(4, 3)
    gap = energy_gap(rbm, DATA[:1], DATA[1:])
    log_p = enumerated(4, 3)[1][index(DATA)]
    np.testing.assert_allclose(gap.mean, log_p[0] - log_p[1:].mean(), atol=1e-5)
    assert np.isnan(gap.standard_error)
    assert gap.events == 2


@pytest.mark.parametrize("sizes", [(50, 50), (30, 200)])
def test_acceptance_ratio_solves_bennetts_equation(sizes):
    rng = np.random.default_rng(0)
    # work that obeys the fluctuation theorem of log Z = 3: normal, means apart by the variance
    f, r = (rng.normal(3 + side * 0.5 * 1.5**2, 1.5, n) for side, n in zip((-1, 1), sizes, strict=True))
    shift = np.log(sizes[0] / sizes[1])
    expected = optimize.brentq(
        lambda level: special.expit(f - level - shift).sum() - special.expit(level - r + shift).sum(), -50, 50
    )
    found = acceptance_ratio(jnp.asarray(f, jnp.float32), jnp.asarray(r, jnp.float32))
    # float32 sums of a hundred terms, over a slope of about 20
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found - 3) < 1
    assert np.isnan(acceptance_ratio(jnp.array([0.0, jnp.nan]), jnp.zeros(2)))


class Scaled(NamedTuple):
    """A normal density up to its constant, with a kernel that draws afresh."""

    scale: jax.Array
    event_shape = ()

    def energy(self, x):
        return 0.5 * (x / self.scale) ** 2

    def kernel(self, key, x):
        return self.scale * jax.random.normal(key, x.shape, x.dtype)


class OneWay(Scaled):
    """The same, refusing to go forward."""

    def kernel(self, key, x):
        raise AssertionError

    def reverse_kernel(self, key, x):
        return Scaled(self.scale).kernel(key, x)


class Widening(NamedTuple):
    to: jax.Array
    kind = Scaled

    def at(self, beta):
        return self.kind(1 + beta * (self.to - 1))

    def sample(self, key, shape=()):
        return jax.random.normal(key, shape)

    def log_partition(self):
        return jnp.asarray(0.5 * np.log(2 * np.pi))


class WideningOneWay(Widening):
    kind = OneWay


def test_any_path_serves():
    path, exact = Widening(jnp.float32(3.0)), 0.5 * np.log(2 * np.pi) + np.log(3)
    estimate = ais(jax.random.key(0), path, chains=300, steps=200)
    assert abs(estimate.log_z - exact) < 5 * estimate.standard_error < 0.1
    x = 3 * jax.random.normal(jax.random.key(1), (300,))
    back = reverse_ais(jax.random.key(0), WideningOneWay(jnp.float32(3.0)), x, steps=200)
    assert abs(back.log_z - exact) < 5 * back.standard_error < 0.1
    found, swaps = replica_exchange(jax.random.key(2), path, chains=10, replicas=4, sweeps=300)
    assert abs(found.log_z - exact) < 5 * found.standard_error < 0.2
    assert swaps.shape == (3,)


def test_a_trajectory_of_checkpoints_is_a_path():
    checkpoints = [family(8, 6, s) for s in (0.3, 0.8, 1.4, 2.0)]
    path = Trajectory.from_models(checkpoints)
    for k, model in enumerate(checkpoints):
        np.testing.assert_allclose(path.at((k + 1) / 4).weights, model.weights, atol=1e-6)
    np.testing.assert_allclose(path.at(0.625).weights, (checkpoints[1].weights + checkpoints[2].weights) / 2, atol=1e-6)
    np.testing.assert_allclose(path.at(0.125).weights, checkpoints[0].weights / 2, atol=1e-6)
    assert not path.at(0.0).weights.any()
    stacked = Trajectory.from_models(algebra.stack(checkpoints), checkpoints[0].annealing_path(np.ones(8)))
    for one in (path, stacked):
        for estimate in (ais(jax.random.key(0), one, steps=100), smc(jax.random.key(0), one, steps=100)):
            assert abs(estimate.log_z - LOG_Z) < 5 * estimate.standard_error < 0.4
    found, swaps = replica_exchange(jax.random.key(1), path, replicas=5, sweeps=300)  # the checkpoints themselves
    assert abs(found.log_z - LOG_Z) < 5 * found.standard_error < 0.4
    assert ((swaps > 0.2) & (swaps < 1)).all()
    alone = Trajectory.from_models(checkpoints[-1:])
    np.testing.assert_allclose(alone.at(0.5).weights, checkpoints[-1].weights / 2, atol=1e-6)


@pytest.mark.parametrize("odd", [0, 1])
def test_exchange_leaves_the_replicas_alone(odd):
    """Replicas that have their own distributions keep them, and swaps are accepted as enumeration says."""
    path, n = family(4, 3, 3.0).annealing_path(), 20_000
    models = replicas(path, jnp.array([0.0, 0.4, 1.0]))
    points = jnp.asarray(states(4), jnp.float32)
    energy = np.asarray(jax.vmap(lambda m: m.energy(points))(models), np.float64)
    p = special.softmax(-energy, axis=1)
    key, *keys = jax.random.split(jax.random.key(3), 4)
    x = jnp.stack([points[jax.random.choice(k, 16, (n,), p=jnp.asarray(row))] for k, row in zip(keys, p, strict=True)])
    new, accepted, (here, there) = jax.jit(exchanged)(key, models, x, odd)
    for row, expected in zip(new, p, strict=True):
        assert fits(np.bincount(index(row), minlength=16), expected)
    gap = energy[:-1] - energy[1:]
    chance = np.exp(np.minimum(gap[:, :, None] - gap[:, None, :], 0))
    expected = np.einsum("ia,ib,iab->i", p[:-1], p[1:], chance)
    # 5 deviations of a mean of 20000 numbers in [0, 1]
    np.testing.assert_allclose(accepted, expected, atol=5 * 0.5 / np.sqrt(n))
    np.testing.assert_allclose([here[1, 0], there[0, 0]], [gap[1][index(x[1, 0])], gap[0][index(x[1, 0])]], atol=1e-5)
    still, moved = (2, 0) if odd == 0 else (0, 2)
    assert (new[still] == x[still]).all()
    changed = (new[moved] != x[moved]).any(axis=-1).mean()
    same = (p[moved] * p[1]).sum()  # equal states, of which a swap shows nothing; a weak bound suffices
    assert 0.1 * (1 - same) < changed <= 1


def test_uniform_numbers_are_uniform():
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (np.asarray(uniform(key, (50, 401))) for key in keys)
    assert (a >= 0).all() and (a < 1).all()
    assert stats.kstest(a.ravel(), "uniform").pvalue > 1e-5
    # correlations of 20050 pairs: with another key, with the next number, with the other word of the same hash
    for x, y in ((a.ravel(), b.ravel()), (a.ravel()[1:], a.ravel()[:-1]), (a.ravel()[:10025], a.ravel()[10025:])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / np.sqrt(10025)
    assert np.unique(np.concatenate([a.ravel(), b.ravel()])).size > 0.99 * 2 * a.size
    np.testing.assert_array_equal(jax.vmap(lambda key: uniform(key, (7,)))(keys)[1], uniform(keys[1], (7,)))
    with jax.enable_x64(True):
        assert uniform(keys[0], (3,), jnp.float64).dtype == np.float64
    assert uniform(jax.random.key(0, impl="rbg"), (3,)).shape == (3,)


@pytest.mark.parametrize("n", [1, 2, 5, 1001])
def test_uniform_numbers_are_the_words_that_jax_hashes(n):
    """Bit for bit, whatever is left over: JAX's own hash of the same counters, its first words and then its second."""
    key = jax.random.key(n)
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(n + n % 2, dtype=jnp.uint32))[:n]
    np.testing.assert_array_equal(uniform(key, (n,)), (np.asarray(words) >> 8) / np.float32(2**24))


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda key: log_likelihood(family(4, 3), [[0, 2, 1, 0]]), DataError, "threshold"),
    (lambda key: energy_gap(family(4, 3), DATA, [[0, 2, 1, 0]]), DataError, "threshold"),
    (lambda key: log_likelihood(family(4, 3), DATA, 5.0), ModelError, "exact"),
    (lambda key: log_likelihood(Scaled(1.0), [1.0]), ModelError, "bracket"),
    (lambda key: ais(key, Scaled(1.0)), ModelError, "annealing_path"),
    (lambda key: ais(0, family(4, 3)), DataError, "jax.random.key"),
    (lambda key: ais(key, family(4, 3), chains=1), FitError, "chains=1"),
    (lambda key: ais(key, family(4, 3), steps=0), FitError, "steps=0"),
    (lambda key: ais(key, family(4, 3), betas=[0.0, 0.5]), FitError, "from 0 to 1"),
    (lambda key: smc(key, family(4, 3), resample=1.5), FitError, "from 0 to 1"),
    (lambda key: smc(key, Scaled(1.0)), ModelError, "annealing_path"),
    (lambda key: reverse_ais(key, family(4, 3), DATA[:1]), FitError, "samples of the model"),
    (lambda key: reverse_ais(key, family(4, 3), DATA, steps=0), FitError, "steps"),
    (lambda key: reverse_ais(key, Scaled(1.0), DATA), ModelError, "annealing_path"),
    (lambda key: replica_exchange(key, family(4, 3), chains=2), FitError, "chains=2"),
    (lambda key: replica_exchange(key, family(4, 3), replicas=1), FitError, "replicas=1"),
    (lambda key: replica_exchange(key, family(4, 3), betas=[0.1, 1.0]), FitError, "from 0 to 1"),
    (lambda key: replica_exchange(key, Scaled(1.0)), ModelError, "annealing_path"),
    (lambda key: bracket(key, Scaled(1.0)), ModelError, "annealing_path"),
    (lambda key: bracket(key, family(4, 3), chains=1), FitError, "chains=1"),
    (lambda key: bracket(7, family(4, 3)), DataError, "jax.random.key"),
    (lambda key: Trajectory.from_models([]), ModelError, "checkpoints"),
    (lambda key: Trajectory.from_models(Scaled(1.0)), ModelError, "leading axis"),
    (lambda key: Trajectory.from_models([Scaled(jnp.ones(()))] * 2), ModelError, "annealing_path"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(jax.random.key(0))


def test_the_ends_of_a_ladder_may_be_rounded():
    """Tenths that were added up end at 0.9999999999999999, in float32 at 1.0000001."""
    for dtype in (np.float64, np.float32):
        betas = np.append(0, np.cumsum(np.full(10, 0.1, dtype)))
        assert betas[-1] != 1
        got = ladder(betas, 0, "test")
        assert (got[0], got[-1]) == (0, 1) and (np.diff(got) > 0).all()
