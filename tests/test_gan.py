"""Generators, convolutions and the adversarial game, against finite differences, flax and closed forms."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_laws import Compilations

import jaxgen as jg
from jaxgen.core.methods import per_sample
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.orders import Alternating, Players
from jaxgen.losses.critics import R1, R2, LeCam, steepness
from jaxgen.losses.games import Hinge
from jaxgen.nn.conv import Conv, ConvCritic, ConvGenerator, halvings
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

CRITIC = MLP((16, 16, 1), jax.nn.leaky_relu)


@pytest.fixture(scope="module")
def ring():
    return jg.data.eight_gaussians(jax.random.key(0), 2000)


def generator(x, **options):
    return jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), **{"hidden": (16,), **options})


def test_units_put_samples_where_the_data_are():
    x = np.random.default_rng(0).normal(size=(500, 2)) * [1000.0, 0.01] + [1e4, -3.0]
    made = generator(x)
    seen = made.standardize(x)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-3)  # 1e4 in float32, in units of 1000
    np.testing.assert_allclose(seen.std(0), 1, rtol=1e-3)
    z = jax.random.normal(jax.random.key(0), (7, 2))
    np.testing.assert_allclose(made.decode(z), made.scaling[0] + made.scaling[1] * made.net(z), rtol=1e-6)
    images = generator(np.arange(48.0).reshape(3, 4, 4) + 2, module=MLP((16,), out_shape=(4, 4)))
    np.testing.assert_allclose([images.standardize(np.full((4, 4), v)).max() for v in (2.0, 49.0)], [-1, 1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (8, 12, 3)])
def test_convolutional_shapes(shape):
    x = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    made = jg.Generator.init(jax.random.key(0), x, jg.StandardNormal((6,)), module=ConvGenerator(shape, width=2))
    for batch in ((), (5,), (2, 3)):
        assert jax.eval_shape(lambda b=batch: made.sample(jax.random.key(1), b)).shape == (*batch, *shape)
    critic = jax.eval_shape(lambda: Net.init(jax.random.key(2), ConvCritic(shape, width=2), shape))
    for batch in ((), (5,), (2, 3)):
        assert jax.eval_shape(lambda net, e: net(e), critic, jnp.zeros((*batch, *shape))).shape == batch


def test_events_of_a_batch_do_not_meet():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8))
    critic = jax.jit(Net.init(jax.random.key(1), ConvCritic((8, 8), width=2), (8, 8)))
    # float32 rounding of another order of sums
    np.testing.assert_allclose(critic(x)[0], critic(x[0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "shape"), [
    (3, 1, (2, 7, 6, 3)), (3, 2, (2, 7, 8, 3)), (4, 2, (2, 8, 8, 1)),
])  # fmt: skip
def test_convolution_equals_flax(size, stride, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    net = Net.init(jax.random.key(1), Conv(5, size, stride), shape)
    peer = nn.Conv(5, (size, size), strides=stride, precision="highest").apply({"params": net.params}, x)
    np.testing.assert_allclose(jax.jit(net)(x), peer, atol=1e-5)  # sums of up to 27 products of order one


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2)])
def test_convolution_of_a_doubled_grid_equals_flax(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    net = Net.init(jax.random.key(1), Conv(5, double=True), shape)
    twice = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    peer = nn.Conv(5, (3, 3), precision="highest").apply({"params": net.params}, twice)
    np.testing.assert_allclose(jax.jit(net)(x), peer, atol=1e-5)  # sums of up to 36 products of order one


def test_penalty_equals_finite_differences():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (5, 3), jnp.float64)
        critic = Net.init(jax.random.key(1), MLP((8, 1), jnp.tanh), x)
        output, slope = steepness(lambda x: critic(x)[:, 0], x)
        step = 1e-5
        ends = [critic(x[:, None] + sign * step * jnp.eye(3))[..., 0] for sign in (1, -1)]
        expected = (((ends[0] - ends[1]) / (2 * step)) ** 2).sum(-1)
        np.testing.assert_allclose(output, critic(x)[:, 0])
        # central differences: error of order step^2 in float64
        np.testing.assert_allclose(slope, expected, rtol=1e-7)


@pytest.mark.parametrize("fake_weight", [0.2, 0.0])
def test_one_step_by_hand(ring, fake_weight):
    """Plain gradient descent on both players, against the losses written out."""
    start, x, rate = generator(ring), ring[:64], 0.1
    penalties = (R1(0.5), R2(fake_weight)) if fake_weight else (R1(0.5),)
    game = jg.Adversarial(CRITIC, optax.sgd(rate), optax.sgd(rate), penalties=penalties, average=None)
    state = game.init(jax.random.key(2), start)
    key = jax.random.key(3)
    new, metrics = jax.jit(game.step)(key, state, jg.Batch(x))
    # the first of each player's keys is that of its samples
    generator_key, critic_key = (jax.random.split(one, 3)[0] for one in jax.random.split(key, 2))
    real, fake = start.standardize(x), start.standardize(start.sample(critic_key, (64,)))

    @jax.jit
    def critic_loss(params):
        total, outputs = 0.0, []
        for events, sign, weight in ((real, -1, 0.5), (fake, 1, fake_weight)):
            one = lambda e: CRITIC.apply({"params": params}, e)[0]  # noqa: E731
            outputs.append(jax.vmap(one)(events))
            slope = jax.vmap(jax.grad(one))(events)
            total += jnp.log1p(jnp.exp(sign * outputs[-1])).mean() + 0.5 * weight * (slope**2).sum(1).mean()
        return total

    before = state.critic.model.params
    expected = jax.tree.map(lambda p, g: p - rate * g, before, jax.grad(critic_loss)(before))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), new.critic.model.params, expected)
    assert float(metrics["critic_loss"] + metrics["penalty"]) == pytest.approx(
        float(critic_loss(before)), rel=1e-5
    )

    @jax.jit
    def generator_loss(params):
        net = Net(params, start.net.module)
        z = jax.vmap(lambda k: jax.random.normal(k, (2,)))(jax.random.split(generator_key, 64))
        return jnp.log1p(jnp.exp(-new.critic.model(net(z)))).mean()

    loss, slope = jax.value_and_grad(generator_loss)(start.net.params)
    assert float(metrics["generator_loss"]) == pytest.approx(float(loss), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - rate * g, start.net.params, slope)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), new.model.net.params, expected)
    np.testing.assert_array_equal(new.model.scaling[0], start.scaling[0])


def test_units_of_the_data_do_not_matter(ring):
    """The critic, the game and the penalty are the same for data in other units."""
    game = jg.Adversarial(CRITIC)
    runs = [jg.scan_fit(jax.random.key(2), generator(x), x, game, steps=5, batch_size=50) for x in (ring, 1024 * ring)]
    for name, values in runs[0].history.items():
        # a power of two changes no digit but in the standard deviation's last
        np.testing.assert_allclose(values, runs[1].history[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_average_is_the_model(ring):
    averages = {"slow": jg.Average(0.999), "power": jg.PowerAverage(0.1)}
    game = jg.Adversarial(CRITIC, order=Alternating(2), average=averages)
    fitted = jg.fit(jax.random.key(2), generator(ring), ring, game, steps=20)
    state = fitted.state
    players = (state.model, *state.generator.averages.values(), state.generator.iterate)
    model, slow, power, last = (m.net.params["Dense_0"]["kernel"] for m in players)
    np.testing.assert_array_equal(model, slow)
    assert not np.array_equal(model, last)
    assert 0 < np.abs(power - last).max() < np.abs(slow - last).max(), "a tenth of 20 steps, and most of them"
    np.testing.assert_array_equal(fitted.model.scaling[1], generator(ring).scaling[1])
    assert type(state.critic.model) is Net
    assert int(state.steps) == 20


def test_weights_of_one_change_nothing(ring):
    x, game = ring[:64], jg.Adversarial(CRITIC)
    state = game.init(jax.random.key(2), generator(ring))
    step = jax.jit(game.step)
    plain, weighted = (step(jax.random.key(3), state, jg.Batch(x, None, w))[1] for w in (None, jnp.ones(64)))
    for name, value in plain.items():
        assert float(value) == pytest.approx(float(weighted[name]), rel=1e-5), name


def test_rebuilt_game_compiles_nothing(ring):
    def run(seed):
        penalties = (R1(0.3), R2(0.3, every=2))
        game = jg.Adversarial(MLP((8, 1)), optax.adam(1e-3, b1=0.5), optax.adam(2e-3), penalties=penalties)
        start = jg.Generator.init(jax.random.key(seed), ring, jg.StandardNormal((2,)), hidden=(8,))
        return jg.fit(jax.random.key(seed), start, ring, game, steps=3, batch_size=32)

    run(0)
    with Compilations() as compilations:
        run(1)
    assert compilations.count == 0


def test_short_run_finds_the_ring(ring):
    start = jg.Generator.init(jax.random.key(1), ring, jg.StandardNormal((2,)), hidden=(64, 64))
    game = jg.Adversarial(MLP((64, 64, 1)), penalties=(R1(0.1), R2(0.1)), average=jg.Average(0.99))
    fitted = jg.fit(jax.random.key(2), start, ring, game, steps=1500, batch_size=128)

    def on_a_mode(model):
        x = np.asarray(model.sample(jax.random.key(3), (2000,)))
        distance = np.linalg.norm(x[:, None] - jg.data.eight_gaussians_centers(), axis=-1)
        near = distance.min(1) < 3 * 0.5 / np.sqrt(2)
        return near.mean(), len(np.unique(distance.argmin(1)[near]))

    share, modes = on_a_mode(fitted.model)
    # the start, a blob in the middle, has few; a run to the end has 98 %, see benchmarks/gan_ring.py
    assert on_a_mode(start)[0] < 0.5
    assert share > 0.75
    assert modes == 8


def test_small_images_train():
    x = jg.data.digits().images[:200].astype(np.float32)
    start = jg.Generator.init(jax.random.key(0), x, jg.StandardNormal((4,)), module=ConvGenerator((8, 8), width=2))
    fitted = jg.fit(jax.random.key(1), start, x, jg.Adversarial(ConvCritic((8, 8), width=2)), steps=3, batch_size=16)
    assert fitted.status is jg.Status.FINISHED
    samples = fitted.model.sample(jax.random.key(2), (5,))
    assert samples.min() >= 0
    assert samples.max() <= 16


def test_images_with_contexts_train():
    x, labels = jg.data.digits().images[:200].astype(np.float32), jax.nn.one_hot(jg.data.digits().labels[:200], 10)
    start, algorithm = jg.recipes.dcgan(jax.random.key(0), x, 4, width=2, context_shape=(10,))
    model = jg.fit(jax.random.key(1), start, (x, labels), algorithm, steps=3, batch_size=16).model
    one, two = (model.sample(jax.random.key(2), (2,), context=jnp.eye(10)[i]) for i in (0, 1))
    assert one.shape == (2, 8, 8) and not np.array_equal(one, two)


def test_the_context_reaches_both_players():
    """Each of two contexts has data of its own, and so have the samples at it."""
    context = np.repeat([[-1.0], [1.0]], 200, axis=0).astype(np.float32)
    x = (4 * context + 0.5 * np.random.default_rng(0).normal(size=(400, 2))).astype(np.float32)
    start = generator(x, hidden=(32,), context_shape=(1,))
    game = jg.Adversarial(MLP((32, 1), jax.nn.leaky_relu), penalties=(R1(0.1), R2(0.1)), average=jg.Average(0.9))
    fitted = jg.fit(jax.random.key(2), start, (x, context), game, steps=800, batch_size=100)
    for side in (-1.0, 1.0):
        drawn = np.asarray(fitted.model.sample(jax.random.key(1), (500,), context=jnp.array([side])))
        assert (drawn[:, 0] * side > 0).mean() > 0.95
        np.testing.assert_allclose(drawn.mean(axis=0), [4 * side] * 2, atol=1.0)  # a game comes near, and turns
    # as many contexts as samples: each sample is of its own
    one = fitted.model.sample(jax.random.key(1), (400,), context=context)
    assert ((np.asarray(one)[:, 0] > 0) == (context[:, 0] > 0)).mean() > 0.95
    # the weight of an event is that of the sample at its context too: one of weight zero counts in nothing
    state, step = game.init(jax.random.key(3), start), jax.jit(game.step)
    weight = jnp.array([0.0, 1.0, 1.0, 0.0])
    runs = []
    for first in (-1.0, 100.0):
        events, contexts = (jnp.asarray(a[198:202]).at[0].set(first) for a in (x, context))
        runs.append(step(jax.random.key(4), state, jg.Batch(events, contexts, weight))[1])
    for name, value in runs[0].items():
        np.testing.assert_allclose(value, runs[1][name], rtol=1e-6, err_msg=name)


@model
class Place:
    """A generator that draws one point."""

    at: jax.Array
    event_shape = (1,)

    @per_sample
    def sample(self, key):
        return self.at


@model
class Slope:
    """A linear critic of any kind of model, whose fixed field counts the rows that it saw."""

    slope: jax.Array
    rows: jax.Array = fixed()

    def __call__(self, x):
        return x @ self.slope

    def moved(self, x):
        return dataclasses.replace(self, rows=self.rows + len(x), slope=self.slope + 1e6)


def test_the_field_of_the_simplest_game():
    """One point against a line, data at zero: Mescheder et al. (2018), the Dirac GAN, with both penalties."""
    game = jg.Adversarial(Slope(jnp.zeros(1), jnp.zeros(())), penalties=(R1(0.3), R2(0.3)))
    batch, sigmoid = jg.Batch(jnp.zeros((4, 1))), lambda a: 1 / (1 + np.exp(-a))

    def field(theta, psi):
        players = Players(Place(theta[None]), Slope(psi[None], jnp.zeros(())))
        found = game.field(jax.random.key(0), players, batch)
        return jnp.stack([found.generator.at[0], found.critic.slope[0]])

    theta, psi = 0.7, -0.4
    expected = [-psi * sigmoid(-psi * theta), theta * sigmoid(psi * theta) + 2 * 0.3 * psi]
    np.testing.assert_allclose(field(jnp.float32(theta), jnp.float32(psi)), expected, rtol=1e-5)
    jacobian = np.stack(jax.jacfwd(field, argnums=(0, 1))(jnp.float32(0.0), jnp.float32(0.0)), axis=1)
    # it turns without the penalty, of which the real parts of the eigenvalues are made
    np.testing.assert_allclose(jacobian, [[0, -0.5], [0.5, 0.6]], atol=1e-6)


def test_a_critic_of_any_kind_whose_fixed_fields_move():
    critic = Slope(jnp.ones(1), jnp.zeros(()))
    game = jg.Adversarial(critic, optax.sgd(0.1), optax.sgd(0.1), order=Alternating(3), average=None)
    fitted = jg.fit(jax.random.key(0), Place(jnp.ones(1)), np.zeros((8, 1), np.float32), game, steps=5)
    critic = fitted.state.critic.model
    assert float(critic.rows) == 3 * 5 * 8
    assert abs(float(critic.slope[0])) < 10, "what trains follows the gradient alone"


def play(model=None, critic=CRITIC, **options):
    return jg.Adversarial(critic, **options).init(jax.random.key(0), generator(np.eye(2)) if model is None else model)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: play(critic=MLP((3,))), jg.FitError, "one number"),
        (lambda: play(jg.StandardNormal((2,))), jg.FitError, "nothing to train"),
        (lambda: play(MLP((2,))), jg.FitError, "no generator"),
        (lambda: play(penalties=(R1(-1.0),)), jg.FitError, "out of range"),
        (lambda: play(penalties=(R1(1.0, every=0),)), jg.FitError, "out of range"),
        (lambda: play(penalties=(LeCam(1.0, decay=1.0),)), jg.FitError, "out of range"),
        (lambda: play(penalties=R1(1.0)), jg.FitError, "a tuple"),
        (lambda: play(penalties=(R1,)), jg.FitError, "no penalty"),
        (lambda: play(game=Hinge), jg.FitError, "no game"),
        (lambda: play(order="alternating"), jg.FitError, "no order"),
        (lambda: play(augment=0.5), jg.FitError, "changes no images"),
        (lambda: play(critic=Slope(jnp.ones(3), jnp.zeros(()))), jg.FitError, r"critic\(x\) of shapes \[2, 2\]"),
        (lambda: play(jg.Poisson.from_values([1.0, 2.0])), jg.FitError, "no gradient"),
        (lambda: jg.fit(jax.random.key(0), generator(np.eye(2)), np.full((4, 2), np.nan), jg.Adversarial(CRITIC)),
         jg.DataError, "NaN"),
        (lambda: play(critic=Slope(jnp.ones(2), jnp.zeros(())), model=generator(np.eye(2), context_shape=(3,))),
         jg.FitError, r"critic\(x, context\)"),
        (lambda: play(order=Alternating(0)), jg.FitError, "without moves"),
        (lambda: play(augment=jg.games.Adaptive(pace=0.0)), jg.FitError, "need a pace"),
        (lambda: play(average=jg.Average(1.0)), jg.FitError, "out of range"),
        (lambda: play(critic=CRITIC.apply), jg.ModelError, "flax.linen.Module"),
        (lambda: generator(np.zeros((0, 2))), jg.DataError, "empty"),
        (lambda: generator(np.eye(2), module=MLP((3,))), jg.ModelError, "another shape"),
        (lambda: jg.Generator.init(jax.random.key(0), np.eye(2), jg.StandardNormal(())), jg.ModelError, "vectors"),
        (lambda: generator(np.eye(2)).decode(np.zeros(3)), jg.ShapeError, "Generator.decode"),
        (lambda: jg.fit(jax.random.key(0), generator(np.eye(2)), np.eye(2)), jg.FitError, "Adversarial"),
        (lambda: halvings((3, 8)), jg.ShapeError, "no image"),
        (lambda: halvings((16,)), jg.ShapeError, "no image"),
        (lambda: Conv(2, 5, double=True).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))), jg.ShapeError, "3 by 3"),
        (lambda: ConvCritic((8, 8)).init(jax.random.key(0), jnp.zeros((8, 9))), jg.ShapeError, "critic"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
