"""The family and the container of CONTRIBUTING.md, as they stand there, in every place that they can be in."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg
from jaxgen.core import algebra, latent

TEXT = (pathlib.Path(jg.__file__).parent.parent / "CONTRIBUTING.md").read_text()
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def names():
    names: dict = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def leaf(names):
    return names["DoubleExponential"]


@pytest.fixture(scope="module")
def x(leaf):
    true = jg.Mixture.from_components(leaf(jnp.array([[0.0, 0.0], [9.0, 5.0]]), jnp.zeros((2, 2))), [0.4, 0.6])
    return np.asarray(true.sample(KEY, (400,)))


def test_the_laws_hold(leaf, x):
    found = jg.check(leaf(jnp.array([0.3, -0.2]), jnp.array([0.1, 0.4])), x[:20])
    assert found.ok, found
    assert {"Density", "Latent"} <= set(found.can) and "Repairs" in found.cannot


def test_mixture_selection_and_files(leaf, x, tmp_path):
    start = jg.Mixture.init(KEY, x, 2, leaf.init)
    fitted = jg.fit(KEY, start, x).model
    np.testing.assert_allclose(np.sort(fitted.components.location[:, 0]), [0, 9], atol=0.3)
    found = jg.select(KEY, x, [1, 2, 3], {"double exponential": leaf.init}, restarts=1)
    assert found.best().k == 2
    jg.save(fitted, tmp_path / "model")
    np.testing.assert_array_equal(jg.load(tmp_path / "model").log_prob(x), fitted.log_prob(x))
    with_atom = jg.Mixture.from_components([jg.Delta.from_values([0.0, 0.0]), leaf.init(KEY, x)])
    assert np.isfinite(jg.fit(KEY, with_atom, x, steps=3).model.log_prob(x)).all()


def test_chain_product_stream_and_stepwise(leaf, x):
    hmm = jg.HMM.init(KEY, x[None], 2, leaf.init)
    fitted = jg.fit(KEY, hmm, x[None], steps=20)
    assert np.diff(fitted.history["objective"]).min() > -1e-3
    product = jg.Product.init(KEY, x, {(0,): leaf.init, (1,): leaf.init})
    np.testing.assert_allclose(product.log_prob(x), leaf.init(KEY, x).log_prob(x), rtol=1e-5, atol=1e-5)
    start = jg.Mixture.init(KEY, x, 2, leaf.init)
    whole = jg.fit(KEY, start, x, steps=5, tolerance=0.0)
    streamed = jg.fit(KEY, start, jg.data.Stream(x, chunk=100), steps=5, tolerance=0.0)
    np.testing.assert_allclose(streamed.history["objective"], whole.history["objective"], rtol=1e-5)
    stepwise = jg.fit(KEY, start, x, jg.StepwiseEM(), steps=30, batch_size=100).model
    np.testing.assert_allclose(np.sort(stepwise.components.location[:, 0]), [0, 9], atol=0.4)


def test_the_laws_hold_of_a_container(names, tmp_path):
    """Of parts of one kind and of several; a weight of a half each is what a mixture with frozen weights has."""
    even, rng = names["EvenMixture"], np.random.default_rng(0)
    x = np.concatenate([rng.gamma(3.0, 1.0, (60, 1)), rng.normal(9.0, 1.0, (60, 1))]).astype(np.float32)
    normals = algebra.stack([jg.DiagonalGaussian.from_values([m], [1.0]) for m in (1.0, 8.0)])
    several = algebra.stack([jg.Gamma.from_values([2.0], [2.0]), jg.DiagonalGaussian.from_values([8.0], [1.0])])
    for components in (normals, several):
        start = even(components)
        found = jg.check(start, x[:20])
        assert found.ok, found
        fitted = jg.fit(KEY, start, x, steps=8, tolerance=0.0).model
        peer = jg.Mixture.from_components(components)
        frozen = jg.fit(KEY, peer, x, jg.EM(frozen={"logits": True}), steps=8, tolerance=0.0).model
        np.testing.assert_allclose(fitted.log_prob(x), frozen.log_prob(x), rtol=1e-5, atol=1e-5)
        assert latent.free_parameters(fitted) == 4
        jg.save(fitted, tmp_path / "model")
    held = jg.fit(KEY, even(several), x, jg.EM(frozen={"components[0]": True}), steps=2, tolerance=0.0).model
    np.testing.assert_array_equal(held.components[0].log_mean, several[0].log_mean)
    assert float(held.components[1].mean[0]) != 8.0
    descended = jg.fit(KEY, even(normals), x, jg.Gradient(), steps=50, batch_size=120)
    assert descended.history["loss"][-1] < descended.history["loss"][0]
    with pytest.raises(jg.DataError, match="finite|numbers"):
        jg.fit(KEY, even(several), np.full_like(x, np.nan))
