"""The VAE against probabilistic PCA, whose likelihood and posterior are closed forms, and its likelihoods against
distrax.
"""

import dataclasses

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net
from jaxgen.nn.steps import StepMLP
from jaxgen.ops import likelihoods
from jaxgen.ops.scaling import mean_and_scale, middle_and_reach

D, L, SCALE = 5, 2, 0.6


@pytest.fixture(scope="module")
def pca():
    """A linear VAE and its exact density.

    x = W z + b + SCALE e with orthogonal columns in W, so that the true posterior has independent coordinates and a
    linear encoder can be exactly right.
    """
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(rng.normal(size=(D, L)))[0] * [1.5, 0.8]
    offset = rng.normal(size=D)
    variance = 1 / (1 + (columns**2).sum(0) / SCALE**2)
    to_mean = variance[:, None] * columns.T / SCALE**2
    raw = 6 * np.arctanh(0.5 * np.log(variance) / 6)
    kernel = np.concatenate([to_mean.T, np.zeros((D, L))], axis=1)
    bias = np.concatenate([-to_mean @ offset, raw])
    encoder = linear(kernel, bias, MLP((2 * L,), in_shape=(D,), out_shape=(2, L)))
    decoder = linear(columns.T, offset, MLP((D,), out_shape=(1, D)))
    vae = jg.VAE(jg.StandardNormal((L,)), encoder, decoder, likelihoods.GaussianOfScale(SCALE), (D,))
    exact = scipy.stats.multivariate_normal(offset, columns @ columns.T + SCALE**2 * np.eye(D))
    return vae, exact, exact.rvs(40, random_state=1).astype(np.float32)


def linear(kernel, bias, module):
    arrays = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    return Net({"Dense_0": arrays}, module)


def with_encoder_off(vae):
    """The same density with a worse encoder: means half as long, scales as of the prior."""
    kernel, bias = vae.encoder.params["Dense_0"]["kernel"], vae.encoder.params["Dense_0"]["bias"]
    encoder = linear(kernel * 0.5, bias.at[L:].set(0.0), vae.encoder.module)
    return jg.VAE(vae.prior, encoder, vae.decoder, vae.likelihood, vae.event_shape)


def test_right_encoder_makes_every_draw_exact(pca):
    vae, exact, x = pca
    # p(x, z) / q(z | x) is p(x) whatever z is: nothing but rounding of numbers up to 20 is left
    for samples in (1, 7):
        np.testing.assert_allclose(vae.iwae(jax.random.key(0), x, samples=samples), exact.logpdf(x), atol=1e-4)


def test_elbo_is_unbiased(pca):
    """16,000 events in one call: from 6000 on, jaxlib 0.12.0 errs where slices of a network's output are summed."""
    vae, exact, x = pca
    draws = np.asarray(vae.elbo(jax.random.key(0), np.repeat(x[:4], 4000, axis=0))).reshape(4, -1)
    error = draws.std(axis=1) / np.sqrt(draws.shape[1])
    # four standard errors, four events
    assert (np.abs(draws.mean(axis=1) - exact.logpdf(x[:4])) < 4 * error).all()


def test_bounds_are_ordered(pca):
    vae, exact, x = pca
    vae, key, many = with_encoder_off(vae), jax.random.key(2), np.repeat(x, 50, axis=0)
    bounds = [vae.elbo(key, many).mean(), *(vae.iwae(key, many, samples=s).mean() for s in (5, 60))]
    bounds.append(exact.logpdf(x).mean())
    # the gaps are .1 nats and more, the standard errors of the means below .03
    assert (np.diff(bounds) > 0).all(), bounds
    assert bounds[-1] - bounds[-2] < 0.2


