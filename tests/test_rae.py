"""Regularised autoencoders: penalties against Jacobians, and a linear one against principal components."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.fit.plan import choose_algorithm
from jaxgen.nn.mlp import MLP

KEY = jax.random.key(0)
L, D = 2, 5
NOISE = jg.likelihoods.GaussianOfScale(0.3)
#: two directions of deviations 1 and .6, and noise of .1
RNG = np.random.default_rng(0)
WAYS = np.linalg.qr(RNG.normal(size=(D, L)))[0]
X = (RNG.normal(size=(400, L)) * [1.0, 0.6] @ WAYS.T + 0.1 * RNG.normal(size=(400, D))).astype(np.float32)


def start(**options):
    return jg.RAE.init(KEY, X, L, **({"hidden": (8,), "likelihood": NOISE} | options))


def test_penalties_are_what_they_say():
    """The gradient penalty in the mean over directions is the squared norm of the Jacobian, by forward derivatives."""
    plain = start(code_penalty=0.0, gradient_penalty=0.0)
    many, x = np.repeat(X[:1], 20_000, axis=0), jnp.asarray(X[0])
    base, z = float(plain.loss(KEY, X[0])), plain.encode(X[0])
    distance = (x - plain.reconstruct(X[0])) / plain.scaling[1]
    normaliser = D * np.log(0.3 * np.sqrt(2 * np.pi)) + np.sum(np.log(plain.scaling[1]))
    assert base == pytest.approx(float(np.sum(distance**2) / (2 * 0.3**2) + normaliser), rel=1e-4)
    code = dataclasses.replace(plain, code_penalty=2.0)
    assert float(code.loss(KEY, X[0])) - base == pytest.approx(float(jnp.sum(z**2)), rel=1e-4)
    decay = dataclasses.replace(plain, weight_decay=2.0)
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(plain.decoder.params))
    assert float(decay.loss(KEY, X[0])) - base == pytest.approx(squares, rel=1e-4)
    slopes = jax.jacfwd(plain.decode)(z) / plain.scaling[1][:, None]
    penalised = dataclasses.replace(plain, gradient_penalty=3.0)
    draws = np.asarray(penalised.loss(KEY, many)) - base
    error = draws.std() / np.sqrt(len(draws))
    # four standard errors
    assert abs(draws.mean() - 3 * float(jnp.sum(slopes**2))) < 4 * error


def test_linear_one_finds_the_principal_plane():
    linear = {"encoder": MLP((L,), in_shape=(D,)), "decoder": MLP((D,), out_shape=(1, D))}
    model = start(code_penalty=1e-4, gradient_penalty=0.0, standardize=False, **linear)
    assert choose_algorithm(model) == jg.Gradient(jg.losses.own)
    algorithm = jg.Gradient(jg.losses.own, optax.adam(3e-2))
    model = jg.fit(KEY, model, X, algorithm, steps=1500, progress=False).model
    missed = np.mean(np.sum((np.asarray(model.reconstruct(X)) - X) ** 2, axis=1))
    least = np.linalg.eigvalsh(np.cov(X.T, bias=True))[:-L].sum()
    # no plane is nearer, and the fit ends within 2 % of it
    assert least * 0.999 < missed < 1.02 * least
    behind = jg.fit_prior(KEY, model, X, jg.Gaussian.init)
    np.testing.assert_allclose(behind.prior.mean, model.encode(X).mean(0), atol=1e-5)
    draws = np.asarray(behind.sample(jax.random.key(1), (20_000,)))
    # a Gaussian of the plane: the covariance of reconstructions, to four standard errors of 20,000 draws
    np.testing.assert_allclose(np.cov(draws.T), np.cov(np.asarray(model.reconstruct(X)).T, bias=True), atol=0.04)
    np.testing.assert_allclose(behind.decode(behind.encode(X)), behind.reconstruct(X), rtol=1e-5)


def test_recipe_is_two_stages(tmp_path):
    x = (X > 0).astype(np.float32)
    model, algorithm = jg.recipes.rae(KEY, x, L, hidden=(8,), weight_decay=1e-3, steps=100)
    fitted = jg.fit(KEY, model, x, algorithm, progress=False)
    assert fitted.history["loss"][-10:].mean() < fitted.history["loss"][:10].mean() - 0.5
    mixture = lambda key, z: jg.Mixture.init(key, z, 3, jg.Gaussian.init)  # noqa: E731
    behind = jg.fit_prior(KEY, fitted.model, x, mixture, restarts=2)
    draws = behind.sample(KEY, (30,))
    assert draws.shape == (30, D) and (draws > 0).all() and (draws < 1).all()
    jg.save(behind, tmp_path / "rae")
    np.testing.assert_array_equal(jg.load(tmp_path / "rae").sample(KEY, (30,)), draws)
    assert not isinstance(behind, jg.Density)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jg.RAE.init(KEY, X, 0), jg.ModelError, "needs latent numbers"),
        (lambda: start(code_penalty=-1.0), jg.ModelError, "weights from 0"),
        (lambda: start(likelihood=jg.likelihoods.bernoulli), jg.DataError, "outside the support"),
        (lambda: start(prior=jg.StandardNormal((3,))), jg.ModelError, "an event_shape of 2 numbers"),
        (lambda: start(encoder=MLP((3,))), jg.ShapeError, "encoder's output"),
        (lambda: jg.score(KEY, start(), X), jg.JaxgenError, "score"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
