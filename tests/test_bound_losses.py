"""Losses made of the terms of a bound, on a model whose likelihood and posterior are closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core.inputs import Batch
from jaxgen.losses import cyclical, elbo, iwae
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.ops import likelihoods

X = np.array([1.0, 1.5], np.float32)
#: log p(x) of x = [1, 2] z + [.5, -.5] + N(0, .25 I) at X, and its posterior N(6/7, 1/21)
EXACT = -2.759558209865
MANY = Batch(jnp.repeat(jnp.asarray(X)[None], 4000, axis=0))
KEY = jax.random.key(0)


def linear(kernel, bias, module):
    return Net({"Dense_0": {"kernel": jnp.asarray(kernel, float), "bias": jnp.asarray(bias, float)}}, module)


def line(mean, variance):
    """The model, with an encoder that says N(mean, variance) whatever it sees."""
    raw = 6 * np.arctanh(0.5 * np.log(variance) / 6)
    encoder = linear(np.zeros((2, 2)), [mean, raw], MLP((2,), in_shape=(2,), out_shape=(2, 1)))
    decoder = linear([[1.0, 2.0]], [0.5, -0.5], MLP((2,), out_shape=(1, 2)))
    return jg.VAE(jg.StandardNormal((1,)), encoder, decoder, likelihoods.GaussianOfScale(0.5), (2,))


def value(loss, model, key=KEY, step=0):
    return loss(key, model, MANY, step).value


@pytest.mark.parametrize(
    ("q", "expected"), [((6 / 7, 1 / 21), EXACT), ((0.8, 0.1), -2.9728752518), ((0.0, 1.0), -18.9515827053)]
)
def test_bound_of_a_line(q, expected):
    model = line(*q)
    draws = np.asarray(model.elbo(KEY, MANY.x), np.float64)
    error = 4 * draws.std() / np.sqrt(len(draws))
    assert draws.mean() == pytest.approx(expected, abs=error + 1e-5)  # float32 of numbers of about 20
    assert -float(value(elbo(), model)) == pytest.approx(expected, abs=error + 1e-5)
    metrics = elbo()(KEY, model, MANY, 0).metrics
    rate = 0.5 * (q[0] ** 2 + q[1] - 1 - np.log(q[1]))
    assert float(metrics["rate"]) == pytest.approx(rate, rel=1e-5)
    assert float(metrics["elbo"]) == pytest.approx(-float(value(elbo(), model)), abs=1e-4)
    if expected == EXACT:
        # the path gradient of an exact posterior is zero for every draw: p(x, z) / q(z | x) is p(x) whatever z is
        slope = jax.grad(lambda m: value(elbo(path_gradient=True, samples=2), m), allow_int=True)(model)
        np.testing.assert_allclose(slope.encoder.params["Dense_0"]["bias"], 0.0, atol=2e-6)
        assert -float(value(elbo(path_gradient=True), model)) == pytest.approx(EXACT, abs=1e-5)


@pytest.mark.parametrize(("samples", "expected"), [(5, -2.7815), (50, -2.7617)])
def test_weighted_bound_of_a_line(samples, expected):
    model = line(0.8, 0.1)
    draws = np.asarray(model.iwae(KEY, MANY.x, samples=samples), np.float64)
    error = 4 * draws.std() / np.sqrt(len(draws)) + 1e-4  # the expected number has five digits
    assert draws.mean() == pytest.approx(expected, abs=error)
    assert -float(value(iwae(samples), model)) == pytest.approx(expected, abs=error)
    # no bound is above what it bounds, but for chance
    assert draws.mean() < EXACT + 3 * draws.std() / np.sqrt(len(draws))


def test_weight_floor_and_target_of_the_rate():
    model = line(0.8, 0.1)
    rate = 0.5 * (0.64 + 0.1 - 1 - np.log(0.1))
    distortion = float(elbo()(KEY, model, MANY, 0).metrics["distortion"])
    for loss, cost in (
        (elbo(beta=4.0), 4 * rate),
        (elbo(free_bits=0.1), rate),
        (elbo(free_bits=2.0), 2.0),
        (elbo(beta=3.0, capacity=2.5), 3 * (2.5 - rate)),
        (elbo(beta=lambda step: step / 10), 0.5 * rate),
    ):
        assert float(value(loss, model, step=5)) == pytest.approx(distortion + cost, rel=1e-5)
    # no gradient below the floor: the encoder is free to say what it likes
    slope = jax.grad(lambda m: value(elbo(free_bits=2.0), m) - value(elbo(beta=0.0), m), allow_int=True)(model)
    np.testing.assert_allclose(slope.encoder.params["Dense_0"]["bias"], 0.0, atol=1e-4)


def test_rate_by_coordinate():
    """Two coordinates with divergences of .1 and .6: a floor of .25 costs .85."""
    mean = np.sqrt(2 * np.array([0.1, 0.6]))
    encoder = linear(np.zeros((2, 4)), [*mean, 0.0, 0.0], MLP((4,), in_shape=(2,), out_shape=(2, 2)))
    decoder = linear(np.zeros((2, 2)), [0.5, -0.5], MLP((2,), out_shape=(1, 2)))
    model = jg.VAE(jg.StandardNormal((2,)), encoder, decoder, likelihoods.GaussianOfScale(0.5), (2,))
    found = elbo(free_bits=0.25)(KEY, model, MANY, 0)
    assert float(found.value - found.metrics["distortion"]) == pytest.approx(0.85, abs=1e-4)
    assert float(found.metrics["rate"]) == pytest.approx(0.7, abs=1e-5)


def test_tempered_weights_of_several_draws():
    """A weight of the rate changes what several draws are weighed by, and is not forgotten."""
    model, keys = line(0.8, 0.1), jax.random.split(KEY, 7)
    one = Batch(jnp.asarray(X)[None])
    for beta in (0.0, 0.5, 2.0):
        event = jax.random.split(KEY, 1)[0]
        keys = jax.random.split(event, (1, 7))[0]
        z = np.asarray([0.8 + np.sqrt(0.1) * np.asarray(jax.random.normal(k, (1,))) for k in keys], np.float64)
        norm = scipy.stats.norm
        likelihood = norm.logpdf(X, z * [1.0, 2.0] + [0.5, -0.5], 0.5).sum(1)
        ratio = norm.logpdf(z).sum(1) - norm.logpdf(z, 0.8, np.sqrt(0.1)).sum(1)
        expected = np.log(np.mean(np.exp(likelihood + beta * ratio)))
        assert -float(iwae(7, beta=beta)(KEY, model, one, 0).value) == pytest.approx(expected, abs=1e-4)


def slopes(loss, model, count=40):
    """Gradients of the bias of encoder and decoder, for keys of their own, `[count, 2]` each."""
    batch = Batch(MANY.x[:100])
    of = jax.jit(lambda key: jax.grad(lambda m: loss(key, m, batch, 0).value, allow_int=True)(model))
    found = jax.lax.map(of, jax.random.split(jax.random.key(1), count))
    return tuple(np.asarray(net.params["Dense_0"]["bias"], np.float64) for net in (found.encoder, found.decoder))


def alike(a, b):
    """Whether two estimates of a gradient have one mean, within four standard errors."""
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    return (np.abs(a.mean(0) - b.mean(0)) < 4 * error + 1e-5).all()


@pytest.mark.parametrize("options", [{}, {"beta": 0.5}, {"beta": 2.0, "share": 0.3}, {"groups": 3}])
def test_doubly_reparametrised_gradient(options):
    """It has the mean of the plain one, and less noise where the encoder is concerned."""
    model = line(0.7, 0.2)
    plain, doubly = (slopes(iwae(8, doubly=doubly, **options), model) for doubly in (False, True))
    assert alike(plain[0], doubly[0])
    np.testing.assert_allclose(plain[1], doubly[1], rtol=1e-3, atol=1e-4)  # the model's own is the same
    if not options:
        assert doubly[0].var(0).sum() < 0.5 * plain[0].var(0).sum()


def test_partial_gradient():
    """The model follows the bound of all draws, the encoder that of groups."""
    model = line(0.7, 0.2)
    partial, groups, whole = (
        slopes(loss, model) for loss in (iwae(4, groups=3, partial=True), iwae(4, groups=3), iwae(12))
    )
    np.testing.assert_allclose(partial[0], groups[0], rtol=1e-4, atol=1e-5)
    assert alike(partial[1], whole[1])
    assert not alike(partial[1], groups[1])
    assert -float(value(iwae(4, groups=3, partial=True), model)) == pytest.approx(
        -float(value(iwae(12), model)), abs=0.01
    )


def test_share_of_the_plain_bound():
    model = line(0.8, 0.1)
    half, plain, tight = (float(value(iwae(5, share=s), model)) for s in (0.5, 1.0, 0.0))
    assert half == pytest.approx(0.5 * (plain + tight), rel=1e-5)


def test_cycles_in_a_fit():
    x = jax.random.bernoulli(KEY, 0.3, (60, 6))
    vae = jg.VAE.init(KEY, x, jg.StandardNormal((2,)), hidden=(8,))
    algorithm = jg.Gradient(elbo(beta=cyclical(40, 2, 0.5)), optax.adam(1e-3))
    beta = jg.fit(KEY, vae, x, algorithm, steps=50, batch_size=20).history["beta"]
    np.testing.assert_allclose(beta[[0, 5, 10, 19, 20, 30, 45]], [0.0, 0.5, 1.0, 1.0, 0.0, 1.0, 1.0], atol=1e-6)


def test_hyperparameters_by_vmap():
    """Weights of the rate and seeds in one program."""
    x = jax.random.bernoulli(KEY, 0.3, (60, 6)).astype(jnp.float32)

    def final(key, beta):
        vae = jg.VAE.init(key, x, jg.StandardNormal((2,)), hidden=(8,))
        algorithm = jg.Gradient(optimizer=optax.adam(1e-2), loss=weighted(beta))
        return jg.scan_fit(key, vae, x, algorithm, steps=40).history["rate"][-1]

    def weighted(beta):
        return lambda key, model, batch, step: elbo(beta=lambda step: beta)(key, model, batch, step)

    rates = jax.vmap(jax.vmap(final, (0, None)), (None, 0))(jax.random.split(KEY, 2), jnp.array([0.1, 4.0]))
    assert rates.shape == (2, 2)
    assert (rates[0] > rates[1]).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: elbo(samples=0), "draws"),
        (lambda: elbo(beta=-1.0), "weight"),
        (lambda: elbo(free_bits=np.nan), "weight"),
        (lambda: iwae(0), "draws"),
        (lambda: iwae(5, groups=0), "draws"),
        (lambda: iwae(5, share=2.0), "share"),
        (lambda: iwae(5, partial=True, doubly=True), "partial"),
        (lambda: cyclical(10, 0), "cycles"),
        (lambda: elbo()(KEY, jg.StandardNormal((2,)), MANY), "inference"),
        (lambda: elbo()(KEY, line(0.8, 0.1), MANY._replace(label=jnp.zeros(4000, int))), "label"),
    ],
)
def test_errors(call, match):
    with pytest.raises(jg.FitError, match=match):
        call()
