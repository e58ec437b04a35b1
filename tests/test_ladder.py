"""Ladders of hidden variables against scipy, block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from case import moved

import jaxgen as jg


def test_a_ladder_is_a_product_of_normals():
    q = moved(jax.random.key(0), jg.Ladder.init(jax.random.key(1), (2, 1, 3), context_shape=(4,), hidden=(8,)), 0.3)
    z, context = (np.asarray(jax.random.normal(jax.random.key(2), (6, n))) for n in (6, 4))
    expected = 0.0
    for net, block, above in zip(q.nets, q.blocks(z), (z[:, :0], z[:, :2], z[:, :3]), strict=True):
        mean, raw = np.moveaxis(np.asarray(net(np.concatenate([context, above], axis=1))), 1, 0)
        scale = np.exp(6 * np.tanh(raw / 6))
        expected = expected + scipy.stats.norm(mean, scale).logpdf(block).sum(axis=1)
    # float32 sums of six terms of size 1 to 10
    np.testing.assert_allclose(q.log_prob(z, context=context), expected, rtol=1e-5, atol=1e-5)
    drawn, log_q = q.sample_and_log_prob(jax.random.key(3), (6,), context=context)
    np.testing.assert_allclose(log_q, q.log_prob(drawn, context=context), rtol=1e-5, atol=1e-5)
    # the means given the means are the most likely blocks from the top down, and a draw without noise
    center = q.center(jnp.asarray(context))
    assert center.shape == (6, 6)
    np.testing.assert_allclose(center[:, :2], np.asarray(q.nets[0](context))[:, 0], rtol=1e-6)
    slope = jax.grad(lambda c: q.sample_and_log_prob(jax.random.key(5), context=c)[0].sum())(context[0])
    assert jnp.abs(slope).max() > 1e-3


def test_the_top_of_a_prior_is_standard_normal():
    prior = moved(jax.random.key(0), jg.Ladder.init(jax.random.key(1), (2, 1), hidden=(8,)), 0.3)
    z = prior.sample(jax.random.key(2), (4000,))
    assert scipy.stats.kstest(np.asarray(prior.blocks(z)[0]).ravel(), "norm").pvalue > 1e-4
    assert prior.nets[0] is None


@pytest.mark.parametrize("sizes", [(), (2, 0)])
def test_blocks_have_numbers(sizes):
    with pytest.raises(jg.ModelError, match="blocks"):
        jg.Ladder.init(jax.random.key(0), sizes)
