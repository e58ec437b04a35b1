"""Layers of flows made from plain values, and from the shape of an event in place of events."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layers import BIJECTIONS

import jaxgen as jg
from jaxgen import bijections
from jaxgen.core.methods import latent_shape

KEY = jax.random.key(0)
PLAIN = [name for name, make in BIJECTIONS.items() if hasattr(type(jax.eval_shape(make, KEY)), "from_values")]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_make_the_layer(name):
    """`from_values` of what the properties of its arguments' names say is the same map."""
    layer = BIJECTIONS[name](KEY)
    names = inspect.signature(layer.from_values).parameters
    again = type(layer).from_values(**{argument: getattr(layer, argument) for argument in names})
    x = jax.random.normal(KEY, latent_shape(layer))
    for new, old in zip(again.forward_and_log_det(x), layer.forward_and_log_det(x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-6)  # a logarithm and its exponential


def test_there_are_plain_layers():
    assert {"affine", "bounded", "permute", "radial", "reshape", "squeeze"} <= set(PLAIN)


def test_an_affine_map_is_what_it_says():
    layer = bijections.Affine.from_values([1.0, -1.0], [2.0, 0.5])
    y, log_det = layer.forward_and_log_det(jnp.array([3.0, 4.0]))
    assert y.tolist() == [7.0, 1.0] and float(log_det) == 0
    assert bijections.Radial.from_values([0.0, 1.0], 2.0, 0.5).radius == pytest.approx(2.0, rel=1e-6)
    for call in (lambda: bijections.Affine.from_values([0.0], [0.0]),
                 lambda: bijections.Radial.from_values([0.0], -1.0, 0.5)):  # fmt: skip
        with pytest.raises(jg.ModelError, match="positive"):
            call()


@pytest.mark.parametrize("init", [
    functools.partial(bijections.Coupling.init, features=(4,)),
    functools.partial(bijections.Autoregressive.init, features=(4,)), bijections.LULinear.init,
    bijections.Householder.init, bijections.Planar.init, bijections.Radial.init, bijections.Sylvester.init,
    bijections.BlockAutoregressive.init, functools.partial(bijections.Residual.init, features=(4,)),
])  # fmt: skip
def test_a_shape_in_place_of_events(init):
    events, by_shape = init(KEY, np.zeros((5, 3), np.float32)), init(KEY, (3,))
    assert jax.tree.structure(events) == jax.tree.structure(by_shape)
    for a, b in zip(jax.tree.leaves(events), jax.tree.leaves(by_shape), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_and_numbers_of_coordinates():
    assert bijections.conv1x1(KEY, (4, 4, 3)).event_shape == (4, 4, 3)
    assert bijections.Coupling.init(KEY, (4, 4, 2), features=(2,)).event_shape == (4, 4, 2)
    assert bijections.Planar.init(KEY, 2).event_shape == (2,)
    with pytest.raises(jg.ShapeError, match="shape \\(D,\\) of one"):
        bijections.Planar.init(KEY, (2, 3))


def test_a_flow_gives_images_and_log_determinants_of_batches():
    base = jg.DiagonalGaussian.from_values([0.5, -0.5], [1.0, 2.0])
    flow = jg.Flow(base, bijections.Chain((bijections.Planar(jnp.array([1.0, 0.5]), jnp.ones(2), jnp.zeros(())),
                                           bijections.Affine.from_values([1.0, 2.0], [2.0, 3.0]))))  # fmt: skip
    x = flow.sample(KEY, (2, 3))
    z, log_det = flow.inverse_and_log_det(x)
    assert z.shape == (2, 3, 2) and log_det.shape == (2, 3)
    # change of variables; a few roundings of numbers below ten
    np.testing.assert_allclose(base.log_prob(z) + log_det, flow.log_prob(x), rtol=1e-5, atol=1e-5)
    again, back = flow.forward_and_log_det(z)
    np.testing.assert_allclose(again, x, atol=1e-4)
    jacobian = jax.jacobian(flow.decode)(z[0, 0])
    np.testing.assert_allclose(back[0, 0], jnp.linalg.slogdet(jacobian)[1], rtol=1e-5)
    np.testing.assert_allclose(back, -log_det, atol=1e-5)