def test_iwae_by_hand(pca):
    """60 draws are two chunks of 25 and a rest: the chunks leave no trace."""
    vae, x, key = with_encoder_off(pca[0]), jnp.asarray(pca[2][0]), jax.random.key(3)
    mean, raw = np.asarray(vae.infer(x), np.float64)
    scale = np.exp(6 * np.tanh(raw / 6))
    noise = np.stack([np.asarray(jax.random.normal(k, (L,))) for k in jax.random.split(key, 60)]).astype(np.float64)
    z = mean + scale * noise
    x_mean = np.asarray(vae.decode(z), np.float64)
    norm = scipy.stats.norm
    log_weight = norm.logpdf(x, x_mean, SCALE).sum(1) + norm.logpdf(z).sum(1) - norm.logpdf(z, mean, scale).sum(1)
    expected = scipy.special.logsumexp(log_weight) - np.log(60)
    # float32 decoding of 60 draws
    assert float(vae.iwae(key, x, samples=60)) == pytest.approx(expected, abs=1e-4)


def test_closed_kl_equals_draws(pca):
    vae, _, x = pca
    assert not hasattr(jg.DiagonalGaussian, "kl_from_normal")
    drawn = jg.VAE(jg.DiagonalGaussian.from_values(np.zeros(L), np.ones(L)), *(
        getattr(with_encoder_off(vae), name) for name in ("encoder", "decoder", "likelihood", "event_shape")
    ))  # fmt: skip
    many = np.repeat(x[:1], 20_000, axis=0)
    closed, draws = (np.asarray(m.elbo(jax.random.key(4), many)) for m in (with_encoder_off(vae), drawn))
    difference = closed - draws  # the same noise in both
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(many))


def test_kl_equals_distrax():
    mean, log_scale = jnp.array([0.5, -2.0, 0.0]), jnp.array([0.1, -3.0, 0.0])
    expected = distrax.Normal(mean, jnp.exp(log_scale)).kl_divergence(distrax.Normal(0.0, 1.0)).sum()
    own = jg.StandardNormal((3,)).kl_from_normal(mean, log_scale).sum()
    assert float(own) == pytest.approx(float(expected), rel=1e-6)
    # rounding near zero divergence keeps its digits, since expm1 is exact there
    tiny = jg.StandardNormal((1,)).kl_from_normal(jnp.zeros(1), jnp.full(1, 1e-3)).sum()
    assert float(tiny) == pytest.approx(1e-6, rel=2e-2)


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        (likelihoods.bernoulli, jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])),
        (likelihoods.gaussian, jnp.array([[0.3, -1.0, 2.0], [0.0, 5.0, -0.5]])),
        (likelihoods.GaussianOfScale(0.3), jnp.array([[0.3, -1.0, 2.0], [0.0, 5.0, -0.5]])),
    ],
)
def test_likelihood_equals_distrax(likelihood, x):
    count = likelihoods.parameter_count(likelihood)
    own = likelihood(*jax.random.normal(jax.random.key(0), (count, 2, 3)) * 2)
    peer = own.distribution()
    assert peer.event_shape == (2, 3)
    np.testing.assert_allclose(own.log_prob(x), peer.log_prob(x), rtol=1e-5)
    np.testing.assert_allclose(own.mean(), peer.mean(), rtol=1e-5)
    draws = jax.vmap(lambda key: own.sample(seed=key))(jax.random.split(jax.random.key(1), 4000))
    # five standard errors of 4000 draws
    assert (np.abs(draws.mean(0) - own.mean()) < 5 * draws.std(0) / np.sqrt(4000) + 1e-6).all()


def test_scales_stay_within_bounds():
    scale = jnp.exp(likelihoods.gaussian(jnp.zeros(2), jnp.array([-1e30, 1e30])).log_scale)
    np.testing.assert_allclose(scale, np.exp([-6.0, 6.0]), rtol=1e-6)
    slope = jax.grad(lambda raw: likelihoods.gaussian(jnp.zeros(1), raw).log_prob(jnp.ones(1)))(jnp.full(1, -1e30))
    assert jnp.isfinite(slope).all()


def laplace(mean, raw):
    return distrax.Laplace(mean, jnp.exp(likelihoods.bounded(raw)))


