"""Networks of the game: residual, conditional and style-based ones, against their formulas; growth and truncation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import moved

import jaxgen as jg
from jaxgen import recipes
from jaxgen.core.pytree import parameter_count
from jaxgen.nn.conv import ConvCritic
from jaxgen.nn.critics import ClassifierCritic, ProjectionCritic, ResNetCritic, ResNetGenerator
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.style import StyleCritic, StyledConv, StyleGenerator, noise_size

KEY = jax.random.key(0)


def noisy(net, scale=0.3):
    """The network with every parameter moved, those that start at zero too."""
    return moved(jax.random.key(7), net, scale)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (8, 12, 3)])
@pytest.mark.parametrize("norm", [True, False])
def test_residual_shapes(shape, norm):
    context = jnp.zeros((5, 3))
    made = jax.eval_shape(lambda: Net.init(KEY, ResNetGenerator(shape, width=4, norm=norm), (6,), (3,)))
    assert jax.eval_shape(lambda net, c: net(jnp.zeros((5, 6)), c), made, context).shape == (5, *shape)
    for features, out in ((None, ()), (7, (7,))):
        critic = jax.eval_shape(lambda f=features: Net.init(KEY, ResNetCritic(shape, f, 4, norm=norm), shape, (3,)))
        assert jax.eval_shape(lambda net, c: net(jnp.zeros((5, *shape)), c), critic, context).shape == (5, *out)
        names = str(jax.tree_util.tree_structure(critic.params))
        assert ("GroupNorm" in names) == norm


def test_projection_is_an_inner_product():
    net = noisy(Net.init(KEY, ProjectionCritic(MLP((8, 6)), jnp.tanh), (2,), (3,)))
    x, c = jax.random.normal(KEY, (5, 2)), jax.random.normal(jax.random.key(1), (5, 3))
    p = net.params
    features = np.tanh(Net(p["body"], MLP((8, 6)))(x))
    alone = features @ p["Dense_0"]["kernel"][:, 0] + p["Dense_0"]["bias"]
    wanted = alone + np.sum(np.asarray(c @ p["Dense_1"]["kernel"]) * features, axis=1)
    np.testing.assert_allclose(net(x, c), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(net(x, 0 * c), alone, rtol=1e-5, atol=1e-5)  # a context that is absent


def test_classifier_adds_the_log_probability_of_its_class():
    net = noisy(Net.init(KEY, ClassifierCritic(MLP((8, 6)), 3), (2,), (3,)))
    x = jax.random.normal(KEY, (5, 2))
    by_class = np.stack([net(x, jnp.broadcast_to(jax.nn.one_hot(k, 3), (5, 3))) for k in range(3)])
    absent = net(x, jnp.zeros((5, 3)))
    np.testing.assert_allclose(np.exp(by_class - absent).sum(axis=0), 1, rtol=1e-4)
    flagged = jnp.concatenate([jax.nn.one_hot(jnp.arange(5) % 3, 3), jnp.ones((5, 1))], axis=1)
    np.testing.assert_allclose(net(x, flagged), by_class[np.arange(5) % 3, np.arange(5)], rtol=1e-4, atol=1e-5)
    for context in ((), (jnp.zeros((5, 2)),)):
        with pytest.raises(jg.ShapeError, match="one_hot"):
            net(x, *context)


def test_a_projected_game_puts_classes_where_they_are():
    """Two classes at -4 and 4, one-hot; and a critic of convolutions as a body."""
    label = np.arange(400) % 2
    x = np.random.default_rng(0).normal(size=(400, 1)) * 0.5 + np.where(label, 4.0, -4.0)[:, None]
    context = np.eye(2, dtype=np.float32)[label]
    start = jg.Generator.init(KEY, x, jg.StandardNormal((2,)), hidden=(32,), context_shape=(2,))
    game = jg.Adversarial(ProjectionCritic(MLP((32, 32))), average=jg.Average(0.99))
    fitted = jg.fit(jax.random.key(1), start, (x.astype(np.float32), context), game, steps=400, batch_size=64,
                    progress=False)  # fmt: skip
    for k, center in enumerate((-4, 4)):
        drawn = fitted.model.sample(jax.random.key(2), (300,), context=jnp.eye(2)[k])
        assert abs(float(drawn.mean()) - center) < 1.5 and float((drawn * center > 0).mean()) > 0.97
    body = jax.eval_shape(lambda: Net.init(KEY, ProjectionCritic(ConvCritic((8, 8), 4, features=6)), (8, 8), (2,)))
    assert jax.eval_shape(lambda net: net(jnp.zeros((3, 8, 8)), jnp.zeros((3, 2))), body).shape == (3,)


def test_a_style_scales_the_kernel_of_each_event():
    net = noisy(Net.init(KEY, StyledConv(5), (2, 4, 4, 3), (2, 6)))
    x, style = jax.random.normal(KEY, (2, 4, 4, 3)), jax.random.normal(jax.random.key(1), (2, 6))
    p = net.params
    scale = style @ p["style"]["kernel"] + p["style"]["bias"]
    for n in range(2):
        kernel = p["kernel"] * scale[n][:, None]
        kernel = kernel / jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2)))
        wanted = jax.lax.conv_general_dilated(
            x[n : n + 1], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0] + p["bias"]  # fmt: skip
        np.testing.assert_allclose(net(x, style)[n], wanted, rtol=1e-4, atol=1e-5)


def styled(shape, **options):
    module = StyleGenerator(shape, latent=3, width=8, style=4, **options)
    return noisy(Net.init(KEY, module, (3 + noise_size(shape),)))


def test_noise_moves_pixels_and_no_style():
    net, length = styled((4, 4)), 3 + noise_size((4, 4))
    z = jax.random.normal(KEY, (length,))
    other = z.at[3:].set(0)
    assert not np.allclose(net(z), net(other))
    still = dataclasses.replace(net, params={**net.params, "noise0a": jnp.zeros(())})
    np.testing.assert_array_equal(still(z), still(other))
    # a style of noise of any size: what counts is its direction
    np.testing.assert_allclose(net(z), net(z.at[:3].multiply(5.0)), rtol=1e-4, atol=1e-5)
    with pytest.raises(jg.ShapeError, match=rf"StandardNormal\(\({length},\)\)"):
        net(z[:-1])


def test_truncation_goes_to_the_mean_style():
    x = np.arange(160.0).reshape(10, 4, 4)
    model, _ = recipes.style_gan(KEY, x, 3, width=8, noise=False)
    model = dataclasses.replace(model, net=noisy(model.net))
    one, half, none = (recipes.truncated(jax.random.key(1), model, psi) for psi in (1.0, 0.5, 0.0))
    z = jax.random.normal(KEY, (6, 3))
    np.testing.assert_array_equal(one.decode(z), model.decode(z))
    np.testing.assert_allclose(np.ptp(none.decode(z), axis=0), 0, atol=1e-4)
    spread = [float(np.std(m.decode(z), axis=0).mean()) for m in (none, half, one)]
    assert spread[0] < spread[1] < spread[2]
    again = recipes.truncated(jax.random.key(1), half, 1.0)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    with pytest.raises(jg.ModelError, match="style_gan"):
        recipes.truncated(KEY, jg.Generator.init(KEY, x, jg.StandardNormal((2,))), 0.5)


def test_growth_keeps_the_picture_and_the_judgement():
    x = np.random.default_rng(0).random((10, 4, 4)).astype(np.float32)
    model, _ = recipes.style_gan(KEY, x, 3, width=8, context_shape=(2,))
    critic = noisy(Net.init(jax.random.key(1), StyleCritic((4, 4), width=8), (4, 4), (2,)))
    model = dataclasses.replace(model, net=noisy(model.net))
    large, judge = recipes.grown(jax.random.key(2), model, critic)
    z = jax.random.normal(KEY, (5, 3 + noise_size((8, 8))))
    c = jnp.ones((5, 2))
    small = model.decode(z[:, : 3 + noise_size((4, 4))], context=c)
    drawn = large.decode(z, context=c)
    # the same numbers; compiled programs of two sizes round differently
    np.testing.assert_allclose(drawn, np.repeat(np.repeat(small, 2, axis=1), 2, axis=2), rtol=1e-4, atol=1e-5)
    fine = jax.random.normal(KEY, (5, 8, 8))
    coarse = fine.reshape(5, 4, 2, 4, 2).mean(axis=(2, 4))
    say = jax.jit(lambda net, x, c: net(x, c))
    np.testing.assert_allclose(say(judge, fine, c), say(critic, coarse, c), rtol=1e-4, atol=1e-4)
    # and what is new takes part: the game has a gradient in it
    slope = jax.jit(jax.grad(lambda net: net(fine, c).sum()))(judge).params["down1"]["kernel"]
    assert np.abs(slope).max() > 0
    slope = jax.jit(jax.grad(lambda m: (m.decode(z, context=c) * fine).sum()))(large).net.params["color1"]["kernel"]
    assert np.abs(slope).max() > 0
    assert parameter_count(large.net) > parameter_count(model.net)
    with pytest.raises(jg.ModelError, match="StyleCritic"):
        recipes.grown(KEY, model, Net.init(KEY, MLP((1,)), (3,)))


def test_the_game_goes_on_with_a_grown_pair():
    x = np.random.default_rng(0).random((16, 4, 4)).astype(np.float32)
    model, game = recipes.style_gan(KEY, x, 3, width=8)
    state = game.init(jax.random.key(1), model)
    model, critic = recipes.grown(jax.random.key(2), model, state.critic.model)
    large = jg.data.digits().images[:16] / 16.0
    fitted = jg.fit(jax.random.key(3), model, large, dataclasses.replace(game, critic=critic), steps=2, progress=False)
    assert fitted.model.sample(KEY, (3,)).shape == (3, 8, 8)
    before, after = (m.net.params["color1"]["kernel"] for m in (model, fitted.state.generator.iterate))
    assert not np.any(before) and np.all(after)
