"""The family of CONTRIBUTING.md, as it stands there, in every place that a density can be in."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg

TEXT = (pathlib.Path(jg.__file__).parent.parent / "CONTRIBUTING.md").read_text()
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def leaf():
    names: dict = {"__name__": __name__}
    exec(re.search(r"```python\n(.*?)```", TEXT, re.S).group(1), names)
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
    with_atom = jg.Mixture.from_components([jg.Delta.from_value([0.0, 0.0]), leaf.init(KEY, x)])
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