def test_any_distrax_distribution_is_a_likelihood():
    x = jax.random.normal(jax.random.key(0), (30, 4))
    vae = jg.VAE.init(jax.random.key(1), x, jg.StandardNormal((2,)), hidden=(8,), likelihood=laplace, standardize=True)
    key = jax.random.key(2)
    np.testing.assert_allclose(vae.scaling[0], x.mean(0), atol=1e-6)
    assert vae.sample(key, (3,)).shape == (3, 4)
    gradient = jax.grad(lambda m: m.elbo(key, x).mean(), allow_int=True)(vae)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient.decoder))


def test_units_shift_the_bound_by_their_volume():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    a, b = (
        jg.VAE.init(jax.random.key(0), data, jg.StandardNormal((2,)), hidden=(8,), likelihood=likelihoods.gaussian)
        for data in (x, 1000 * x + 5)
    )
    key = jax.random.key(1)
    difference = a.elbo(key, x) - b.elbo(key, 1000 * x + 5)
    # the standardised events agree to five digits, since 1000 x + 5 has seven
    np.testing.assert_allclose(difference, np.full(50, 3 * np.log(1000)), atol=2e-3)
    mean = b.encode(1000 * x + 5)
    np.testing.assert_allclose(b.decode(mean), 1000 * a.decode(mean) + 5, rtol=1e-3, atol=0.1)


def test_units_of_vectors_and_images():
    x = np.array([[[0.0, 4.0], [0.0, 8.0]], [[0.0, 4.0], [0.0, 8.0]]])
    center, scale = mean_and_scale(x)
    assert center.shape == scale.shape == ()
    assert [float(v) for v in middle_and_reach(x)] == [4.0, 4.0]
    center, scale = mean_and_scale(np.float32([[1e6, 1.0], [1e6, 3.0]]))
    np.testing.assert_array_equal(center, [1e6, 2.0])
    np.testing.assert_array_equal(scale, [1.0, 1.0])


def test_context_changes_the_density():
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (20, 2, 3)).astype(jnp.float32)
    context = jax.random.normal(jax.random.key(1), (20, 4))
    vae = jg.VAE.init(jax.random.key(2), x, jg.StandardNormal((2,)), hidden=(8,), context_shape=(4,))
    key, z = jax.random.key(3), jnp.zeros((20, 2))
    assert vae.elbo(key, x, context=context).shape == (20,)
    assert vae.sample(key, (5,), context=context[0]).shape == (5, 2, 3)
    assert vae.encode(x, context=context).shape == (20, 2)
    one, other = (vae.decode(z, context=c) for c in (context, context[::-1]))
    assert one.shape == (20, 2, 3)
    assert not np.allclose(one, other)
    with pytest.raises(jg.ShapeError, match="context"):
        vae.elbo(key, x)


def test_fit_raises_the_bound(pca):
    _, exact, _ = pca
    x = exact.rvs(500, random_state=2).astype(np.float32)
    start = jg.VAE.init(
        jax.random.key(0), x, jg.StandardNormal((L,)), hidden=(16,), likelihood=likelihoods.gaussian
    )
    before = jg.score(jax.random.key(1), start, x, samples=20).mean
    fitted = jg.fit(jax.random.key(2), start, x, jg.Gradient(jg.losses.negative_elbo), steps=600, batch_size=100)
    after = jg.score(jax.random.key(1), fitted.model, x, samples=20)
    assert after.kind is jg.Kind.LOWER_BOUND
    assert after.mean > before + 0.5
    # below the entropy's negative by sampling noise at most: 500 events of standard deviation 1.6, and overfitting
    assert after.mean < exact.logpdf(x).mean() + 0.3
    np.testing.assert_array_equal(fitted.model.scaling[0], start.scaling[0])


BITS = np.eye(4, dtype=np.float32)


