"""The classifier of small grey images: what it knows of the package's own images, its network, its file, its errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import jaxgen as jg
from jaxgen.metrics import features
from jaxgen.metrics.features import CLASSES, grey_classes, grey_features

CLOTHES, DIGITS = jg.data.fashion_mnist(), jg.data.digits()


@pytest.fixture(scope="module")
def seen():
    """Features and classes of a thousand clothes that it was not trained on, which are more than a chunk."""
    images = CLOTHES.images[CLOTHES.test]
    return np.asarray(grey_features(images, white=255)), np.asarray(grey_classes(images, white=255))


def test_it_names_clothes_and_digits(seen):
    assert (seen[1].argmax(axis=1) == CLOTHES.labels[CLOTHES.test] + 10).mean() > 0.89  # 91 % of all 10,000
    assert [CLASSES[k + 10] for k in range(10)] == list(CLOTHES.names)
    np.testing.assert_allclose(seen[1].sum(axis=1), 1, rtol=1e-5)
    digits = grey_classes(DIGITS.images[DIGITS.test], white=16)
    assert (digits.argmax(axis=1) == DIGITS.labels[DIGITS.test]).mean() > 0.95


def test_features_say_more_of_clothes_than_pixels_do(seen):
    """A linear classifier of 64 features of 300 images, beside one of their 784 pixels."""
    labels, few = CLOTHES.labels[CLOTHES.test], 300
    scores = []
    for x in (seen[0], CLOTHES.images[CLOTHES.test].reshape(1000, -1) / 255):
        scale = x[:few].std(axis=0) + 1e-3
        fitted = LogisticRegression(max_iter=300).fit(x[:few] / scale, labels[:few])
        scores.append(fitted.score(x[few:] / scale, labels[few:]))
    assert seen[0].shape == (1000, 64) and scores[0] > scores[1] + 0.05


def test_units_axes_and_chunks_do_not_matter(seen):
    images = CLOTHES.images[CLOTHES.test][:6]
    # another chunk has another order of sums
    np.testing.assert_allclose(grey_features(images, white=255), seen[0][:6], rtol=1e-3, atol=1e-4)
    grid = grey_features(jnp.asarray(images / 255.0, jnp.float32).reshape(2, 3, 28, 28), white=1)
    np.testing.assert_allclose(grid.reshape(6, -1), seen[0][:6], rtol=1e-3, atol=1e-4)
    inside = jax.jit(lambda x: grey_classes(x, white=255))(images)
    np.testing.assert_allclose(inside, seen[1][:6], rtol=1e-3, atol=1e-4)


def test_network_is_that_of_flax_layers():
    """The same parameters in flax's own convolutions and group normalisations."""
    params = features.draw(jax.random.key(0), None)
    keys = jax.random.split(jax.random.key(1), len(params))
    params = {name: leaf + 0.1 * jax.random.normal(k, leaf.shape) for (name, leaf), k in zip(params.items(), keys,
              strict=True)}  # fmt: skip
    x = jax.random.uniform(jax.random.key(2), (2, 28, 28))

    def conv(name, h, stride=1):
        layer = nn.Conv(params[name].shape[-1], params[name].shape[:2], stride)
        return layer.apply({"params": {"kernel": params[name], "bias": params[f"{name}.bias"]}}, h)

    def norm(h):
        layer = nn.GroupNorm(None, 8, epsilon=1e-5, use_bias=False, use_scale=False, use_fast_variance=False)
        return layer.apply({}, h)

    h = conv("stem", 2 * x[..., None] - 1, 2)
    for level in range(3):
        h = conv(f"down{level}", h, 2) if level else h
        h = h + conv(f"second{level}", nn.relu(conv(f"first{level}", nn.relu(norm(h)))))
    wanted = nn.relu(norm(h)).mean((1, 2))
    found, logits = features.apply(params, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)  # float32, products in another order
    np.testing.assert_allclose(logits, wanted @ params["classes"] + params["classes.bias"], rtol=1e-4, atol=1e-4)


def test_what_is_written_is_read_to_half_a_step():
    params = features.draw(jax.random.key(0), None)
    read = features.decode(features.encode(params))
    assert read.keys() == params.keys()
    for name, value in params.items():
        step = np.abs(value).max(axis=tuple(range(value.ndim - 1))) / 127 if value.ndim > 1 else 0.0
        assert np.all(np.abs(read[name] - value) <= 0.5001 * np.asarray(step) + 1e-12), name


@pytest.mark.parametrize(
    ("images", "white", "error", "match"),
    [
        (np.zeros((2, 28, 27)), 1, jg.ShapeError, "another size"),
        (np.zeros((2, 28, 28, 3)), 1, jg.ShapeError, "colours"),
        (np.zeros(28), 1, jg.ShapeError, "another size"),
        (np.full((2, 28, 28), np.nan), 1, jg.DataError, "not finite"),
        (CLOTHES.images[:2], 1, jg.DataError, "white=255"),
        (CLOTHES.images[:2] / 255, 255, jg.DataError, "white=1"),
        (CLOTHES.images[:2] / 127.5 - 1, 1, jg.DataError, r"\(images \+ 1\) / 2"),
        (DIGITS.images[:2], 1, jg.DataError, "white=16"),
    ],
)
def test_errors(images, white, error, match):
    with pytest.raises(error, match=match):
        grey_features(images, white=white)


def test_weights_of_another_version_are_refused():
    with pytest.raises(jg.FileError, match="install jaxgen again"):
        features.read_weights(b"other bytes")
