"""What a loss can say beside a number, averages of iterates, step sizes that follow the number of steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.polynomial import polynomial

import jaxgen as jg
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.averages import named
from jaxgen.fit.descent import Descent

KEY = jax.random.key(5)
X = np.random.default_rng(1).normal([2.0, -1.0], [1.0, 0.5], (64, 2)).astype(np.float32)


@model
class Point:
    """A normal density of unit scale around `mean`, and what a loss made of the data."""

    mean: jax.Array
    seen: jax.Array = fixed()
    event_shape = (2,)

    @per_event
    def log_prob(self, x):
        return -0.5 * jnp.sum((x - self.mean) ** 2)


def point():
    return Point(jnp.float32([0.5, 0.5]), jnp.zeros(2))


def test_a_loss_knows_the_step():
    """The weight of a prior, annealed over ten steps: it is in the history, and the fit is that of the full weight."""

    def annealed(key, model, batch, step):
        weight = jnp.minimum(step / 10, 1.0)
        value = jg.losses.nll(key, model, batch) + 0.5 * weight * jnp.sum(model.mean**2)
        return jg.losses.Loss(value, {"beta": weight})

    how = jg.Gradient(annealed, optax.sgd(0.3))
    fitted = jg.fit(KEY, point(), X, how, steps=60, validation=X, every=60)
    np.testing.assert_allclose(fitted.history["beta"], np.minimum(np.arange(60) / 10, 1), rtol=1e-6)
    # the posterior mode of a unit normal prior that weighs as much as an event; float32 sums of 64 numbers
    np.testing.assert_allclose(fitted.model.mean, X.mean(axis=0) / 2, rtol=1e-5)
    # validation is scored past the end of the schedule, whatever the step
    expected = fitted.model.log_prob(X).mean() - 0.5 * jnp.sum(fitted.model.mean**2)
    np.testing.assert_allclose(fitted.history["validation"][-1], expected, rtol=1e-6)


def counting(key, model, batch, step):
    """The likelihood, and a running mean of the batches in a fixed field; what it says of `mean` is to be ignored."""
    seen = model.seen + (batch.x.mean(axis=0) - model.seen) / (step + 1)
    moved = dataclasses.replace(model, seen=seen, mean=model.mean + 1000.0)
    return jg.losses.Loss(jg.losses.nll(key, model, batch), {"size": jnp.sum(seen**2)}, moved)


HOW = jg.Gradient(counting, optax.adam(0.05), average={"fast": jg.Average(0.5), "wide": jg.PowerAverage(0.1)})


def test_fixed_fields_move_where_a_loss_moves_them(tmp_path):
    options = {"batch_size": 16}
    whole = jg.fit(KEY, point(), X, HOW, steps=8, **options)
    # two epochs of four batches: the running mean is that of the data
    np.testing.assert_allclose(whole.model.seen, X.mean(axis=0), rtol=1e-5)
    assert np.abs(whole.model.mean).max() < 10
    jg.fit(KEY, point(), X, HOW, steps=3, checkpoint=str(tmp_path), **options)
    resumed = jg.fit(KEY, point(), X, HOW, steps=8, checkpoint=str(tmp_path), **options)
    scanned = jax.jit(lambda: jg.scan_fit(KEY, point(), X, HOW, steps=8, **options))()
    for other, exact in ((resumed, True), (scanned, False)):
        for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(other.state), strict=True):
            # another program may round otherwise
            np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
    np.testing.assert_array_equal(resumed.history["size"], whole.history["size"])
    many = jg.fit(KEY, lambda key: point(), X, HOW, steps=8, restarts=2, **options)
    np.testing.assert_allclose(many.models.seen, np.stack([X.mean(axis=0)] * 2), rtol=1e-5)


def test_frozen_holds_what_a_loss_would_move():
    how = dataclasses.replace(HOW, frozen={"seen": True, "mean": (True, False)})
    fitted = jg.fit(KEY, point(), X, how, steps=4)
    np.testing.assert_array_equal(fitted.model.seen, np.zeros(2))
    assert float(fitted.model.mean[0]) == 0.5
    assert float(fitted.model.mean[1]) != 0.5


def test_several_averages():
    """Against sums written out in float64; the first is the fitted model."""
    state, iterates = HOW.init(KEY, point()), []
    step = jax.jit(HOW.step)
    for _ in range(12):
        state, _ = step(KEY, state, jg.Batch(jnp.asarray(X)))
        iterates.append(np.asarray(state.player.iterate.mean, np.float64))
    iterates, t = np.stack(iterates), np.arange(1, 13)
    gamma = HOW.average["wide"].exponent
    # by telescoping, iterate i has the weight (i^(g+1) - (i-1)^(g+1)) / t^(g+1)
    weight = (t ** (gamma + 1) - (t - 1) ** (gamma + 1)) / 12 ** (gamma + 1)
    averages = state.player.averages
    assert [*averages] == ["fast", "wide"]
    np.testing.assert_allclose(averages["wide"].mean, weight @ iterates, rtol=1e-5)
    np.testing.assert_array_equal(state.model.mean, averages["fast"].mean)
    np.testing.assert_array_equal(averages["wide"].seen, state.player.iterate.seen)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.25])
def test_the_exponent_of_a_power_average(width):
    """The root of the cubic that the definition of the width becomes."""
    inverse = width**-2
    roots = polynomial.polyroots([12 - inverse, 16 - inverse, 7, 1])
    assert jg.PowerAverage(width).exponent == pytest.approx(max(roots.real), rel=1e-9)


def test_the_rate_of_a_long_average_keeps_its_digits():
    # (gamma + 1) / t of a million steps, which 1 - (1 - 1/t)^g has two digits of in float32
    rate = jg.PowerAverage(0.1).rate(jnp.int32(10**6))
    assert float(rate) == pytest.approx((jg.PowerAverage(0.1).exponent + 1) / 1e6, rel=1e-4)


def test_step_sizes_follow_the_number_of_steps():
    """A line that falls to zero at the last step: the sum of updates of a loss of slope one is the sum of the sizes."""
    def slope(key, model, batch, step):
        return model.mean[0]

    how = jg.Gradient(slope, lambda steps: optax.sgd(optax.linear_schedule(1.0, 0.0, steps)), steps=10)
    begin = float(point().mean[0])
    for steps in (None, 4):
        fitted = jg.fit(KEY, point(), X, how, steps=steps)
        n = 10 if steps is None else steps
        assert fitted.steps == n
        assert begin - float(fitted.model.mean[0]) == pytest.approx(sum(1 - i / n for i in range(n)), rel=1e-5)
    scanned = jg.scan_fit(KEY, point(), X, how, steps=4)
    np.testing.assert_array_equal(scanned.model.mean, fitted.model.mean)
    assert jg.Gradient(slope).for_steps(7) == jg.Gradient(slope), "one program serves all numbers of steps"
    game = jg.Adversarial(None, lambda steps: optax.sgd(1 / steps), steps=3).for_steps(5)
    update, _ = game.generator_optimizer.update(jnp.ones(()), game.generator_optimizer.init(jnp.ones(())))
    assert float(update) == pytest.approx(-0.2)
    assert game.critic_optimizer is None
    machine = jg.ContrastiveDivergence(lambda steps: optax.sgd(1 / steps))
    assert machine.for_steps(5).optimizer is not machine.optimizer
    assert (machine.traits.steps, jg.ContrastiveDivergence(steps=7).traits.steps) == (10_000, 7)


def test_recipes_say_their_steps_once():
    _, algorithm = jg.recipes.realnvp(KEY, X, layers=2, features=(4,), steps=30)
    assert algorithm.traits.steps == 30
    given = algorithm.for_steps(50)
    written = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(4e-3, 50, alpha=0.01))
    )  # fmt: skip
    state = ({"w": jnp.ones(3)},)
    ours, theirs = (o.init(state) for o in (given.optimizer, written))
    for _ in range(3):
        a, ours = given.optimizer.update(state, ours)
        b, theirs = written.update(state, theirs)
    np.testing.assert_array_equal(a[0]["w"], b[0]["w"])


# a model that names its own loss: flow matching in forty lines, with an optional context


@model
class FlowMatching:
    """Straight paths from noise to data, whose velocity a network learns: Lipman et al. (2023)."""

    net: jg.Net
    center: jax.Array = fixed()
    event_shape: tuple = jg.static()
    context_shape: tuple | None = jg.static(default=None)

    @classmethod
    def init(cls, key, x, context_shape=None):
        width = x.shape[1] + 1 + (context_shape[0] if context_shape else 0)
        module = jg.nn.MLP((32, 32, x.shape[1]), jax.nn.silu)
        return cls(jg.Net.init(key, module, (width,)), jnp.mean(x, axis=0), x.shape[1:], context_shape)

    def velocity(self, x, t, context):
        return self.net(jnp.concatenate([x, t[None], *([] if context is None else [context])]))

    @per_event
    def loss(self, key, x, context):
        noise_key, time_key = jax.random.split(key)
        x, noise = x - self.center, jax.random.normal(noise_key, x.shape)
        t = jax.random.uniform(time_key)
        missed = self.velocity((1 - t) * noise + t * x, t, context) - (x - noise)
        return jnp.sum(missed**2)

    @per_sample
    def sample(self, key, context):
        def euler(x, t):
            return x + self.velocity(x, t, context) / 20, None

        x = jax.random.normal(key, self.event_shape)
        return self.center + jax.lax.scan(euler, x, jnp.arange(20) / 20)[0]


def test_a_model_with_its_own_loss_trains_by_fit_alone():
    context = np.repeat([[-1.0], [1.0]], 200, axis=0).astype(np.float32)
    x = (3 * context + 0.3 * np.random.default_rng(0).normal(size=(400, 2))).astype(np.float32)
    start = FlowMatching.init(KEY, x, context_shape=(1,))
    fitted = jg.fit(KEY, start, (x, context), validation=(x, context), every=1000)
    for side in (-1.0, 1.0):
        drawn = fitted.model.sample(jax.random.key(1), (300,), context=jnp.array([side]))
        # 300 draws of scale 0.3 have a mean known to 0.02; the rest is what 2000 steps leave
        np.testing.assert_allclose(drawn.mean(axis=0), [3 * side] * 2, atol=0.3)
    plain = jg.fit(KEY, FlowMatching.init(KEY, x), x, steps=5)
    assert plain.status is jg.Status.FINISHED
    np.testing.assert_allclose(
        jg.losses.own(KEY, start, jg.Batch(jnp.asarray(x), jnp.asarray(context))),
        start.loss(KEY, x, context=context).mean(), rtol=1e-5,
    )  # fmt: skip


def broken(**options):
    return lambda: jg.fit(KEY, point(), X, jg.Gradient(**options), steps=2)


def three(key, model, batch):
    return jg.losses.nll(key, model, batch)


def loud(key, model, batch, step):
    return jg.losses.Loss(jg.losses.nll(key, model, batch), {"loss": 1.0})


def vectors(key, model, batch, step):
    return model.log_prob(batch.x)


def other(key, model, batch, step):
    return jg.losses.Loss(0.0 * model.mean[0], moved=dataclasses.replace(model, seen=jnp.zeros(3)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (broken(loss=three), "takes four arguments"),
        (broken(loss=jg.losses.nll, validate=three), "takes four arguments"),
        (broken(loss=loud), "name of the algorithm's"),
        (broken(loss=vectors), "no scalar"),
        (broken(loss=other), r"seen: float32\[3\] and float32\[2\]"),
        (broken(average=0.9), r"average = jaxgen\.Average\(0\.9\)"),
        (broken(average=jg.Average), "no average"),
        (broken(average={"slow": "0.9"}), "no average"),
        (broken(average=jg.PowerAverage(0.3)), "width"),
        (broken(optimizer=optax.adam), "no optimiser"),
        (broken(optimizer=lambda steps: 3), "no optimiser"),
        (lambda: jg.fit(KEY, point(), X, jg.Gradient(steps=-1)), "steps must be"),
        (lambda: jg.losses.own(KEY, point(), jg.Batch(X)), "needs a model with loss"),
        (lambda: Descent(optax.sgd(0.1)).start({"n": jnp.arange(3)}, "demo"), "nothing to train"),
    ],
)
def test_errors(call, match):
    with pytest.raises(jg.FitError, match=match):
        call()


def test_no_average_is_none():
    assert named(None, "demo") == {}


def test_a_sum_over_events_is_not_taken_for_a_mean():
    @jg.model
    class Undecorated:
        mean: jax.Array
        event_shape = (2,)

        def sample(self, key, shape=(), *, context=None):
            return self.mean

        def log_prob(self, x, *, context=None):
            return -jnp.sum((x - self.mean) ** 2)

    with pytest.raises(jg.FitError, match="a number for each event"):
        jg.fit(jax.random.key(0), Undecorated(jnp.zeros(2)), np.ones((5, 2)), steps=1)
    assert not jg.check(Undecorated(jnp.zeros(2)), np.ones((6, 2))).ok
