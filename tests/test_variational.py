"""Variational mixtures against scikit-learn, exact evidence, enumeration, Monte Carlo and scipy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from sklearn.mixture import BayesianGaussianMixture

import jaxgen as jg
from jaxgen.core import latent
from jaxgen.ops import wishart

K, D, STEPS = 5, 3, 15
LEAVES = {"full": jg.NormalWishart.init, "diag": jg.NormalWishart.init_diagonal}


def data():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(60, D)) @ rng.normal(size=(D, D)) + 3 * rng.normal(size=D) for _ in range(4)]
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture(scope="module")
def x():
    return data()


def clusters(n=300, seed=0):
    """Three clear clusters in the plane."""
    rng = np.random.default_rng(seed)
    return np.array([[0, 0], [8, 0], [0, 8]])[rng.integers(0, 3, n)] + rng.normal(size=(n, 2))


def bound(model, x):
    """The evidence lower bound, nats."""
    return float(_bound(model, x))


_bound = jax.jit(lambda model, x: jnp.sum(model.e_step(x)[1]) + latent.log_prior(model))


@jax.jit
def em(model, x):
    """One step."""
    return model.m_step(model.e_step(x)[0])


@jax.jit
def shared_bound(model, x, log_share):
    """The bound where responsibilities are given, nats."""
    # the logarithm of an underflow is cut off: there is no share either
    log_responsibilities = jnp.maximum(jnp.log(model.responsibilities(x)), -1e3)
    joint = log_responsibilities + model.step_log_prob(x)[:, None]
    return jnp.sum(jnp.exp(log_share) * (joint - log_share)) + latent.log_prior(model)


def fit(model, x, steps, **options):
    return jg.fit(jax.random.key(0), model, x, jg.EM(), steps=steps, tolerance=0.0, **options)


# numerics


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gamma_functions_equal_scipy(dtype):
    rng = np.random.default_rng(0)
    a, prior = (10 ** rng.uniform(low, 3, 200).astype(dtype) for low in (-2, -1))
    wide, p = a.astype(np.float64), prior.astype(np.float64)
    digamma, log_gamma = scipy.special.digamma, scipy.special.gammaln
    stirling = (wide - 0.5) * np.log(wide) - wide + 0.5 * np.log(2 * np.pi)
    divergence = log_gamma(p) - log_gamma(wide) + (wide - p) * (digamma(wide) - 1)
    with jax.enable_x64(dtype == np.float64):
        pairs = [
            (wishart.digamma_remainder(a), digamma(wide) - np.log(wide)),
            (wishart.log_gamma_remainder(a), log_gamma(wide) - stirling),
            (wishart.log_gamma_ratio(a, prior), log_gamma(wide + p) - log_gamma(wide)),
            (wishart.log_gamma_divergence(prior, a), divergence),
        ]
    # a few roundings; in float64 those of scipy's own, which cancel: terms of 6000
    bound = 2e-6 if dtype == np.float32 else 6000 * 1e-15
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)


def test_kl_of_beta_densities_equals_quadrature():
    q, p = scipy.stats.beta(3.5, 1.2), scipy.stats.beta(0.8, 2.0)
    expected = scipy.integrate.quad(lambda v: q.pdf(v) * (q.logpdf(v) - p.logpdf(v)), 0, 1)[0]
    assert float(wishart.kl_beta(*map(jnp.float32, (3.5, 1.2, 0.8, 2.0)))) == pytest.approx(expected, rel=1e-5)
    log_a, log_b = jnp.log(jnp.float32(3.5)), jnp.log(jnp.float32(1.2))
    for got, log in zip(wishart.expected_log_stick(log_a, log_b), (np.log, np.log1p), strict=True):
        value = lambda v, log=log: q.pdf(v) * log(v if log is np.log else -v)  # noqa: E731
        assert float(got) == pytest.approx(scipy.integrate.quad(value, 0, 1)[0], rel=1e-5)


# scikit-learn


@functools.cache
def scikit_learn(kind, stick_breaking):
    """Parameters and lower bound after each of STEPS iterations in float64, from given responsibilities."""
    x = np.asarray(data(), np.float64)
    share = np.random.default_rng(1).dirichlet(np.ones(K), len(x))
    peer = BayesianGaussianMixture(
        n_components=K, covariance_type=kind, reg_covar=0,
        weight_concentration_prior_type="dirichlet_process" if stick_breaking else "dirichlet_distribution",
    )  # fmt: skip
    peer._check_parameters(x)
    peer._initialize(x, share)
    rows = []
    for _ in range(STEPS):
        log_norm, log_share = peer._e_step(x)
        peer._m_step(x, log_share)
        peer._set_parameters(peer._get_parameters())
        lower = peer._compute_lower_bound(log_share, log_norm)
        rows.append((log_share, peer.weights_, peer.means_, peer.covariances_, lower))
    return share, rows


@pytest.mark.parametrize("kind", LEAVES)
@pytest.mark.parametrize("stick_breaking", [True, False], ids=["process", "dirichlet"])
# float64: rounding. float32: 1e-4 of weights, ten times that of means and covariances of size 10, through 15 steps in
# which responsibilities are soft; bounds of 1600 nats to 1e-6 of themselves
@pytest.mark.parametrize(("dtype", "tolerance", "nats"), [(np.float64, 1e-8, 1e-8), (np.float32, 1e-4, 2e-3)])
def test_equals_scikit_learn_step_by_step(x, kind, stick_breaking, dtype, tolerance, nats):
    share, rows = scikit_learn(kind, stick_breaking)
    with jax.enable_x64(dtype == np.float64):
        data = x.astype(dtype)
        model = jg.VariationalMixture.from_responsibilities(
            jax.random.key(0), data, share.astype(dtype), LEAVES[kind], stick_breaking=stick_breaking
        )
        constants = []
        for log_share, weights, means, covariances, peer in rows:
            np.testing.assert_allclose(model.responsibilities(data), np.exp(log_share), atol=tolerance)
            model = em(model, data)
            assert model.weights.dtype == dtype
            np.testing.assert_allclose(model.weights, weights, atol=tolerance)
            np.testing.assert_allclose(model.means, means, atol=tolerance * 10)
            np.testing.assert_allclose(model.covariances, covariances, atol=tolerance * 10)
            # the peer's bound is that of the new parameters with the old responsibilities, less a constant
            constants.append(float(shared_bound(model, data, log_share)) - peer)
        assert np.ptp(constants) < nats


# the bound


def log_evidence(x, prior_scale, strength, df, prior_mean):
    """Exact, of Gaussian data under a normal-Wishart prior: Murphy (2007), Conjugate Bayesian analysis, eq. 266."""
    n, d = x.shape
    mean = x.mean(axis=0) if n else np.zeros(d)
    pull = np.outer(mean - prior_mean, mean - prior_mean) * strength * n / (strength + n)
    scale = prior_scale + (x - mean).T @ (x - mean) + pull
    log_det = [np.linalg.slogdet(s)[1] for s in (prior_scale, scale)]
    gammas = scipy.special.multigammaln((df + n) / 2, d) - scipy.special.multigammaln(df / 2, d)
    dets = df / 2 * log_det[0] - (df + n) / 2 * log_det[1]
    return -n * d / 2 * np.log(np.pi) + gammas + dets + d / 2 * np.log(strength / (strength + n))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-6)])
def test_one_component_gives_the_exact_evidence(x, dtype, tolerance):
    """Per event, and after one step: the posterior of one Gaussian is exact."""
    scale, mean, strength, df = np.diag([4.0, 3.0, 5.0]) + 0.5, np.array([1.0, 0.0, -2.0]), 0.3, 4.5
    expected = log_evidence(np.asarray(x, np.float64), scale, strength, df, mean) / len(x)
    leaf = functools.partial(jg.NormalWishart.init, mean=mean, strength=strength, df=df, scatter=scale)
    with jax.enable_x64(dtype == np.float64):
        data = x.astype(dtype)
        mixture = jg.VariationalMixture.init(jax.random.key(0), data, 1, leaf, stick_breaking=False)
        for model in (mixture, leaf(jax.random.key(0), data)):
            objective = fit(model, data, 2).history["objective"]
            np.testing.assert_allclose(objective, expected, rtol=0, atol=tolerance * 5)
        # a diagonal posterior of a full matrix can only be below
        leaf = functools.partial(jg.NormalWishart.init_diagonal, mean=mean, strength=strength, df=df)
        below = leaf(jax.random.key(0), data, scatter=np.diag(scale))
        expected = log_evidence(np.asarray(x, np.float64), np.diag(np.diag(scale)), strength, df, mean)
        assert bound(below, data) < expected


@pytest.mark.parametrize("events", [10_000, 200_000])
def test_float32_bound_of_many_events(events):
    """Nothing of size N cancels: the bound per event is float64's to rounding."""
    x = np.random.default_rng(0).normal(size=(events, 2)) @ np.array([[2.0, 0.3], [0.0, 0.5]]) + 3
    x = x.astype(np.float32)
    model = jg.NormalWishart.init(jax.random.key(0), x)
    wide = np.asarray(x, np.float64)
    expected = log_evidence(wide, np.cov(wide.T), 1.0, 2, wide.mean(axis=0)) / events
    assert fit(model, x, 1).history["objective"][0] == pytest.approx(expected, abs=2e-6)


