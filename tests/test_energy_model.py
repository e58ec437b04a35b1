"""Deep energy models against quadrature: partition functions, chains, and what two ways of training find."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from case import moved

import jaxgen as jg
from jaxgen.fit.negative import Persistent, Replay
from jaxgen.metrics import ais, bracket, log_likelihood
from jaxgen.nn.mlp import MLP
from jaxgen.ops.samplers import MALA, ULA, Spread

KEY = jax.random.key(0)
LINE = np.linspace(-6, 6, 2401, dtype=np.float32)[:, None]
STEP = float(LINE[1, 0] - LINE[0, 0])


def mixture(n=4000):
    """Events of 0.4 N(-1.5, 0.4^2) + 0.6 N(1, 0.6^2), and its density on the line."""
    rng = np.random.default_rng(0)
    left = rng.random(n) < 0.4
    x = np.where(left, rng.normal(-1.5, 0.4, n), rng.normal(1.0, 0.6, n)).astype(np.float32)[:, None]
    pdf = 0.4 * scipy.stats.norm.pdf(LINE, -1.5, 0.4) + 0.6 * scipy.stats.norm.pdf(LINE, 1.0, 0.6)
    return x, pdf[:, 0]


def start(x, sampler=None, moves=5):
    return jg.EnergyModel.init(
        KEY, x, jg.Gaussian.init(KEY, x), network=MLP((32, 32, 1), jax.nn.silu, zero_last=True),
        sampler=MALA(0.1) if sampler is None else sampler, moves=moves,
    )  # fmt: skip


def log_z(model):
    """By the trapezoidal rule over the line, in float64."""
    value = -np.asarray(model.energy(LINE), np.float64)
    return float(np.log(np.trapezoid(np.exp(value - value.max()), dx=STEP)) + value.max())


def away(model, pdf):
    """`KL(truth || model)` in nats."""
    log_p = -np.asarray(model.energy(LINE), np.float64) - log_z(model)
    return float(np.sum(pdf * (np.log(np.maximum(pdf, 1e-300)) - log_p)) * STEP)


@pytest.fixture(scope="module")
def random_model():
    x, _ = mixture(500)
    return moved(jax.random.key(3), start(x), 0.5)


def test_starts_as_its_base_and_knows_its_score(random_model):
    x, _ = mixture(500)
    fresh = start(x)
    np.testing.assert_allclose(-fresh.energy(x), fresh.base.log_prob(x), rtol=1e-6)
    assert log_z(fresh) == pytest.approx(0, abs=1e-4)  # what lies beyond the line
    np.testing.assert_allclose(
        random_model.score(x[:5]), -jax.vmap(jax.grad(lambda x: random_model.energy(x)))(x[:5]), rtol=1e-5
    )


def test_annealing_finds_the_partition_function(random_model):
    exact = log_z(random_model)
    assert abs(exact) > 0.05, "a partition function worth finding"
    found = ais(jax.random.key(1), random_model, chains=400, steps=100)
    assert abs(float(found.log_z) - exact) < max(0.01, 5 * float(found.standard_error))
    both = bracket(jax.random.key(2), random_model, chains=400, steps=100, sweeps=20)
    assert both.low - 1e-3 < exact < both.high + 1e-3
    score = log_likelihood(random_model, LINE[::100], both)
    assert str(score.kind) == "estimate" and score.low < score.mean < score.high
    path = random_model.annealing_path()
    assert log_z(path.at(0.0)) == pytest.approx(float(path.log_partition()), abs=1e-4)


def test_chains_tend_to_the_density_and_hold_what_is_observed(random_model):
    x = np.asarray(random_model.sample(jax.random.key(1), (500,), sweeps=20))[:, 0]
    p = np.exp(-np.asarray(random_model.energy(LINE), np.float64) - log_z(random_model))
    cdf = np.cumsum(p) * STEP
    assert scipy.stats.kstest(x, lambda at: np.interp(at, LINE[:, 0], cdf)).pvalue > 1e-4
    base = jg.Gaussian.from_values(np.zeros(2, np.float32), np.array([[1.0, 0.8], [0.8, 1.0]], np.float32))
    plane = jg.EnergyModel.init(KEY, np.zeros((1, 2), np.float32), base, network=MLP((1,), zero_last=True),
                                sampler=MALA(0.2))  # fmt: skip
    drawn = jg.impute(jax.random.key(2), plane, jnp.full((400, 2), jnp.array([1.0, jnp.nan])), sweeps=10)
    assert (drawn[:, 0] == 1).all()
    assert float(drawn[:, 1].mean()) == pytest.approx(0.8, abs=0.15)  # five standard errors of N(0.8, 0.36)


def test_two_ways_of_training_find_the_same_density():
    x, pdf = mixture()
    before = away(start(x), pdf)
    assert before > 0.15, "no Gaussian"
    adam = optax.adam(optax.cosine_decay_schedule(3e-3, 1500))
    chains = jg.ContrastiveDivergence(adam, negative=Replay(200, size=1000), average=None)
    fitted = jg.fit(jax.random.key(1), start(x), x, chains, steps=1500, batch_size=200)
    assert fitted.history["renewed"].mean() == pytest.approx(0.05, abs=0.01)
    assert away(fitted.model, pdf) < 0.03
    denoised = jg.Gradient(jg.losses.denoising_score_matching(0.15), adam, average=None)
    other = jg.fit(jax.random.key(1), start(x), x, denoised, steps=1500, batch_size=500).model
    # the data with noise, and the weights of the two modes, which scores hardly see
    parts = (0.4, -1.5, 0.4), (0.6, 1.0, 0.6)
    noisy = sum(w * scipy.stats.norm.pdf(LINE[:, 0], m, (s**2 + 0.15**2) ** 0.5) for w, m, s in parts)
    assert away(other, noisy) < 0.03


def test_score_matching_is_least_at_the_density_of_noisy_data():
    """Closed form: a normal model of variance v, data N(0, 1) with noise s: `d = s^2 / v`, E loss in s, v."""
    s, v = 0.7, 2.0
    x = jax.random.normal(KEY, (200_000, 1))
    model = jg.Gaussian.from_values(np.zeros(1, np.float32), np.full((1, 1), v, np.float32))
    loss = jg.losses.denoising_score_matching(s)(jax.random.key(1), model, jg.Batch(x))
    # s score + e = -(s / v) x + (1 - s^2 / v) e
    expected = 0.5 * ((s / v) ** 2 + (1 - s**2 / v) ** 2)
    assert float(loss) == pytest.approx(expected, rel=0.02)  # five standard errors of 200,000 squares
    weighed = jg.Batch(x[:2], weight=jnp.array([1.0, 0.0]))
    both, one = (jg.losses.denoising_score_matching(s)(jax.random.key(1), model, b) for b in (jg.Batch(x[:2]), weighed))
    assert np.isfinite(one) and both != one


def test_chains_that_all_stand_still_end_the_fit():
    """A step that a steep energy never accepts: the loss would fall for ever against chains that are no samples."""
    x, _ = mixture(200)
    stuck = moved(jax.random.key(3), start(x, MALA(1e6)), 0.5)
    learn = jg.ContrastiveDivergence(optax.adam(1e-2), negative=Replay(20, size=40))
    with pytest.warns(jg.JaxgenWarning, match="not finite"):
        fitted = jg.fit(KEY, stuck, x, learn, steps=200, batch_size=20)
    assert fitted.status == jg.Status.NON_FINITE and 90 <= fitted.steps <= 101
    spread = moved(jax.random.key(3), start(x, Spread(MALA(1e6), 1e9)), 0.5)
    going = jg.fit(KEY, spread, x, learn, steps=20, batch_size=20)
    assert going.status == jg.Status.FINISHED and going.history["moved"].min() > 0


def test_data_in_any_units_are_the_same_model():
    x, _ = mixture(300)
    learn = jg.ContrastiveDivergence(optax.adam(1e-2), negative=Replay(50, size=100))
    near, far = (
        jg.fit(KEY, start(1e5 * y + 1e4), 1e5 * y + 1e4, learn, steps=5, batch_size=50).model if far
        else jg.fit(KEY, start(y), y, learn, steps=5, batch_size=50).model
        for far, y in ((False, x), (True, x))
    )  # fmt: skip
    # log p has an offset of log 1e5; the base trains too, by steps in its own units, which are those of the data
    np.testing.assert_allclose(far.energy(1e5 * x + 1e4) - np.log(1e5), near.energy(x), atol=0.05)


@pytest.mark.parametrize("negative", [Persistent(20), Replay(20, size=40)])
def test_divergence_ends_with_a_status(negative):
    x, _ = mixture(200)
    wild = jg.ContrastiveDivergence(optax.sgd(1e4), negative=negative, average=None)
    with pytest.warns(jg.JaxgenWarning, match="not finite"):
        fitted = jg.fit(jax.random.key(1), start(x, ULA(5.0)), x, wild, steps=200, batch_size=20)
    assert fitted.status == jg.Status.NON_FINITE
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fitted.model))
    # what was not measured is no number, and not the last one that was
    assert np.isfinite(fitted.history["loss"][:-1]).all() and np.isnan(fitted.history["loss"][-1])


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda x: jg.EnergyModel.init(KEY, x, jg.StandardNormal((2,))), jg.ModelError, "base"),
    (lambda x: jg.EnergyModel.init(KEY, x, jg.StandardNormal((1,)), network=MLP((3,))), jg.ModelError, "one number"),
    (lambda x: jg.EnergyModel.init(KEY, x, jg.StandardNormal((1,)), moves=0), jg.ModelError, "steps"),
    (lambda x: start(x, jg.samplers.SGLD(0.1)), jg.ModelError, "exact gradients"),
    (lambda x: start(x, "MALA"), jg.ModelError, "sampler"),
    (lambda x: start(x).energy(np.zeros((3, 2))), jg.ShapeError, "1"),
    (lambda x: jg.fit(KEY, start(x), x, jg.ContrastiveDivergence(negative=Replay(20, size=10))), jg.FitError, "buffer"),
    (lambda x: jg.losses.denoising_score_matching(0.0), jg.FitError, "noise"),
    (lambda x: jg.fit(KEY, start(x), np.full_like(x, np.nan)), jg.DataError, "finite"),
    (lambda x: jg.losses.denoising_score_matching(0.1)(KEY, jg.Net.init(KEY, MLP((1,)), (1,)), jg.Batch(x)),
     jg.FitError, "log_prob"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(mixture(50)[0])
