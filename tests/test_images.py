"""Bijections of images: shapes, orders of pixels, starts from data, and a small Glow that trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import moved
from flax import linen

import jaxgen as jg
from jaxgen.bijections import (
    Affine,
    Chain,
    LULinear,
    MultiScale,
    Reshape,
    Squeeze,
    Vmap,
    conv1x1,
    glow,
    initialize,
)
from jaxgen.core.pytree import combine, partition
from jaxgen.models.neural.flow import Flow
from jaxgen.nn.conv import Conv, ConvNet
from jaxgen.nn.net import Net

KEY = jax.random.key(0)


def test_squeeze_gathers_blocks():
    layer = Squeeze.from_values((4, 6, 3))
    y = np.arange(72.0).reshape(4, 6, 3)
    x = np.asarray(layer.inverse_and_log_det(jnp.asarray(y))[0])
    assert x.shape == layer.latent_shape == (2, 3, 12)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(x[i, j], y[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel())
    np.testing.assert_array_equal(layer.forward_and_log_det(x)[0], y)


def test_conv1x1_is_linens():
    """One matrix for all pixels: against a convolution of one pixel of another library."""
    layer = moved(KEY, conv1x1(KEY, jnp.zeros((1, 4, 2, 3))))
    x = jax.random.normal(KEY, (4, 2, 3))
    y, log_det = layer.forward_and_log_det(x)
    lu = layer.layer.layer
    assert isinstance(lu, LULinear)
    peer = linen.Conv(3, (1, 1), use_bias=False, precision="highest")
    np.testing.assert_allclose(y, peer.apply({"params": {"kernel": lu.matrix.T[None, None]}}, x[None])[0], atol=1e-5)
    np.testing.assert_allclose(log_det, 8 * np.linalg.slogdet(np.asarray(lu.matrix, np.float64))[1], atol=1e-5)


def test_conv_net_is_linens():
    net = moved(KEY, Net.init(KEY, ConvNet(6, width=5), (4, 4, 2)))
    x = jax.random.normal(KEY, (3, 4, 4, 2))
    conv = functools.partial(linen.Conv, precision="highest")
    h = x
    for i, (features, size) in enumerate(((5, 3), (5, 1), (6, 3))):
        h = conv(features, (size, size)).apply({"params": net.params[f"Conv_{i}"]}, h)
        h = jax.nn.silu(h) if i < 2 else h
    np.testing.assert_allclose(net(x), h, atol=1e-5)
    np.testing.assert_allclose(net(x[0]), h[0], atol=1e-5)
    assert not Net.init(KEY, ConvNet(6, width=5), (4, 4, 2))(x).any(), "it starts at zero"
    assert not jax.tree.leaves(Net.init(KEY, Conv(2, zero=True), (1, 2, 2, 1)).params["kernel"])[0].any()


def test_multiscale_by_hand():
    first = Chain((Vmap(Vmap(Affine(jnp.arange(4.0), jnp.zeros(4)), 2), 2), Squeeze.from_values((4, 4, 1))))
    second = Affine(jnp.ones((2, 2, 3)), jnp.full((2, 2, 3), 0.5))
    layer = MultiScale.from_levels((first, second))
    y = jax.random.normal(KEY, (4, 4, 1))
    h = np.asarray(first.inverse_and_log_det(y)[0])
    z, log_det = layer.inverse_and_log_det(y)
    # three of four channels stay; the last leaves first
    expected = np.concatenate([h[..., 3:].ravel(), ((h[..., :3] - 1) * np.exp(-0.5)).ravel()])
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, -6, rtol=1e-6)
    np.testing.assert_allclose(layer.forward_and_log_det(z)[0], y, atol=1e-6)


def test_initialize_reaches_every_level_and_pixel():
    x = 5 + 3 * jax.random.normal(KEY, (200, 4, 4, 1)) * jnp.arange(1, 5)[:, None, None]
    affine = lambda n: Vmap(Vmap(Affine(jnp.zeros(n), jnp.zeros(n)), 2), 2)  # noqa: E731
    layer = initialize(MultiScale.from_levels((Chain((affine(4), Squeeze.from_values((4, 4, 1)))), affine(2))), x)
    z = np.asarray(jax.vmap(layer.inverse_and_log_det)(x)[0], np.float64)
    for channel in (z[:, :8].reshape(-1, 2), z[:, 8:].reshape(-1, 2)):
        low, middle, high = np.quantile(channel, [0.1, 0.5, 0.9], axis=0)
        np.testing.assert_allclose([middle, high - low], [[0, 0], [2.5631, 2.5631]], atol=1e-4)


@functools.cache
def small_glow():
    """4 by 4 images with a bright diagonal, a flow for them, and it trained for a little."""
    noise, start, key = jax.random.split(KEY, 3)
    x = 0.3 * jax.random.normal(noise, (400, 4, 4)) + 2 * jnp.eye(4) * jax.random.normal(key, (400, 1, 1))
    model, algorithm = jg.recipes.glow(start, x, levels=1, depth=2, width=8, step_size=1e-2)
    return x, model, jg.fit(key, model, x[:300], algorithm, steps=60, batch_size=100, progress=False)


def test_glow_trains_and_is_a_density():
    x, start, fitted = small_glow()
    assert fitted.status == jg.Status.FINISHED
    before, after = (model.log_prob(x)[300:].mean() for model in (start, fitted.model))
    assert after > before + 1, "a nat in sixty steps, from a start in the units of each channel"
    flow = jax.jit(moved)(jax.random.key(3), fitted.model)
    assert (flow.event_shape, flow.latent_shape) == ((4, 4), (16,))

    @jax.jit
    def around(flow, x):
        z, log_det = flow.bijection.inverse_and_log_det(x)
        back, back_log_det = flow.bijection.forward_and_log_det(z)
        jacobian = jax.jacobian(lambda x: flow.bijection.inverse_and_log_det(x)[0])(x).reshape(16, 16)
        return log_det, back, back_log_det, jacobian

    log_det, back, back_log_det, jacobian = around(flow, x[0])
    np.testing.assert_allclose(back, x[0], atol=1e-5)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-5)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian, np.float64))[1], atol=1e-5)
    sample = fitted.model.sample(jax.random.key(1), (500,))
    # the diagonal's pixels move together, the others do not
    pixels = np.corrcoef(np.asarray(sample).reshape(500, 16).T)
    assert pixels[0, 5] > 0.5 and abs(pixels[1, 4]) < 0.3


def test_glow_of_pixels_and_contexts():
    digits = jg.data.digits().images[:64]
    model, algorithm = jg.recipes.glow(KEY, digits, highest=16, levels=1, depth=1, width=4, context_shape=(2,))
    assert isinstance(model, jg.Dequantized) and model.event_shape == (8, 8)
    context = jax.random.normal(KEY, (64, 2))
    fitted = jg.fit(KEY, model, (digits, context), algorithm, steps=5, batch_size=32, progress=False)
    assert fitted.status == jg.Status.FINISHED
    bits = -fitted.model.elbo(KEY, digits, context=context) / 64 / np.log(2)
    # uniform noise on 17 levels is 4.09 bits; a start in the units of the data is already better
    assert np.isfinite(bits).all() and bits.mean() < 4.09
    with pytest.raises(jg.DataError, match="no levels"):
        jg.recipes.glow(KEY, digits, highest=15)


def test_program_does_not_grow_with_steps():
    def count(steps):
        flow = jax.eval_shape(lambda key: glow_of(key, steps), KEY)
        trained, rest = partition(flow)
        value = lambda t, r, x: combine(t, r).bijection.inverse_and_log_det(x)[1]  # noqa: E731
        jaxpr = jax.make_jaxpr(jax.grad(value))(trained, rest, jax.ShapeDtypeStruct((4, 4, 1), jnp.float32))
        return len(str(jaxpr).splitlines())

    def glow_of(key, steps):
        x = jnp.zeros((2, 4, 4, 1))
        return Flow(jg.StandardNormal((16,)), glow(key, x, levels=1, steps=steps, width=4))

    assert count(2) == count(5)


def test_wrong_images_are_refused():
    x = jnp.zeros((3, 6, 4, 1))
    refused = (
        (lambda: Squeeze.from_values((3, 4, 1)), jg.ModelError, "blocks of 2 by 2"),
        (lambda: Squeeze.from_values((4, 4)), jg.ModelError, "blocks of 2 by 2"),
        (lambda: Reshape.from_values((2, 3), (5,)), jg.ModelError, "same numbers"),
        (lambda: MultiScale.from_levels(()), jg.ModelError, "no levels"),
        (lambda: MultiScale.from_levels((Squeeze.from_values((4, 4, 1)),) * 2), jg.ModelError, "does not fit the one"),
        (lambda: glow(KEY, x, levels=2), jg.ModelError, "halved so often"),
        (lambda: glow(KEY, x, levels=1, steps=0), jg.ModelError, "halved so often"),
        (lambda: glow(KEY, x[0]), jg.ShapeError, "takes images"),
        (lambda: conv1x1(KEY, x[0]), jg.ShapeError, "takes images"),
        (lambda: conv1x1(0, x), jg.DataError, "random key"),
        (lambda: jg.recipes.glow(KEY, jnp.zeros((5, 3))), jg.ShapeError, "takes images"),
        (lambda: Squeeze.from_values((4, 4, 1)).forward_and_log_det(jnp.zeros((4, 4, 1))), jg.ShapeError,
         r"\[2, 2, 4\]"),
    )
    for make, kind, message in refused:
        with pytest.raises(kind, match=message):
            make()
