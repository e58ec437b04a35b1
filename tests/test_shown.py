"""How models and results show themselves: values of small ones by public names, shapes of large ones, tables."""

import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

import jaxgen as jg

KEY = jax.random.key(0)
PLANE = jg.Gaussian.from_values([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])


def texts(shown):
    """The cells of a table and of the tables in it; what is no well-formed markup is an error."""
    return [text.strip() for text in ElementTree.fromstring(shown).itertext() if text.strip()]


@pytest.mark.parametrize(("model", "text"), [
    (PLANE, "Gaussian(mean=[0, 1], covariance=[[2, 0.5], [0.5, 1]])"),
    (jg.Gaussian.from_values(np.zeros(100), np.eye(100), missing=True),
     "Gaussian(mean=float32[100], covariance=float32[100,100], missing=True)"),
    (jg.Gamma.from_values([2.0], [1.5]), "Gamma(mean=[2], shape=[1.5])"),
    (jg.Mixture.from_components(jg.Poisson.from_values([1.0, 9.0]), [0.25, 0.75]),
     "Mixture(weights=[0.25, 0.75], components=Poisson(rate=[1, 9]))"),
    (jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 9.0])),
     "HMM(chain=MarkovChain(initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]]), emissions=Poisson(rate=[1, 9]))"),
    (jg.RBM.from_values([0.5], [0.0], [[1.0]]),
     "RBM(visible=Bernoulli(bias=[0.5]), hidden=Bernoulli(bias=[0]), weights=[[1]], visible_center=[0], "
     "hidden_center=[0])"),
], ids=lambda value: type(value).__name__ if not isinstance(value, str) else "")  # fmt: skip
def test_models_show_plain_values(model, text):
    assert repr(model) == text


def test_every_model_shows_itself():
    for case in CASES:
        abstract = jax.eval_shape(case.make, KEY)
        assert type(abstract).__name__ in repr(abstract) and texts(abstract._repr_html_())[0] == type(abstract).__name__


def test_tables_of_models():
    assert texts(PLANE._repr_html_()) == ["Gaussian", "mean", "[0, 1]", "covariance", "[[2, 0.5], [0.5, 1]]"]
    mixture = jg.Mixture.from_components(jg.Poisson.from_values([1.0, 9.0]))
    assert texts(mixture._repr_html_()) == ["Mixture", "weights", "[0.5, 0.5]", "components", "Poisson", "rate",
                                            "[1, 9]"]  # fmt: skip


def test_scores_and_status():
    score = jg.Score(-84.5, 0.2, jg.Kind.ESTIMATE, 100, -84.6, -84.4)
    text = "-84.5000 ± 0.2000 in [-84.6000, -84.4000] nats per event (estimate, 100 events)"
    assert repr(score) == str(score) == text
    assert "-84.6000 to -84.4000" in texts(score._repr_html_())
    assert repr([jg.Status.CONVERGED]) == "[CONVERGED: the monitored metric changed by less than the tolerance]"
    assert jg.Status.CONVERGED == 2 and jg.Status(2) is jg.Status.CONVERGED


def test_fits_show_how_they_ended():
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    one = jg.scan_fit(KEY, PLANE, x, jg.EM(), steps=3)
    assert repr(one).startswith("ScanFit(FINISHED after 3 steps, log_likelihood=") and "Gaussian(mean=[" in repr(one)
    seen = texts(one._repr_html_())
    assert seen[0] == "ScanFit" and "Gaussian" in seen
    many = jax.vmap(lambda key: jg.scan_fit(key, PLANE, x, jg.EM(), steps=3))(jax.random.split(KEY, 4))
    assert repr(many).startswith("ScanFit(4 FINISHED after 3 steps, log_likelihood=")
    fitted = jg.fit(KEY, PLANE, x, steps=1)
    assert "FINISHED: all steps were made, after 1 steps" in texts(fitted._repr_html_())
    said = []
    jax.jit(lambda x: said.append(repr(jg.scan_fit(KEY, PLANE, x, jg.EM(), steps=2))) or jnp.sum(x))(x)
    assert said[0].startswith("ScanFit(being traced; Gaussian(")