def init(x=BITS, prior=None, **options):
    prior = jg.StandardNormal((2,)) if prior is None else prior
    return jg.VAE.init(jax.random.key(0), x, prior, hidden=(4,), **options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: init(BITS * 255), jg.DataError, r"np.divide\(x, 255"),
        (lambda: init(BITS - 0.5), jg.DataError, "outside the support"),
        (lambda: init(BITS * np.nan), jg.DataError, "finite"),
        (lambda: init(np.zeros((0, 4))), jg.DataError, "empty"),
        (lambda: init(prior=jg.StandardNormal(())), jg.ModelError, "density of latent vectors"),
        (lambda: init(prior=MLP((2,))), jg.ModelError, "density of latent vectors"),
        (lambda: init(likelihood="bernoulli"), jg.ModelError, "no likelihood"),
        (lambda: init(standardize=True), jg.ModelError, "leave the support"),
        (lambda: init().check_data(BITS * 2), jg.DataError, "outside the support"),
        (lambda: init().elbo(jax.random.key(0), np.zeros((3, 5))), jg.ShapeError, "one event"),
        (lambda: init().decode(np.zeros((3, 5))), jg.ShapeError, "VAE.decode"),
        (lambda: init().iwae(jax.random.key(0), BITS, samples=0), jg.FitError, "draws"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_gaussian_of_one_learned_scale(pca):
    """The scale that fits best is the one that the data were drawn with."""
    _, exact, _ = pca
    x = exact.rvs(2000, random_state=3).astype(np.float32)
    one = jg.likelihoods.gaussian_of_one_scale
    start = jg.VAE.init(jax.random.key(0), x, jg.StandardNormal((L,)), hidden=(16,), likelihood=one, standardize=False)
    algorithm = jg.Gradient(jg.losses.negative_elbo, optax.adam(5e-3))
    fitted = jg.fit(jax.random.key(1), start, x, algorithm, steps=800, batch_size=200).model
    assert float(jnp.exp(likelihoods.bounded(fitted.shared["raw"]))) == pytest.approx(SCALE, rel=0.1)


def test_what_was_not_seen_is_summed_out(pca):
    """With an encoder that is right for what it sees, the bound is the marginal likelihood; of nothing it is zero."""
    vae, exact, x = pca
    vae = dataclasses.replace(with_encoder_off(vae), missing=True)
    holes = np.where(np.arange(D) % 2, np.nan, x[:6])
    seen = np.flatnonzero(np.arange(D) % 2 == 0)
    marginal = scipy.stats.multivariate_normal(exact.mean[seen], exact.cov[np.ix_(seen, seen)])
    found = vae.iwae(jax.random.key(0), holes, samples=20_000)
    # standard deviations of weights of about 3, from an encoder that was made wrong
    np.testing.assert_allclose(found, marginal.logpdf(x[:6][:, seen]), atol=0.1)
    nothing = vae.iwae(jax.random.key(1), np.full((1, D), np.nan), samples=20_000)
    np.testing.assert_allclose(nothing, 0.0, atol=0.1)
    slope = jax.grad(lambda m: m.elbo(jax.random.key(2), holes).mean(), allow_int=True)(vae)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((slope.encoder, slope.decoder)))


def test_what_was_not_seen_is_filled_in(pca):
    """The conditional mean and spread of a joint normal; what was seen stays as it is."""
    vae, exact, x = pca
    vae = dataclasses.replace(with_encoder_off(vae), missing=True)
    hidden, seen = np.array([1, 3]), np.array([0, 2, 4])
    holes = x[:3].copy()
    holes[:, hidden] = np.nan
    gain = exact.cov[np.ix_(hidden, seen)] @ np.linalg.inv(exact.cov[np.ix_(seen, seen)])
    mean = exact.mean[hidden] + (x[:3][:, seen] - exact.mean[seen]) @ gain.T
    spread = np.sqrt(np.diag(exact.cov[np.ix_(hidden, hidden)] - gain @ exact.cov[np.ix_(seen, hidden)]))
    filled = np.asarray(vae.impute(jax.random.key(0), holes, samples=20_000))
    np.testing.assert_array_equal(filled[:, seen], x[:3][:, seen])
    np.testing.assert_allclose(filled[:, hidden], mean, atol=0.05)
    draws = np.asarray(vae.complete(jax.random.key(1), np.repeat(holes[:1], 3000, axis=0), samples=200))[:, hidden]
    # three standard errors of 3000 draws, and the bias of 200 weights
    np.testing.assert_allclose(draws.mean(0), mean[0], atol=0.1)
    np.testing.assert_allclose(draws.std(0), spread, rtol=0.08)
    with pytest.raises(jg.ModelError, match="missing=True"):
        pca[0].impute(jax.random.key(0), x[:1])