def test_bound_is_below_the_enumerated_evidence():
    """All 2^8 ways to share eight events between two components."""
    x = np.array([[-3.0], [-2.5], [-2.2], [-2.0], [2.0], [2.1], [2.6], [3.0]])
    scale, mean, strength, df, concentration = np.eye(1), np.zeros(1), 0.1, 2.0, 0.7
    terms = []
    for z in itertools.product((0, 1), repeat=len(x)):
        z = np.array(z)
        counts = np.array([(z == 0).sum(), (z == 1).sum()])
        log_p = scipy.special.gammaln(2 * concentration) - scipy.special.gammaln(2 * concentration + len(x))
        log_p += np.sum(scipy.special.gammaln(concentration + counts) - scipy.special.gammaln(concentration))
        terms.append(log_p + sum(log_evidence(x[z == k], scale, strength, df, mean) for k in (0, 1)))
    expected = scipy.special.logsumexp(terms)
    leaf = functools.partial(jg.NormalWishart.init, mean=mean, strength=strength, df=df, scatter=scale)
    with jax.enable_x64():
        start = jg.VariationalMixture.init(
            jax.random.key(0), x, 2, leaf, concentration=concentration, stick_breaking=False
        )
        got = bound(fit(start, x, 100).model, x)
    # one of two equal modes (log 2), and clear clusters: little else is lost
    assert expected - np.log(2) - 0.1 < got < expected - np.log(2)


