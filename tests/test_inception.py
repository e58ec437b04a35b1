"""The InceptionV3 of inception distances, against torchvision's module, with the pools of 2015, and its own state."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.metrics.inception import Inception, nested, published_shapes
from jaxgen.nn.inception import InceptionV3, max_pool, mean_pool
from jaxgen.nn.net import Net
from jaxgen.ops.resize import pil_bicubic


def weights(shapes):
    """Seeded numbers for all arrays of the checkpoint, of a scale that keeps that of the layers."""
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in sorted(shapes.items()):
        draw = rng.normal(size=shape).astype(np.float32)
        if name.endswith(("bn.weight", "running_var")):
            arrays[name] = (0.5 + draw**2) * np.float32(0.7 if name.endswith("weight") else 1)
        elif len(shape) > 1:
            arrays[name] = draw * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            arrays[name] = 0.1 * draw
    return arrays


@pytest.fixture(scope="module")
def arrays():
    return weights(published_shapes())


@pytest.fixture(scope="module")
def inception(arrays):
    return Inception(Net(nested(arrays, "test"), InceptionV3()), pil_bicubic, 255)


def test_names_and_shapes_are_those_of_the_checkpoint():
    shapes = published_shapes()
    assert len(shapes) == 472 and sum(map(np.prod, shapes.values())) == 23_885_392  # 94 convolutions of 5, and 2
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (1008, 2048)
    lines = "\n".join(f"{name} {tuple(map(int, shape))}" for name, shape in sorted(shapes.items()))
    # of torchvision.models.inception_v3(num_classes=1008, aux_logits=False).state_dict() without num_batches_tracked
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert digest == "d84f693f2abd7fea61cb31c87d3b2f268bf707c1bae1db219afdad3363959cb0"


def test_pools_by_hand():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    around = [[x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] for j in range(6)] for i in range(5)]
    np.testing.assert_allclose(mean_pool(x)[0], [[a.mean((0, 1)) for a in row] for row in around], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(max_pool(x, 1, "SAME")[0], [[a.max((0, 1)) for a in row] for row in around])
    inside = [[x[0, i : i + 3, j : j + 3].max((0, 1)) for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_array_equal(max_pool(x, 2, "VALID")[0], inside)


#: of the first image of `small()`, by torch 2.13 and torchvision 0.28
REFERENCE = {0: 1762.344, 1: 72.60774, 700: 353.7809, 2047: 105.13058}


def small():
    """The least images that get through all strides."""
    return np.random.default_rng(1).uniform(-1, 1, (2, 75, 75, 3)).astype(np.float32)


def test_output_is_that_of_torch_with_the_same_weights(inception):
    features, logits = jax.jit(lambda net, x: net(x))(inception.net, small())
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    # sums of thousands of float32 products in another order, through 48 layers
    np.testing.assert_allclose(features[0, jnp.array([*REFERENCE])], [*REFERENCE.values()], rtol=1e-3)


def test_inside_of_a_program_the_network_stands_once(inception):
    """Of 120 images, three chunks, there are as many convolutions as of one."""
    given = [jax.ShapeDtypeStruct((n, 75, 75, 3), jnp.float32) for n in (10, 120)]
    count = [str(jax.make_jaxpr(inception.features)(x)).count("conv_general_dilated[") for x in given]
    assert count[0] == count[1] > 0
    assert jax.eval_shape(inception.features, given[1]).shape == (120, 2048)


def torchvision_module(arrays):
    """Torchvision's module with the pools of the graph of 2015, as pytorch-fid patches it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    found = pytest.importorskip("torchvision.models.inception", reason="torchvision is not installed")
    functional = torch.nn.functional

    class Pools:
        relu, max_pool2d = functional.relu, functional.max_pool2d
        last = False

        @classmethod
        def avg_pool2d(cls, x, kernel_size, stride, padding):
            if cls.last:
                return functional.max_pool2d(x, kernel_size, stride, padding)
            return functional.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)

    module = found.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    state = module.state_dict()
    assert {name for name in state if not name.endswith("num_batches_tracked")} == set(arrays)
    module.load_state_dict({name: torch.tensor(arrays.get(name, 0)) for name in state})
    kept = {}
    module.Mixed_7c.register_forward_pre_hook(lambda *_: setattr(Pools, "last", True))
    module.avgpool.register_forward_hook(lambda m, x, y: kept.update(features=y.flatten(1).numpy()))

    def run(x):
        found.F, Pools.last = Pools, False
        try:
            with torch.no_grad():
                logits = module(torch.tensor(np.moveaxis(np.asarray(x), 3, 1))).numpy()
        finally:
            found.F = functional
        return kept["features"], logits

    return run


def test_all_outputs_against_torchvision(arrays, inception):
    run = torchvision_module(arrays)
    expected = run(small())
    for made, wanted in zip(jax.jit(lambda net, x: net(x))(inception.net, small()), expected, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).mean())


def test_errors(inception, tmp_path):
    with pytest.raises(jg.FileError, match=r"inception-2015-12-05\.npz"):
        Inception.from_file(tmp_path / "none.npz", white=1)
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(jg.FileError, match="472 arrays, among them"):
        Inception.from_file(tmp_path / "other.npz", white=1)
    for images, error in (
        (np.zeros((2, 8, 8, 2)), jg.ShapeError), (np.full((2, 8, 8), np.nan), jg.DataError),
        (np.full((2, 8, 8), 256.0), jg.DataError), (np.full((2, 8, 8), -1.0), jg.DataError),
    ):  # fmt: skip
        with pytest.raises(error):
            inception.features(images)


def test_images_from_0_to_1_are_not_read_as_black():
    """The check comes before the network, of which there is none here."""
    with pytest.raises(jg.DataError, match="nearly black"):
        Inception(None, pil_bicubic, 255).features(np.full((1, 8, 8), 0.9))