def test_sequences_with_a_chain_for_a_prior():
    """Numbers that a hidden chain draws, seen with noise: a chain again, whose states are as wide as both together."""
    means, chain = np.array([[-1.0], [0.0], [2.0]]), np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
    hmm = lambda scale: jg.HMM.from_values([0.5, 0.3, 0.2], chain, jg.DiagonalGaussian.from_values(  # noqa: E731
        means, np.full((3, 1), scale)))  # fmt: skip
    rows = {"kernel": jnp.array([[0.8, 0.0]]), "bias": jnp.array([0.0, 0.0])}
    encoder = Net({"Dense_0": rows}, StepMLP((2,), outputs=2, reach=0))
    decoder = Net({"Dense_0": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}, StepMLP((1,), reach=0))
    vae = jg.VAE(hmm(0.7), encoder, decoder, likelihoods.GaussianOfScale(SCALE), (None, 1))
    exact = hmm((0.7**2 + SCALE**2) ** 0.5)
    for length in (3,):
        x = exact.sample(jax.random.key(0), (5,), length=length)
        # weights of a standard deviation of about 1 at most
        np.testing.assert_allclose(vae.iwae(jax.random.key(1), x, samples=1000), exact.log_prob(x), atol=0.15)
    assert vae.sample(jax.random.key(2), (3,), length=7).shape == vae.reconstruct(jnp.zeros((3, 7, 1))).shape
    data = np.random.default_rng(0).normal(size=(8, 5, 2)) * [1.0, 1e6]
    start = jg.VAE.init(jax.random.key(0), data, hmm(0.5), hidden=(4,), likelihood=jg.likelihoods.gaussian)
    np.testing.assert_allclose(start.scaling[1], data.reshape(-1, 2).std(axis=0), rtol=1e-5)


def test_regret_is_the_gap_of_amortisation(pca):
    """The right posterior is of the encoder's kind, so that the best bound is log p(x): regret is KL(q || p(z | x))."""
    vae, exact, x = pca
    columns, offset = np.asarray(vae.decoder.params["Dense_0"]["kernel"]).T, exact.mean
    precision = 1 + (columns**2).sum(0) / SCALE**2
    right = (x - offset) @ columns / SCALE**2 / precision
    wrong = with_encoder_off(vae)
    mean, scale = np.asarray(wrong.encode(x)), 1.0
    gap = 0.5 * (precision * (scale**2 + (mean - right) ** 2) - 1 - np.log(precision * scale**2)).sum(axis=1)
    score = jg.tasks.LikelihoodRegret(draws=1000, step_size=0.02)
    found = score(jax.random.key(0), wrong, x)
    # draws of the wrong encoder have log-likelihoods that spread by some nats: 1000 leave .2 nats an event
    assert np.abs(found - gap).max() < 1.0
    assert abs(np.mean(found - gap)) < 4 * 0.2 / np.sqrt(len(x))
    assert gap.max() > 10
    # nothing to gain but what steps of .02 lose
    assert np.abs(score(jax.random.key(1), vae, x)).max() < 0.2
    with pytest.raises(jg.ModelError, match="cannot be scored so"):
        score(jax.random.key(0), vae.prior, x[:, :L])
    with pytest.raises(jg.FitError, match="refitted in steps"):
        jg.tasks.LikelihoodRegret(steps=0)(jax.random.key(0), vae, x)