@pytest.mark.parametrize("kind", LEAVES)
def test_bound_equals_monte_carlo(x, kind):
    """`E_q [log p(x, z, theta) - log q(z, theta)]` from scipy's densities, of a Dirichlet process."""
    data, draws = x[::8].astype(np.float64), 4000
    rng = np.random.default_rng(0)
    with jax.enable_x64():
        model = jg.VariationalMixture.init(jax.random.key(1), data, 3, LEAVES[kind], concentration=0.8)
        model = fit(model, data, 5).model
        share = np.asarray(model.responsibilities(data))
        expected = bound(model, data)
        a, b = np.exp(np.asarray(model.log_sticks)).T
        one = model.components
        components = [np.asarray(v) for v in (one.mean, one.strength, one.df, one.covariance)]
    v = rng.beta(a, b, (draws, 3))
    stay = np.concatenate([np.ones((draws, 1)), np.cumprod(1 - v, axis=1)[:, :-1]], axis=1)
    total = np.sum(share.sum(axis=0) * np.log(v * stay), axis=1) - np.sum(scipy.special.xlogy(share, share))
    total += np.sum(scipy.stats.beta(1, 0.8).logpdf(v) - scipy.stats.beta(a, b).logpdf(v), axis=1)
    prior = np.cov(data.T) if kind == "full" else np.diag(np.var(data, axis=0, ddof=1))
    for k in range(3):
        mean, strength, df, covariance = (v[k] for v in components)
        scale = df * (covariance if kind == "full" else np.diag(covariance))
        q = scipy.stats.wishart(df, np.linalg.inv(scale))
        p = scipy.stats.wishart(D, np.linalg.inv(prior))
        precision = q.rvs(draws, random_state=rng)
        total += np.subtract(*(density.logpdf(np.moveaxis(precision, 0, -1)) for density in (p, q)))
        root = np.linalg.cholesky(np.linalg.inv(precision) / strength)
        mu = mean + (root @ rng.normal(size=(draws, D, 1)))[..., 0]
        log_det = np.linalg.slogdet(precision)[1]

        def normal(d, times, precision=precision, log_det=log_det):
            square = np.einsum("sni,sij,snj->sn", d, precision, d)
            return 0.5 * (log_det[:, None] + D * np.log(times / (2 * np.pi)) - times * square)

        total += (normal((mu - data.mean(axis=0))[:, None], 1.0) - normal((mu - mean)[:, None], strength))[:, 0]
        total += normal(data - mu[:, None], 1.0) @ share[:, k]
    assert abs(total.mean() - expected) < 4.5 * total.std() / draws**0.5
    assert total.std() / draws**0.5 < 0.5


