"""Resizing against Pillow, which clean-fid uses, and against sampling by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.interpolate import RegularGridInterpolator

import jaxgen as jg
from jaxgen.ops.resize import pil_bicubic, resize, tf1_bilinear, torch_bilinear

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.float32)


@pytest.mark.parametrize("size", [(299, 299), (64, 40), (13, 9)])
def test_bicubic_is_that_of_pillow(size):
    """Of 255 levels within .003: Pillow has weights in float64 and pixels in float32."""
    wanted = [Image.fromarray(image[..., 0], mode="F").resize(size[::-1], Image.Resampling.BICUBIC) for image in IMAGES]
    found = resize(IMAGES, size, pil_bicubic)
    assert found.shape == (3, *size, 1)
    np.testing.assert_allclose(found[..., 0], np.stack(wanted), atol=3e-3)


@pytest.mark.parametrize(("kernel", "place"), [(tf1_bilinear, 0.0), (torch_bilinear, 0.5)])
@pytest.mark.parametrize("size", [(35, 44), (20, 9)])
def test_bilinear_is_a_line_between_two_pixels(kernel, place, size):
    grid = [np.clip((np.arange(then) + place) * 28 / then - place, 0, 27) for then in size]
    line = RegularGridInterpolator((np.arange(28), np.arange(28)), IMAGES[0, ..., 0].astype(float))
    wanted = line(np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1))
    np.testing.assert_allclose(resize(IMAGES, size, kernel)[0, ..., 0], wanted, atol=3e-4)  # of 255, in float32


def test_channels_and_batches_are_apart_and_integers_are_taken():
    colour = np.concatenate([IMAGES, 255 - IMAGES], axis=-1).astype(np.uint8)[None]
    found = resize(colour, (5, 6), torch_bilinear)
    assert found.shape == (1, 3, 5, 6, 2) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0, ..., 0], resize(IMAGES, (5, 6), torch_bilinear)[..., 0], rtol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 255.0, rtol=1e-5)


def test_what_is_no_image_is_refused():
    with pytest.raises(jg.ShapeError, match="no images"):
        resize(IMAGES[0, ..., 0], (5, 6), torch_bilinear)
