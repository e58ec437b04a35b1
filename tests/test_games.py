"""Games, penalties, orders of moves, changes of images and spectra of critics, against closed forms and numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.methods import per_sample
from jaxgen.core.pytree import fixed, model
from jaxgen.fit.augmentation import Adaptive
from jaxgen.fit.orders import Alternating, Extragradient, Players, Simultaneous
from jaxgen.fit.sides import Latents, Pairs
from jaxgen.losses import critics, games
from jaxgen.losses.critics import R1, R2, Consistency, Interpolated, LeCam, judge
from jaxgen.nn.conv import ConvCritic
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.spectral import Spectral
from jaxgen.ops import augment

ALL = [games.Minimax(), games.NonSaturating(), games.Hinge(), games.LeastSquares(), games.Wasserstein(),
       games.Relativistic()]  # fmt: skip
LINE = lambda x: x @ jnp.array([3.0, 4.0])  # noqa: E731


@pytest.mark.parametrize(("game", "critic", "generator"), [
    (games.Minimax(), 2 * np.log(2), -np.log(2)), (games.NonSaturating(), 2 * np.log(2), np.log(2)),
    (games.Hinge(), 2.0, 0.0), (games.LeastSquares(), 0.25, 0.125), (games.Wasserstein(), 0.0, 0.0),
    (games.Relativistic(), np.log(2), np.log(2)),
], ids=lambda v: type(v).__name__)  # fmt: skip
def test_games_at_outputs_of_zero(game, critic, generator):
    zero = jnp.zeros(5)
    assert float(game.critic(zero, zero)) == pytest.approx(critic, rel=1e-6)
    assert float(game.generator(zero, zero)) == pytest.approx(generator, rel=1e-6)
    assert isinstance(game, games.Game)


def test_games_are_their_equations():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 7)).astype(np.float32)
    weight = np.array([0, 1, 2, 0.5, 1, 1, 3], np.float32)
    real_mean = lambda v: (weight * v).sum() / weight.sum()  # noqa: E731
    s = lambda a: np.log1p(np.exp(a))  # noqa: E731
    told = real_mean(s(-real)) + s(fake).mean()
    expected = {
        "Minimax": (told, -s(fake).mean()),
        "NonSaturating": (told, s(-fake).mean()),
        "Hinge": (real_mean(np.maximum(0, 1 - real)) + np.maximum(0, 1 + fake).mean(), -fake.mean()),
        # with the outputs of the paper, which are ours plus a half
        "LeastSquares": (0.5 * real_mean((real + 0.5 - 1) ** 2) + 0.5 * ((fake + 0.5) ** 2).mean(),
                         0.5 * ((fake + 0.5 - 1) ** 2).mean()),
        "Wasserstein": (fake.mean() - real_mean(real), -fake.mean()),
        "Relativistic": (real_mean(s(fake - real)), real_mean(s(real - fake))),
    }  # fmt: skip
    for game in ALL:
        found = game.critic(real, fake, weight), game.generator(real, fake, weight)
        np.testing.assert_allclose(found, expected[type(game).__name__], rtol=1e-5)  # float32 sums of seven


def test_minimax_at_the_best_critic_is_the_divergence():
    """At p = q the value is -log 4."""
    x = jnp.linspace(-12, 13, 20_001)
    p, q = jax.scipy.stats.norm.pdf(x), jax.scipy.stats.norm.pdf(x, 1)
    best = jnp.log(p) - jnp.log(q)
    # of weights that are the densities the means are integrals; the value is 2 JSD - log 4
    assert -float(games.Minimax().critic(best, best, p, q)) == pytest.approx(-1.163451396750, abs=1e-5)
    assert -float(games.Minimax().critic(0 * x, 0 * x, p, p)) == pytest.approx(-np.log(4), rel=1e-6)


def test_penalties_of_a_line():
    x, key = jax.random.normal(jax.random.key(0), (2, 6, 2)), jax.random.key(1)
    seen = judge(LINE, (x[0],), (x[1],), ("real", "fake"))
    assert float(R1(1.0)(key, seen, ())[0]) == pytest.approx(12.5, rel=1e-6)
    assert float(R2(1.0)(key, seen, ())[0]) == pytest.approx(12.5, rel=1e-6)
    assert float(Interpolated(10.0)(key, seen, ())[0]) == pytest.approx(160.0, rel=1e-5)
    shifted = Consistency(2.0, lambda key, x: x + jnp.array([1.0, 0.0]))
    assert float(shifted(key, seen, ())[0]) == pytest.approx(2 * (9 + 9), rel=1e-5)
    flat = judge(lambda x: 0 * x[:, 0], (x[0],), (x[1],))
    # a norm of zero has no gradient of its own, and passes none on
    slope = jax.grad(lambda a: Interpolated(10.0)(key, flat._replace(critic=lambda x: a * x[:, 0]), ())[0])(0.0)
    assert np.isfinite(slope)


def test_lecam_remembers_outputs():
    penalty = LeCam(0.5, decay=0.9)
    memory, sums = penalty.start(), np.zeros(3)
    for real, fake in ((1.0, -1.0), (3.0, 0.0)):
        seen = judge(lambda x: x[:, 0], (jnp.full((4, 1), real),), (jnp.full((4, 1), fake),))
        value, memory = penalty(None, seen, memory)
        sums = 0.9 * sums + 0.1 * np.array([real, fake, 1.0])
        mean_real, mean_fake = sums[:2] / sums[2]
        assert float(value) == pytest.approx(0.5 * ((real - mean_fake) ** 2 + (fake - mean_real) ** 2), rel=1e-5)


def test_lazy_penalties_come_every_so_many_updates_with_that_weight():
    x, key = jax.random.normal(jax.random.key(0), (2, 6, 2)), jax.random.key(1)
    lazy = (R1(1.0, every=3), R2(2.0), LeCam(0.0, every=3))
    total, memories = [], tuple(one.start() for one in lazy)
    look = jax.jit(lambda step, memories: critics.penalised(key, LINE, (x[0],), (x[1],), lazy, memories, step)[1:])
    for step in range(4):
        value, memories = look(step, memories)
        total.append(float(value))
    np.testing.assert_allclose(total, [25 + 37.5, 25, 25, 25 + 37.5], rtol=1e-5)
    assert float(memories[2][2]) == pytest.approx(1 - 0.99**2, rel=1e-4), "two of four updates were remembered"
    # slopes that nobody asks for are not computed
    assert not critics.penalised(key, LINE, (x[0],), (x[1],), lazy[:1], ((),), 0)[0].real_slope.any()


def test_spectral_norm():
    critic = Spectral.init(jax.random.key(0), MLP((2,)), (2,))
    kernel = jnp.array([[3.0, 0.0], [4.0, 5.0]])
    params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(2)}}
    critic = dataclasses.replace(critic, net=Net(params, critic.net.module))
    for _ in range(30):
        critic = critic.moved(jnp.ones(2))
    x = jax.random.normal(jax.random.key(1), (5, 2))
    np.testing.assert_allclose(critic(x), x @ kernel / 6.7082039325, rtol=1e-5)
    assert float(critic.norms()["Dense_0/kernel"]) == pytest.approx(6.7082039325, rel=1e-6)
    # the gradient of the norm goes through the kernel and not through the vectors: u v^T
    slope = jax.grad(lambda net: dataclasses.replace(critic, net=net).norms()["Dense_0/kernel"])(critic.net)
    left, _, right = np.linalg.svd(np.asarray(kernel))
    np.testing.assert_allclose(slope.params["Dense_0"]["kernel"], np.outer(left[:, 0], right[0]), atol=1e-5)


def test_kernels_that_start_at_zero_are_no_division_by_zero():
    """Residual blocks start as the identity, by a kernel of zeros: its norm is found once it has moved."""
    critic = Spectral.init(jax.random.key(0), jg.nn.ResNetCritic((8, 8), width=4), (8, 8))
    (name,) = (name for name, norm in critic.norms().items() if norm == 0)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8))
    value, slope = jax.value_and_grad(lambda net: dataclasses.replace(critic, net=net)(x).sum())(critic.net)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    moved = dataclasses.replace(critic, net=jax.tree.map(lambda w, g: w + 0.1 * g, critic.net, slope))
    for _ in range(30):
        moved = moved.moved(x)
    *path, last = name.split("/")
    kernel = moved.net.params
    for step in (*path, last):
        kernel = kernel[step]
    assert moved.norms()[name] == pytest.approx(np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2), rel=1e-2)


def test_spectral_norms_of_convolutions():
    critic = Spectral.init(jax.random.key(0), ConvCritic((8, 8), width=2), (8, 8))
    critic = jax.jit(lambda one: jax.lax.fori_loop(0, 200, lambda _, c: c.moved(), one))(critic)
    assert sorted(critic.norms()) == ["Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel"]
    for name, norm in critic.norms().items():
        kernel = np.asarray(critic.net.params[name.split("/")[0]]["kernel"])
        # two singular values may be close, and the power method slow to tell them
        assert float(norm) == pytest.approx(np.linalg.norm(kernel.reshape((-1, kernel.shape[-1])), 2), rel=1e-3)


def test_a_spectral_critic_plays():
    x = jg.data.eight_gaussians(jax.random.key(0), 200)
    start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,))
    critic = Spectral.init(jax.random.key(3), MLP((8, 1), jax.nn.leaky_relu), (2,))
    game = jg.Adversarial(critic, game=games.Hinge(), penalties=())
    fitted = jg.fit(jax.random.key(2), start, x, game, steps=30, batch_size=50)
    critic = fitted.state.critic.model
    for name, norm in critic.norms().items():
        layer = critic.net.params[name.split("/")[0]]["kernel"]
        # one iteration a step follows a kernel that moves a little in each
        assert float(norm) == pytest.approx(np.linalg.norm(layer, 2), rel=0.02)


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
    """A linear critic without a constant."""

    slope: jax.Array
    unused: jax.Array = fixed(default=0.0)

    def __call__(self, x):
        return x @ self.slope


def dirac(penalty, order, optimizer=None, at=0.005, **options):
    """The Dirac GAN: one point against a line, data at zero; its state near the solution, or at it, and a batch."""
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer
    penalties = (R1(penalty),) if penalty else ()
    critic = Slope(jnp.full(1, 2 * at))
    game = jg.Adversarial(critic, optimizer, optimizer, penalties=penalties, order=order, average=None, **options)
    return game, game.init(jax.random.key(0), Place(jnp.full(1, at))), jg.Batch(jnp.zeros((2, 1)))


def play(game, state, batch, steps):
    def one(state, key):
        return game.step(key, state, batch)[0], None

    state = jax.jit(lambda state: jax.lax.scan(one, state, jax.random.split(jax.random.key(1), steps))[0])(state)
    return float(jnp.hypot(state.generator.iterate.at[0], state.critic.iterate.slope[0]))


def test_orders_near_the_solution():
    """Moves of step h on the linear game turn by h / 2: at once they leave, extrapolated or optimistic they come."""
    optimistic = optax.optimistic_gradient_descent(0.1)
    radius = {
        name: play(*dirac(0.0, order, optimizer), 600)
        for name, order, optimizer in (
            ("at once", Simultaneous(), None), ("in turn", Alternating(), None),
            ("extrapolated", Extragradient(), None), ("optimistic", Simultaneous(), optimistic),
        )
    }  # fmt: skip
    # eigenvalues 1 -+ 0.05 i; (1 -+ 0.05 i) -+ 0.05^2; to second order the same for the optimistic moves
    start, turn = np.hypot(0.005, 0.01), 0.05
    assert radius["at once"] == pytest.approx(start * abs(1 + 1j * turn) ** 600, rel=0.03)
    assert radius["extrapolated"] == pytest.approx(start * abs(1 + 1j * turn - turn**2) ** 600, rel=0.03)
    assert radius["optimistic"] == pytest.approx(radius["extrapolated"], rel=0.05)
    assert radius["in turn"] == pytest.approx(start, rel=0.1)


def test_extragradient_by_hand():
    game, state, batch = dirac(0.3, Extragradient())
    new = jax.jit(game.step)(jax.random.key(1), state, batch)[0]
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    field = lambda t, p: np.array([-p * sigmoid(-p * t), t * sigmoid(p * t) + 0.3 * p])  # noqa: E731
    here = np.array([0.005, 0.01])
    expected = here - 0.1 * field(*(here - 0.1 * field(*here)))
    np.testing.assert_allclose([new.generator.iterate.at[0], new.critic.iterate.slope[0]], expected, rtol=1e-6)


def test_a_game_that_runs_away_says_so():
    game, state, _ = dirac(0.0, Simultaneous(), optax.sgd(50.0), game=games.Wasserstein())
    data = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    with pytest.warns(jg.JaxgenWarning, match="diverged"):
        fitted = jg.fit(jax.random.key(0), Place(jnp.zeros(1) + 0.5), data, game, steps=50)
    assert fitted.status is jg.Status.DIVERGED
    assert fitted.steps < 50


def test_samples_on_one_point_are_a_collapse():
    game, _, _ = dirac(1.0, Alternating())
    data = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    with pytest.warns(jg.JaxgenWarning, match="collapsed"):
        fitted = jg.fit(jax.random.key(0), Place(jnp.zeros(1) + 0.5), data, game, steps=3)
    assert fitted.history["spread"][-1] == 0
    # a generator on one point against a line: two halves of data on either side of it
    assert fitted.history["critic_accuracy"].max() < 1


def test_changes_of_images():
    x = jnp.arange(2 * 6 * 8.0 * 3).reshape(2, 6, 8, 3) / 288
    key = jax.random.key(0)
    bright = augment.brightness(key, x) - x
    np.testing.assert_allclose(bright, jnp.broadcast_to(bright[:, :1, :1, :1], x.shape), atol=1e-6)
    contrast = augment.contrast(key, x)
    np.testing.assert_allclose(contrast.mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(augment.saturation(key, x).mean(-1), x.mean(-1), rtol=1e-5)
    np.testing.assert_array_equal(augment.saturation(key, x[..., 0]), x[..., 0])
    ones = jnp.ones((200, 6, 8))
    moved = np.asarray(augment.translation(key, ones, reach=0.25))
    rows, columns = moved.max(2).sum(1), moved.max(1).sum(1)
    # by up to 2 rows (of 6, rounded) and 2 columns, and no more; what comes in is zero
    assert set(rows) == {4, 5, 6} and set(columns) == {6, 7, 8}
    np.testing.assert_array_equal(moved.sum((1, 2)), rows * columns)
    place = jnp.zeros((200, 6, 8)).at[:, 3, 4].set(1)
    assert np.asarray(augment.translation(key, place, reach=0.25)).sum() == 200, "a pixel is moved, not lost"
    cut = 1 - np.asarray(augment.cutout(key, ones))
    assert cut.sum((1, 2)).max() == 3 * 4 and (cut.sum((1, 2)) > 0).all()
    flips = np.asarray(augment.flip(key, jnp.broadcast_to(x[:1], (100, *x.shape[1:]))))
    share = np.mean([np.array_equal(one, x[0, :, ::-1]) for one in flips])
    assert 0.3 < share < 0.7
    assert all(np.array_equal(one, x[0]) or np.array_equal(one, x[0, :, ::-1]) for one in flips)
    with pytest.raises(jg.ShapeError, match="no images"):
        augment.augmented(key, jnp.ones((3, 4)))


def test_changes_let_gradients_through():
    x = jax.random.normal(jax.random.key(0), (3, 6, 8))
    slope = jax.jit(jax.grad(lambda x: augment.augmented(jax.random.key(1), x).sum()))(x)
    assert np.isfinite(slope).all() and np.abs(slope).sum() > 0
    chance = jax.vmap(lambda p: augment.augmented(jax.random.key(1), jnp.zeros((400, 4, 4)),
                                                  (augment.brightness,), p))(jnp.array([0.25]))  # fmt: skip
    # 400 coins of 1/4: a standard error of .022
    assert float((chance[0, :, 0, 0] != 0).mean()) == pytest.approx(0.25, abs=0.08)


def test_adaptive_changes_follow_the_critic():
    x = jg.data.digits().images[:64].astype(np.float32)
    start = jg.Generator.init(jax.random.key(0), x, jg.StandardNormal((4,)), hidden=(8,))
    critic = MLP((8, 1), in_shape=(8, 8))
    game = jg.Adversarial(critic, augment=Adaptive((augment.flip,), target=-2.0, pace=320.0))
    fitted = jg.fit(jax.random.key(1), start, x, game, steps=6, batch_size=32)
    # a target that is always passed: up a tenth in each step
    np.testing.assert_allclose(fitted.history["augmentation"], np.arange(6) / 10, atol=1e-6)
    assert np.abs(fitted.history["overfitting"]).max() <= 1
    # both players see both sides changed: of images that are all made black nothing is to be told, and nothing to learn
    black = dataclasses.replace(game, augment=lambda key, x: 0 * x)
    metrics = jax.jit(black.step)(jax.random.key(3), black.init(jax.random.key(2), start), jg.Batch(x))[1]
    assert float(metrics["real_logit"]) == float(metrics["fake_logit"])
    assert float(metrics["generator_gradient"]) == 0


def test_the_game_of_an_autoencoder():
    """The posteriors' draws come to be those of the prior, and latents and events each other's inverse."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 1)) @ np.array([[3.0, 1.0]]) + 0.1 * rng.normal(size=(400, 2))).astype(np.float32)
    start = jg.VAE.init(jax.random.key(0), x, jg.StandardNormal((1,)), hidden=(16,), likelihood=jg.likelihoods.gaussian)
    adam = optax.adam(3e-3, b1=0.5)
    game = jg.Adversarial(MLP((32, 1), jax.nn.silu), adam, adam, sides=Latents(), also=jg.losses.elbo(beta=0.0),
                          also_weight=0.1, average=None, penalties=(R1(0.1), R2(0.1)))  # fmt: skip
    fitted = jg.fit(jax.random.key(1), start, x, game, steps=600, batch_size=100)
    z = np.asarray(fitted.model.sample_posterior(jax.random.key(2), jnp.asarray(x)))
    # as wide as the prior, and not the point or the cloud that the reconstruction alone leaves
    assert z.std() == pytest.approx(1, abs=0.25) and abs(z.mean()) < 0.3
    assert fitted.history["distortion"][-50:].mean() < fitted.history["distortion"][0] - 1
    pairs = dataclasses.replace(game, sides=Pairs(), also=None)
    state = pairs.init(jax.random.key(3), start)
    batch = jg.Batch(jnp.asarray(x[:50]))
    field = jax.jit(pairs.field)(jax.random.key(4), state.players, batch).generator
    # both networks are moved by the game alone
    for net in (field.encoder, field.decoder):
        assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(net))
    generator = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(4,))
    with pytest.raises(jg.FitError, match="no posterior"):
        game.init(jax.random.key(0), generator)


