"""Residual networks between images and vectors: convolutions against flax, shapes, contexts, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.nn import conv, resnet
from jaxgen.ops import convolutions

KEY = jax.random.key(0)


@pytest.mark.parametrize(("size", "stride", "sides"), [(3, 1, (5, 4)), (4, 2, (8, 6)), (3, 2, (7, 7))])
def test_both_ways_of_a_convolution_equal_flax(size, stride, sides):
    """The one of CPUs and the one of other devices, which compiles here too, with their derivatives."""
    x = jax.random.normal(KEY, (2, *sides, 3))
    kernel = jax.random.normal(KEY, (size, size, 3, 5))
    peer = lambda x, kernel: nn.Conv(5, (size, size), strides=stride, use_bias=False, precision="highest").apply(  # noqa: E731
        {"params": {"kernel": kernel}}, x
    )  # fmt: skip
    wanted, pull = jax.vjp(peer, x, kernel)
    by_place = lambda *a: conv.convolve(*a[:2], stride=a[2], precision=a[3])  # noqa: E731
    for way in (convolutions._by_patches, convolutions._by_convolution, by_place):
        found, back = jax.vjp(lambda x, kernel: way(x, kernel, stride, "highest"), x, kernel)  # noqa: B023
        # float32 sums of 48 products
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        for one, other in zip(back(wanted), pull(wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_a_convolution_can_be_differentiated_twice_and_mapped_over_kernels():
    x, kernels = jax.random.normal(KEY, (1, 4, 4, 2)), jax.random.normal(KEY, (3, 3, 3, 2, 2))
    energy = lambda x, kernel: jnp.sum(jnp.tanh(conv.convolve(x, kernel)))  # noqa: E731
    penalty = lambda kernel: jnp.sum(jax.grad(energy)(x, kernel) ** 2)  # noqa: E731
    mapped = jax.jit(jax.vmap(jax.grad(penalty)))(kernels)
    step = 1e-2
    for kernel, slope in zip(kernels, mapped, strict=True):
        direction = jax.random.normal(jax.random.key(1), kernel.shape)
        numeric = (penalty(kernel + step * direction) - penalty(kernel - step * direction)) / (2 * step)
        # central differences in float32
        np.testing.assert_allclose(jnp.sum(slope * direction), numeric, rtol=2e-2)


def drawn(module, *shapes):
    """The network with its zero convolutions off zero."""
    net = jg.Net.init(KEY, module, *shapes)
    leaves, tree = jax.tree.flatten(net)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [a + 0.1 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.mark.parametrize(
    ("module", "event", "out"),
    [
        (resnet.ResNetEncoder((8, 12, 3), (2, 5), width=4), (8, 12, 3), (2, 5)),
        (resnet.ImageToGrid((8, 12), 5, width=4), (8, 12), (4, 6, 5)),
        (resnet.ResNetDecoder((2, 8, 12, 3), width=4), (7,), (2, 8, 12, 3)),
        (resnet.GridToImage((2, 8, 12), width=4), (4, 6, 5), (2, 8, 12)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_one_event_is_answered_as_in_a_batch_and_with_its_context(module, event, out):
    net = drawn(module, event, (2,))
    x, c = jax.random.normal(KEY, (2, 3, *event)), jax.random.normal(jax.random.key(2), (2, 3, 2))
    batch = net(x, c)
    assert batch.shape == (2, 3, *out)
    # group normalisation is of each event by itself
    np.testing.assert_allclose(net(x[1, 2], c[1, 2]), batch[1, 2], atol=1e-5)
    assert (jnp.abs(net(x, c + 1) - batch).max(axis=tuple(range(2, batch.ndim))) > 1e-3).all()
    slope = jax.grad(lambda net: jnp.sum(net(x, c) ** 2))(net)
    assert all(jnp.any(leaf != 0) and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_depth_is_chosen_by_the_image():
    assert [resnet.grid_shape(shape) for shape in ((28, 28), (32, 32, 3), (28, 20))] == [(7, 7), (4, 4), (7, 5)]
    module = resnet.ImageToGrid((16, 16), 3, width=4, depth=1)
    shapes = jax.eval_shape(lambda: jg.Net.init(KEY, module, (16, 16)).params)
    assert set(shapes) == {"Conv_0", "Block_0", "Norm_0", "Conv_1"}
    assert shapes["Conv_0"]["kernel"].shape == (4, 4, 1, 4)


def test_channels_become_pixels_in_order():
    x = np.arange(2 * 3 * 8.0).reshape(1, 2, 3, 8)
    found = resnet._doubled(jnp.asarray(x))
    for row in range(4):
        for column in range(6):
            inside = 2 * (row % 2) + column % 2
            wanted = x[0, row // 2, column // 2].reshape(4, 2)[inside]
            np.testing.assert_array_equal(found[0, row, column], wanted)


@pytest.mark.parametrize(
    ("module", "x", "match"),
    [
        (resnet.ResNetEncoder((9, 8), (2,)), (9, 8), "cannot be halved"),
        (resnet.ResNetDecoder((1, 6, 6)), (2,), "pad the images to 8 by 8 pixels"),
        (resnet.ResNetEncoder((8, 8), (2,), depth=2), (8, 8), "a depth from 1 to 1"),
        (resnet.ResNetEncoder((8,), (2,)), (8,), "no image"),
        (resnet.ResNetEncoder((8, 8), (2,)), (8, 12), "does not fit"),
        (resnet.GridToImage((1, 8, 8)), (2, 2, 3), "does not fit"),
    ],
)
def test_images_that_cannot_be_halved_are_refused(module, x, match):
    with pytest.raises(jg.ShapeError, match=match):
        jg.Net.init(KEY, module, x)


def test_a_vae_of_images_takes_them(tmp_path):
    x = jax.random.bernoulli(KEY, 0.3, (6, 8, 8)).astype(jnp.float32)
    vae = jg.VAE.init(
        KEY, x, jg.StandardNormal((2,)), encoder=jg.nn.ResNetEncoder((8, 8), (2, 2), width=4),
        decoder=jg.nn.ResNetDecoder((1, 8, 8), width=4), context_shape=(3,),
    )  # fmt: skip
    bound = vae.elbo(KEY, x, context=jnp.ones((6, 3)))
    jg.save(vae, tmp_path / "vae")
    np.testing.assert_array_equal(jg.load(tmp_path / "vae").elbo(KEY, x, context=jnp.ones((6, 3))), bound)