@pytest.mark.parametrize(("kind", "stick_breaking"), [("full", True), ("diag", False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 2e-5)])
def test_fit_never_decreases_the_bound(x, kind, stick_breaking, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        data, weight = x.astype(dtype), np.random.default_rng(0).uniform(0, 2, len(x)).astype(dtype)
        start = jg.VariationalMixture.init(jax.random.key(0), data, 6, LEAVES[kind], stick_breaking=stick_breaking)
        fitted = fit(start, {"x": data, "weight": weight}, 60)
        history = np.asarray(fitted.history["objective"], np.float64)
        assert np.diff(history).min() > -tolerance
        assert history[-1] - history[0] > 1e-3
        terms = np.asarray(start.e_step(data)[1], np.float64)
        expected = (weight @ terms + float(latent.log_prior(start))) / weight.sum()
        np.testing.assert_allclose(history[0], expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


# what is fitted


@pytest.mark.parametrize(("kind", "stick_breaking"), [("full", True), ("diag", False)])
def test_components_that_are_not_needed_die(kind, stick_breaking):
    x = clusters().astype(np.float32)
    start = jg.VariationalMixture.init(
        jax.random.key(0), x, 10, LEAVES[kind], concentration=1e-3, stick_breaking=stick_breaking
    )
    fitted = fit(start, x, 400).model
    used = np.asarray(fitted.weights) > 0.02
    assert used.sum() == 3
    found = sorted(map(tuple, np.asarray(fitted.means)[used].round().astype(int)))
    assert found == [(0, 0), (0, 8), (8, 0)]
    assert len(np.unique(np.asarray(fitted.predict(x)))) == 3
    assert float(fitted.weights.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", LEAVES)
def test_predictive_density_equals_scipy(x, kind):
    data = x[:60]
    with jax.enable_x64():
        model = LEAVES[kind](jax.random.key(0), data.astype(np.float64), strength=0.5, df=3.7)
        strength, df, covariance = (np.asarray(v) for v in (model.strength, model.df, model.covariance))
        covariance = covariance if kind == "full" else np.diag(covariance)
        excess = df - D + 1
        shape = covariance * df * (strength + 1) / (strength * excess)
        expected = scipy.stats.multivariate_t(np.asarray(model.mean), shape, df=excess).logpdf(x)
        np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-11, atol=1e-11)
        two = jg.VariationalMixture.from_components([model, jg.NormalWishart.init(jax.random.key(0), x[60:])] if
                                                    kind == "full" else [model, model])  # fmt: skip
        each = np.stack([np.asarray(jax.tree.map(lambda v, k=k: v[k], two.components).log_prob(x)) for k in (0, 1)])
        mixed = scipy.special.logsumexp(each + np.log(np.asarray(two.weights))[:, None], axis=0)
        np.testing.assert_allclose(two.log_prob(x), mixed, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(two.distribution().log_prob(x), mixed, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_samples_have_the_tails_of_the_predictive_density(leaf):
    model = leaf(jax.random.key(0), np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 3.0]]), df=1.2)
    draws = np.asarray(model.sample(jax.random.key(1), (3000,)), np.float64)
    excess = float(model.df) - 1
    shrink = float(model.df) * (1 + 1 / float(model.strength)) / excess
    z = (draws - np.asarray(model.mean)) @ np.asarray(
        np.diag(model.whitener) if model.diagonal else model.whitener
    ).T / shrink**0.5  # fmt: skip
    # the squared length of a standard t over D is F distributed
    assert scipy.stats.kstest((z**2).sum(axis=1) / 2, scipy.stats.f(2, excess).cdf).pvalue > 1e-4
    assert scipy.stats.kstest(z[:, 0], scipy.stats.t(excess).cdf).pvalue > 1e-4


def test_weights_are_dirichlet_means_and_sticks(x):
    share = np.random.default_rng(0).dirichlet(np.ones(4), len(x))
    leaf = jg.NormalWishart.init
    make = functools.partial(jg.VariationalMixture.from_responsibilities, jax.random.key(0), x, share, leaf)
    counts = share.sum(axis=0) + 0.7
    model = make(concentration=0.7, stick_breaking=False)
    np.testing.assert_allclose(model.weights, counts / counts.sum(), rtol=1e-5)
    expected = scipy.special.digamma(counts) - scipy.special.digamma(counts.sum())
    np.testing.assert_allclose(model.expected_log_weights, expected, rtol=1e-5)
    # nothing seen: the prior's mean
    components = model.components
    prior = jg.VariationalMixture.from_components(components, concentration=0.7, stick_breaking=False)
    np.testing.assert_allclose(prior.weights, 0.25, rtol=1e-6)
    process = jg.VariationalMixture.from_components(components, concentration=1.0).weights
    np.testing.assert_allclose(process, np.array([8, 4, 2, 1]) / 15, rtol=1e-6)


def test_no_mass_gives_the_prior_back(x):
    model = jg.NormalWishart.init(jax.random.key(0), x, mean=np.ones(D), scatter=np.eye(D) * 2)
    back, repaired = model.maximize(model.e_step(x, np.zeros(len(x)))[0])
    assert repaired == 0
    np.testing.assert_allclose(back.mean, 1, atol=1e-5)
    np.testing.assert_allclose(back.covariance, np.eye(D) * 2 / D, atol=2e-5)
    assert float(latent.log_prior(back)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", LEAVES)
def test_statistics_of_another_model_can_be_moved(x, kind):
    make = functools.partial(jg.VariationalMixture.init, jax.random.key(0), k=3, leaf=LEAVES[kind])
    old, new = make(x[::2]), make(x[1::2])
    weight = np.random.default_rng(0).uniform(size=(3, len(x))).astype(np.float32)
    theirs = type(old.components).e_step_components(old.components, x, weight)
    own = type(new.components).e_step_components(new.components, x, weight)
    statistics = type(old.e_step(x)[0])
    moved = latent.recentre(new, old, statistics(weight.sum(axis=1), theirs)).components
    for a, b in zip(moved, own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def test_held_means_stay_and_the_bound_still_grows(x):
    with jax.enable_x64():
        data = x.astype(np.float64)
        start = jg.VariationalMixture.init(jax.random.key(0), data, 3, jg.NormalWishart.init)
        algorithm = jg.EM(frozen={"components.offset": True})
        fitted = jg.fit(jax.random.key(0), start, data, algorithm, steps=20, tolerance=0.0)
        np.testing.assert_array_equal(fitted.model.means, start.means)
        assert np.diff(fitted.history["objective"]).min() > -1e-9


# other components


def inner(key, x):
    return jg.VariationalMixture.init(key, x, 2, jg.NormalWishart.init)


@pytest.mark.parametrize("leaf", [jg.Gaussian.init, jg.Bernoulli.init, inner], ids=["ml", "bits", "own"])
def test_any_component_that_em_trains(leaf):
    """Points for parameters without a posterior; and a mixture of variational mixtures."""
    x = (clusters() > 3).astype(np.float64) if leaf == jg.Bernoulli.init else clusters()
    with jax.enable_x64():
        start = jg.VariationalMixture.init(jax.random.key(0), x, 4, leaf, concentration=0.01)
        fitted = fit(start, x, 60)
        assert fitted.status == jg.Status.FINISHED
        # the floor of a Gaussian's variances is a prior in all but name
        assert np.diff(fitted.history["objective"]).min() > -1e-6
        assert np.isfinite(np.asarray(fitted.model.log_prob(x))).all()


def test_gradient_trains_the_predictive_density(x):
    """A density like any other: its gradients are finite, and no step leaves what makes a posterior."""
    start = jg.VariationalMixture.init(jax.random.key(0), x, 3, jg.NormalWishart.init)
    fitted = jg.fit(jax.random.key(0), start, x, jg.Gradient(jg.losses.nll), steps=30, batch_size=64)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fitted.model))
    assert fitted.model.log_prob(x).mean() > start.log_prob(x).mean() - 0.05


# garbage in


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize(
    "data",
    [
        np.ones((20, 2)),  # all events the same
        np.repeat(np.eye(2), 10, axis=0),  # fewer distinct points than components
        np.column_stack([np.arange(20.0), np.full(20, 3.0)]),  # a constant column
        np.column_stack([np.arange(20.0), 2 * np.arange(20.0)]),  # one column follows from the other
        np.array([[1.0, 2.0]] * 3),
        np.concatenate([np.zeros((10, 2)), np.full((10, 2), 1e6)]),  # far apart
        np.column_stack([np.arange(20.0) * 1e-6, np.arange(20.0)[::-1] ** 2 * 1e6]),  # units that differ
    ],
    ids=["constant", "two points", "constant column", "collinear", "three rows", "far apart", "units"],
)
def test_degenerate_data_stay_finite_and_monotone(leaf, data):
    data = data.astype(np.float32)
    model = jg.VariationalMixture.init(jax.random.key(0), data, 3, leaf)
    fitted = fit(model, data, 30)
    assert fitted.status == jg.Status.FINISHED
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fitted.model))
    history = np.asarray(fitted.history["objective"], np.float64)
    # few events with scales of 1e-6 of their spread: float32 of large terms
    assert (np.diff(history) >= -1e-4 * np.maximum(1, np.abs(history[1:]))).all(), history