def test_any_model_with_differentiable_samples_trains():
    x = (2 * np.random.default_rng(0).normal(size=(500, 2)) + [5.0, -3.0]).astype(np.float32)
    start = jg.DiagonalGaussian.from_values([0.0, 0.0], [1.0, 1.0])
    adam = optax.adam(0.03, b1=0.0, b2=0.9)
    game = jg.Adversarial(MLP((16, 1), jax.nn.silu), adam, adam, average=jg.Average(0.95))
    fitted = jg.fit(jax.random.key(0), start, x, game, steps=800, batch_size=100)
    # a game without a last step that is small comes near, and turns
    np.testing.assert_allclose(fitted.model.mean, [5.0, -3.0], atol=0.6)
    np.testing.assert_allclose(fitted.model.scale, [2.0, 2.0], rtol=0.4)


def test_contexts_may_be_absent():
    x, context = np.random.default_rng(0).normal(size=(2, 60, 2)).astype(np.float32)
    context[::3] = np.nan
    start = jg.Generator.init(jax.random.key(0), x, jg.StandardNormal((2,)), hidden=(8,), context_shape=(2,),
                              context_optional=True)  # fmt: skip
    game = jg.Adversarial(MLP((8, 1)))
    for data in ((x, context), x):
        fitted = jg.fit(jax.random.key(1), start, data, game, steps=3, batch_size=20)
        assert fitted.status is jg.Status.FINISHED
        assert np.isfinite(fitted.model.sample(jax.random.key(2), (4,))).all()
    assert jax.tree.leaves(fitted.state.critic.model.params)[1].shape == (2 + 3, 8), "event, context, and a flag"
    assert Players(1, 2).critic == 2


