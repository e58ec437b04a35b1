"""Autoencoders of quantised vectors: the bound against an enumeration, gradients by hand, codebooks in a fit."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.inputs import Batch
from jaxgen.core.pytree import combine, partition
from jaxgen.fit.plan import choose_algorithm
from jaxgen.ops import codebooks

KEY = jax.random.key(0)
K = 4
#: four kinds of events of six bits, of which each bit is wrong once in twenty
KINDS = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0], [1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 1]])
X = np.asarray(KINDS[np.arange(120) % 4] ^ (np.random.default_rng(0).random((120, 6)) < 0.05), np.float32)


def start(key=KEY, **options):
    return jg.VQVAE.init(key, X, K, grid=(2,), features=3, hidden=(16,), **options)


def of_codes(key, codes, size=2):
    return jg.Mixture.init(key, codes, size, functools.partial(jg.Categorical.init, size=K))


@pytest.fixture(scope="module")
def fitted():
    algorithm = jg.Gradient(jg.losses.own, optax.adam(5e-3))
    return jg.fit(KEY, start(decay=0.9), X, algorithm, steps=400, batch_size=40, progress=False)


def test_bound_is_one_term_of_the_likelihood():
    """The sum over all sixteen grids of codes, by numpy, of a prior that is a chain."""
    prior = jg.MarkovChain.from_values([0.4, 0.3, 0.2, 0.1], 0.1 + 0.6 * np.eye(K))
    model = start(prior=prior)
    every = np.array(list(itertools.product(range(K), repeat=2)))
    probs = np.clip(np.asarray(model.decode(every), np.float64), 1e-12, 1 - 1e-12)
    log_p = np.log(np.where(X[:, None] == 1, probs, 1 - probs)).sum(-1)
    move, first = 0.1 + 0.6 * np.eye(K), np.array([0.4, 0.3, 0.2, 0.1])
    terms = log_p + np.log(first[every[:, 0]] * move[every[:, 0], every[:, 1]])
    codes = np.asarray(model.encode(X))
    bound = np.asarray(model.elbo(KEY, X))
    np.testing.assert_allclose(bound, terms[np.arange(len(X)), codes @ [K, 1]], rtol=1e-5)
    assert (bound < np.logaddexp.reduce(terms, axis=1)).all()
    np.testing.assert_array_equal(model.elbo(jax.random.key(1), X), bound)
    assert jg.score(KEY, model, X).kind is jg.Kind.LOWER_BOUND
    # codes are those that are nearest
    vectors = np.asarray(jax.vmap(model._vectors)(jnp.asarray(X)))
    wanted = np.argmin(((vectors[:, :, None] - np.asarray(model.codebook)) ** 2).sum(-1), axis=-1)
    np.testing.assert_array_equal(codes, wanted)
    np.testing.assert_array_equal(model.quantize(X), np.asarray(model.codebook)[codes])


def test_gradients_pass_through_the_codes():
    """The encoder's gradient by hand: that of the decoder at the codes, and twice the way to them by the weight."""
    model, x = start(commitment=0.7), jnp.asarray(X[:5])
    trained, rest = partition(model)
    whole = jax.grad(lambda t: combine(t, rest).batch_loss(KEY, x, None, 0)[0], allow_int=True)(trained)
    encode = lambda params: jax.vmap(dataclasses.replace(model.encoder, params=params))(x)  # noqa: E731
    vectors, pull = jax.vjp(encode, model.encoder.params)
    chosen = model.quantize(x)
    from_decoder = jax.grad(lambda c: -jnp.sum(jax.vmap(model._log_likelihood)(x, c)))(chosen)
    (wanted,) = pull((from_decoder + 2 * 0.7 * (vectors - chosen)) / 5)
    for found, want in zip(jax.tree.leaves(whole.encoder.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves(whole.prior))


def test_batch_loss_moves_the_codebook_and_counts_no_event_without_weight():
    model, x = start(), jnp.asarray(X[:6])
    weight = jnp.array([1.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    value, metrics, new = model.batch_loss(KEY, x, weight, 0)
    broken = x.at[3:].set(jnp.inf)
    other = model.batch_loss(KEY, broken, weight, 0)
    assert float(other[0]) == pytest.approx(float(value), rel=1e-6)
    vectors = jax.vmap(model._vectors)(x)[:3].reshape(-1, 3)
    codes, heavy = codebooks.nearest(vectors, model.codebook), jnp.repeat(weight[:3], 2)
    counts = np.bincount(codes, heavy, K)
    sums = np.stack([np.bincount(codes, heavy * vectors[:, d], K) for d in range(3)], axis=1)
    old = np.asarray(model.counts)
    wanted = (0.99 * old[:, None] * model.codebook + 0.01 * sums) / (0.99 * old + 0.01 * counts)[:, None]
    np.testing.assert_allclose(new.codebook, wanted, rtol=1e-4, atol=1e-6)
    share = counts[counts > 0] / counts.sum()
    assert float(metrics["perplexity"]) == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-5)
    assert float(value) == pytest.approx(float(metrics["distortion"] + 0.25 * metrics["commitment"]), rel=1e-6)


def test_fit_reconstructs_and_uses_its_codes(fitted):
    assert choose_algorithm(start()) == jg.Gradient(jg.losses.own)
    model, history = fitted.model, fitted.history
    assert {"distortion", "commitment", "perplexity", "revived"} <= set(history)
    assert (np.asarray(model.codebook) != np.asarray(start().codebook)).any()
    wrong = np.mean((np.asarray(model.reconstruct(X)) > 0.5) != X)
    # a bit is wrong in twenty, which sixteen grids of codes need not tell
    assert wrong < 0.06
    # the four kinds of events, with two codes each at least
    assert history["perplexity"][-1] > 2
    codes = model.encode(X)
    np.testing.assert_allclose(model.decode(codes), model.reconstruct(X), rtol=1e-6)
    assert jnp.isnan(model.decode(jnp.array([[0, K], [-1, 0]]))).all()


def test_priors_fitted_behind_raise_the_bound(tmp_path):
    model = start()
    uniform = float(model.elbo(KEY, X).mean())
    mixture = jg.fit_prior(KEY, model, X, functools.partial(of_codes, size=4), restarts=4, steps=200)
    emission = functools.partial(jg.Categorical.init, size=K)
    chain = jg.fit_prior(KEY, model, X, lambda key, codes: jg.HMM.init(key, codes, 4, emission), steps=50)
    single = jg.fit_prior(KEY, model, X, functools.partial(jg.Categorical.init, size=K))
    codes = np.asarray(model.encode(X))
    counts = np.stack([np.bincount(column, minlength=K) for column in codes.T])
    share = counts / len(X)
    entropy = -np.sum(np.where(counts > 0, share * np.log(np.where(counts > 0, share, 1)), 0))
    gain = 2 * np.log(K) - entropy
    # independent codes: the maximum likelihood is minus their entropies
    assert float(single.elbo(KEY, X).mean()) == pytest.approx(uniform + gain, abs=1e-3)
    for better in (mixture, chain):
        # what codes say of each other
        assert float(better.elbo(KEY, X).mean()) > uniform + gain + 0.02
        draws = better.sample(KEY, (50,))
        assert draws.shape == (50, 6) and set(np.unique(draws)) <= {0.0, 1.0}
    jg.save(chain, tmp_path / "vq")
    np.testing.assert_array_equal(jg.load(tmp_path / "vq").elbo(KEY, X), chain.elbo(KEY, X))


def test_dead_codes_are_revived_in_a_fit():
    far = start()
    far = dataclasses.replace(far, codebook=far.codebook.at[2:].set(1e3), dead=0.5, decay=0.9)
    ended = jg.fit(KEY, far, X, steps=40, batch_size=40, progress=False)
    assert ended.history["revived"].sum() >= 2 and np.abs(ended.model.codebook).max() < 100


def test_images_have_a_grid_of_codes():
    x = np.zeros((20, 8, 8), np.float32)
    model, algorithm = jg.recipes.vqvae(KEY, x, 3, features=2, width=4)
    assert model.grid == (4, 4) and model.codebook.shape == (3, 2)
    loss = jax.jit(lambda model, x: algorithm.loss(KEY, model, Batch(x), 0).value)(model, x)
    # blank images of 64 pixels by a decoder that knows nothing yet
    assert 0 < float(loss) < 64 * 3


def test_units_shift_the_bound_by_their_volume():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    a, b = (jg.VQVAE.init(KEY, data, K, grid=(2,), hidden=(8,), likelihood=jg.likelihoods.GaussianOfScale(0.5))
            for data in (x, 1000 * x + 5))  # fmt: skip
    difference = a.elbo(KEY, x) - b.elbo(KEY, 1000 * x + 5)
    # standardised events agree to five digits
    np.testing.assert_allclose(difference, np.full(40, 3 * np.log(1000)), atol=5e-3)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jg.VQVAE.init(KEY, X, 1), jg.ModelError, "a codebook needs codes"),
        (lambda: start(decay=1.0), jg.ModelError, "decay above 0"),
        (lambda: jg.VQVAE.init(KEY, X * 3, K), jg.DataError, "outside the support"),
        (lambda: start(prior=jg.StandardNormal((3,))), jg.ModelError, "an event_shape of 2 numbers"),
        (lambda: start(decoder=jg.nn.MLP((5,), in_shape=(2, 3))), jg.ShapeError, "decoder's output"),
        (lambda: start().check_data(X + 0.5), jg.DataError, "outside the support"),
        (lambda: jg.fit_prior(KEY, jg.StandardNormal((2,)), X, of_codes), jg.FitError, "no prior to fit"),
        (lambda: jg.fit_prior(KEY, start(), X, jg.StandardNormal((3,))), jg.ModelError, "of 2 numbers"),
        (lambda: jg.fit(KEY, start(), {"x": X, "label": np.zeros(120, int)}, steps=1), jg.JaxgenError, "label"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