def test_one_row_and_one_column_are_enough():
    for x in (np.array([[1.0, 2.0]]), np.arange(6.0)[:, None]):
        model = jg.VariationalMixture.init(jax.random.key(0), x, 1, jg.NormalWishart.init)
        assert np.isfinite(fit(model, x, 5).history["objective"]).all()
        assert np.isfinite(np.asarray(model.sample(jax.random.key(0), (5,)))).all()


def test_far_from_the_origin(x):
    """Data moved by 1e4 lose digits of their own; scoring and EM add no error to that."""
    moved = x + np.float32(1e4)
    near = moved.astype(np.float64) - 1e4
    share = np.random.default_rng(0).dirichlet(np.ones(3), len(x)).astype(np.float32)
    make = functools.partial(jg.VariationalMixture.from_responsibilities, jax.random.key(0), leaf=jg.NormalWishart.init)
    got = fit(make(moved, share), moved, 15).history["objective"]
    with jax.enable_x64():
        expected = fit(make(near, share.astype(np.float64)), near, 15).history["objective"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


INIT = functools.partial(jg.VariationalMixture.init, jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: INIT(x, 0, jg.NormalWishart.init), jg.ModelError, "1 to 240"),
        (lambda x: INIT(x, 241, jg.NormalWishart.init), jg.ModelError, "1 to 240"),
        (lambda x: INIT([], 1, jg.NormalWishart.init), jg.DataError, "empty"),
        (lambda x: INIT(x * np.nan, 2, jg.NormalWishart.init), jg.DataError, "NaN"),
        (lambda x: INIT(x[:, 0], 2, jg.NormalWishart.init), jg.ShapeError, "vectors"),
        (lambda x: INIT(x, 2, jg.NormalWishart.init, concentration=0.0), jg.ModelError, "concentration"),
        (lambda x: INIT(x, 2, functools.partial(jg.NormalWishart.init, df=2.0)), jg.ModelError, "df > 2"),
        (lambda x: jg.NormalWishart.init(jax.random.key(0), x, strength=-1.0), jg.ModelError, "strength > 0"),
        (lambda x: jg.NormalWishart.init(jax.random.key(0), x, scatter=np.ones(D)), jg.ModelError, "init_diagonal"),
        (lambda x: jg.NormalWishart.init(jax.random.key(0), x, mean=np.ones(2)), jg.ModelError, "fit the mean"),
        (lambda x: jg.NormalWishart.from_values([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), jg.ModelError, "positive def"),
        (lambda x: jg.NormalWishart.from_values([0.0, 0.0], [1.0, 0.0]), jg.ModelError, "positive def"),
        (lambda x: jg.NormalWishart.from_values(0.0, 1.0), jg.ModelError, "fit the mean"),
        (lambda x: jg.VariationalMixture.from_components([]), jg.ModelError, "no models"),
        (
            lambda x: jg.VariationalMixture.from_responsibilities(
                jax.random.key(0), x, np.ones((3, 2)), jg.NormalWishart.init
            ),
            jg.ModelError, "responsibilities",
        ),
        (lambda x: jg.NormalWishart.from_values([0.0], [1.0]).log_prob(x), jg.ShapeError, "does not end"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(x, call, error, words):
    with pytest.raises(error, match=words):
        call(x)