def test_a_further_loss_has_names_of_its_own():
    x = jnp.zeros((4, 2))
    start = jg.Generator.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(4,))
    other = lambda key, model, batch, step: jg.losses.Loss(jnp.zeros(()), {"spread": jnp.zeros(())})  # noqa: E731
    game = jg.Adversarial(MLP((4, 1)), also=other)
    with pytest.raises(jg.FitError, match="name of the game's"):
        jax.eval_shape(game.step, jax.random.key(0), game.init(jax.random.key(0), start), jg.Batch(x))


@pytest.mark.parametrize("codes", [None, 1])
def test_codes_are_read_off_samples(codes):
    """The mutual-information term of an InfoGAN, by the normal densities that it is made of."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    vae = jg.VAE.init(jax.random.key(0), x, jg.StandardNormal((2,)), hidden=(8,), likelihood=jg.likelihoods.gaussian)
    key, batch, loss = jax.random.key(1), jg.Batch(jnp.asarray(x)), jg.losses.recognition(codes)
    value, slope = jax.jit(jax.value_and_grad(lambda vae: loss(key, vae, batch, 0)))(vae)
    z = jax.vmap(lambda key: vae.sample_with_latent(key)[0])(jax.random.split(key, 50))
    context = vae.infer(vae.decode(z))
    # the posterior's own density, one coordinate at a time
    scores = jax.vmap(jg.posteriors.ConditionalNormal((2,)).entries)(z, context)
    assert float(value) == pytest.approx(-float(scores[:, :codes].sum(1).mean()), rel=1e-5)
    whole = jg.posteriors.ConditionalNormal((2,)).log_prob(z, context=context)
    np.testing.assert_allclose(scores.sum(1), whole, rtol=1e-4, atol=1e-5)
    for net in (slope.encoder, slope.decoder):
        assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(net))
    with pytest.raises(jg.FitError, match="counted"):
        jg.losses.recognition(0)
