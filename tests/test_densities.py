"""Point masses, counts of trials, positive, bounded and noisy numbers: against scipy and closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import jaxgen as jg
from jaxgen.core import latent
from jaxgen.ops.gaussians import shift_moments
from jaxgen.ops.special import poisson_log_mass

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N = 60
WEIGHT = RNG.integers(0, 4, N)
X = {
    jg.Exponential: RNG.exponential([2.0, 500.0], (N, 2)),
    jg.LogNormal: np.exp(RNG.normal([0.0, 5.0], [0.7, 0.1], (N, 2))),
    jg.Laplace: RNG.laplace([0.0, 100.0], [2.0, 0.5], (N, 2)),
    jg.Beta: RNG.beta([0.5, 300.0], [2.0, 5.0], (N, 2)),
    jg.Binomial: RNG.binomial(7, [0.2, 0.9], (N, 2)).astype(float),
    jg.Multinomial: RNG.multinomial(9, [0.2, 0.7, 0.1], N).astype(float),
}
leaves = pytest.mark.parametrize("leaf", X, ids=lambda leaf: leaf.__name__)
STEP = jax.jit(lambda model, x, weight=None: latent.maximize(model, model.e_step(x, weight)[0]))


def start(leaf, x=None, **options):
    options |= {"trials": 7} if leaf is jg.Binomial else {}
    return leaf.init(KEY, (X[leaf] if x is None else x).astype(np.float32), **options)


def peer(model, x):
    """Entry by entry in float64 from scipy, at the parameters that the model holds; of whole multinomial events."""
    value = lambda a: np.asarray(a, np.float64)  # noqa: E731
    x = value(x)
    match model:
        case jg.Exponential():
            return scipy.stats.expon(scale=np.exp(value(model.log_mean))).logpdf(x)
        case jg.LogNormal():
            return scipy.stats.lognorm(np.exp(value(model.log_scale)), scale=np.exp(value(model.log_median))).logpdf(x)
        case jg.Laplace():
            location = value(model.origin) + value(model.offset)
            return scipy.stats.laplace(location, np.exp(value(model.log_scale))).logpdf(x)
        case jg.Beta():
            s, m = np.exp(value(model.log_concentration)), scipy.special.expit(value(model.logit_mean))
            return scipy.stats.beta(s * m, s * scipy.special.expit(-value(model.logit_mean))).logpdf(x)
        case jg.Binomial():
            return scipy.stats.binom(value(model.trials), scipy.special.expit(value(model.logits))).logpmf(x)
        case jg.Multinomial():
            return scipy.stats.multinomial(x.sum(-1), scipy.special.softmax(value(model.logits))).logpmf(x)[..., None]


@leaves
def test_log_prob_equals_scipy(leaf):
    model, x = start(leaf), X[leaf].astype(np.float32)
    # float32: a handful of roundings of numbers up to ten
    np.testing.assert_allclose(model.log_prob(x), peer(model, x).sum(axis=1), rtol=1e-5, atol=1e-5)
    outside = {jg.Laplace: np.inf}.get(leaf, -1.0)
    if np.isfinite(outside):
        assert model.log_prob(np.full_like(x[0], outside)) == -np.inf
        with pytest.raises(jg.DataError, match="outside the support"):
            model.check_data(np.full_like(x, outside))
    with pytest.raises(jg.DataError, match="NaN"):
        model.log_prob(np.full_like(x[0], np.nan))


@leaves
def test_weights_are_repeated_events_and_the_start_is_the_maximum(leaf):
    x = X[leaf].astype(np.float32)
    model = start(leaf)
    weighted, repeated = STEP(model, x, WEIGHT.astype(np.float32))[0], STEP(model, np.repeat(x, WEIGHT, axis=0))[0]
    for a, b in zip(jax.tree.leaves(weighted), jax.tree.leaves(repeated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32 sums in another order
    best = peer(model, x).sum()
    for path in (0, 1):
        field = dataclasses.fields(model)[path]
        if "fixed" in field.metadata:
            continue
        for step in (-0.02, 0.02):
            value = getattr(model, field.name)
            move = step * np.eye(len(value))[0] * (model.scale if (leaf, path) == (jg.Laplace, 0) else 1)
            assert peer(dataclasses.replace(model, **{field.name: value + move}), x).sum() < best + 1e-4, field.name
    again = start(leaf, X[leaf][::-1])
    np.testing.assert_allclose(peer(again, x).sum(), best, rtol=1e-5)


@leaves
def test_a_mixture_of_them_climbs(leaf):
    """Two components from overlapping data, a part of them held: no step loses, and what is held stays."""
    other = {jg.Binomial: X[leaf][:, ::-1], jg.Multinomial: X[leaf][:, ::-1], jg.Beta: X[leaf] ** 2}
    x = np.concatenate([X[leaf], other.get(leaf, 3 * X[leaf])])
    init = functools.partial(leaf.init, trials=7) if leaf is jg.Binomial else leaf.init
    mixture = jg.Mixture.init(KEY, x.astype(np.float32), 2, init)
    name = dataclasses.fields(leaf)[0].name
    held = np.zeros(np.shape(getattr(mixture.components, name)), bool)
    held[0, 0] = True
    fitted = jg.fit(KEY, mixture, x.astype(np.float32), jg.EM(frozen={f"components.{name}": held}), steps=12,
                    tolerance=0.0)  # fmt: skip
    assert np.isfinite(fitted.history["objective"]).all()
    # one that lost would have been taken back, and the objective would stand still
    assert np.diff(fitted.history["objective"]).min() > -1e-5
    assert fitted.history["objective"][-1] > fitted.history["objective"][0]
    np.testing.assert_array_equal(getattr(fitted.model.components, name)[0, 0], getattr(mixture.components, name)[0, 0])


@pytest.mark.parametrize("leaf", [jg.Exponential, jg.LogNormal, jg.Laplace, jg.Beta], ids=lambda leaf: leaf.__name__)
def test_units_and_what_was_not_seen(leaf):
    x = X[leaf].astype(np.float32)
    holed = np.where(RNG.random(x.shape) < 0.2, np.nan, x)
    model = start(leaf, holed, missing=True)
    alone = [leaf.init(KEY, column[~np.isnan(column)]) for column in holed.T]
    for field in dataclasses.fields(leaf)[:2]:
        wanted = [getattr(one, field.name) for one in alone]
        if "fixed" not in field.metadata and leaf is not jg.Laplace:
            np.testing.assert_allclose(getattr(model, field.name), wanted, rtol=1e-5, atol=1e-5)
    total = sum(one.log_prob(np.nan_to_num(c, nan=0.5)) * ~np.isnan(c) for one, c in zip(alone, holed.T, strict=True))
    np.testing.assert_allclose(model.log_prob(holed), total, rtol=2e-5, atol=2e-5)
    assert model.log_prob(np.full(2, np.nan, np.float32)) == 0
    if leaf is not jg.Beta:
        other = np.float32([1e-12, 1e9])
        scaled = start(leaf, x * other)
        np.testing.assert_allclose(scaled.log_prob(x * other) + np.log(other).sum(), start(leaf).log_prob(x), rtol=1e-4)
        np.testing.assert_allclose(scaled.floor / (1 if leaf is jg.LogNormal else other), start(leaf).floor, rtol=1e-3)


@leaves
def test_rebased_statistics_add_up(leaf):
    """Of an exact family they are what the new model makes of the events; of a bound, the bound's maximum stays."""
    x = X[leaf].astype(np.float32)
    old = start(leaf)
    moved = {"logit_mean": 0.05, "log_median": 0.1, "offset": old.scale / 9 if leaf is jg.Laplace else 0}
    new = dataclasses.replace(old, **{k: getattr(old, k) + v for k, v in moved.items() if hasattr(old, k)})
    statistics = latent.recentre(new, old, old.e_step(x)[0])
    if leaf is jg.Laplace:
        before, after = (latent.maximize(*pair)[0] for pair in ((old, old.e_step(x)[0]), (new, statistics)))
        np.testing.assert_allclose(after.offset, before.offset, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(after.log_scale, before.log_scale, atol=1e-5)
    else:
        own = new.e_step(x)[0]
        for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(own), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max())  # float32 sums of N terms


def test_a_held_mean_or_concentration_of_beta_gives_the_best_of_the_other():
    model, x = start(jg.Beta), X[jg.Beta].astype(np.float32)
    off = dataclasses.replace(model, logit_mean=model.logit_mean + 0.3, log_concentration=model.log_concentration - 0.5)
    for name, other in (("logit_mean", "log_concentration"), ("log_concentration", "logit_mean")):
        fitted = jg.fit(KEY, off, x, jg.EM(frozen={name: True}), steps=10).model
        for i in range(2):
            def loss(value, i=i, fitted=fitted, other=other):
                return -peer(dataclasses.replace(fitted, **{other: np.full(2, value)}), x)[:, i].sum()

            at = float(getattr(fitted, other)[i])
            found = scipy.optimize.minimize_scalar(loss, (at - 0.3, at + 0.3)).x
            assert at == pytest.approx(found, abs=1e-4), (name, i)


def test_a_scale_beside_a_held_location_is_taken_around_it():
    x = X[jg.LogNormal].astype(np.float32)
    for leaf, name, wanted in (
        (jg.LogNormal, "log_median", lambda x, m: np.sqrt(np.mean((np.log(x) - m.log_median) ** 2, axis=0))),
        (jg.Laplace, "offset", lambda x, m: np.mean(np.abs(x - m.location), axis=0)),
    ):
        model = start(leaf, x)
        off = dataclasses.replace(model, **{name: getattr(model, name) + 0.5})
        fitted = jg.fit(KEY, off, x, jg.EM(frozen={name: True}), steps=3).model
        np.testing.assert_allclose(fitted.scale, wanted(x, off), rtol=1e-4)


# ---- each by itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(0.02, 0.3), (1.0, 1.0), (3e4, 0.5), (2e5, 1e5), (2.0, 1e6), (1e6, 2.0)])
def test_beta_from_far_away(a, b):
    """From the uniform density, in two M-steps, a likelihood that no search finds better; digits at every size."""
    x = np.clip(np.random.default_rng(1).beta(a, b, 300), 1e-30, 1 - 6e-8).astype(np.float32)
    model = jg.Beta.from_values(np.float32(1.0), np.float32(1.0))
    for _ in range(2):
        model = STEP(model, x)[0]
    exact = x.astype(np.float64)
    logs = np.log(exact).mean(), np.log1p(-exact).mean()
    loss = lambda t: scipy.special.betaln(*np.exp(t)) - (np.exp(t) - 1) @ logs  # noqa: E731
    best = scipy.optimize.minimize(loss, np.log([a, b]), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    # digits of the parameters in float32; the peer's own betaln cancels
    assert peer(model, x).mean() > -best.fun - 1e-5
    np.testing.assert_allclose(model.log_prob(x), peer(model, x), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.999])
def test_binomial_keeps_its_digits_and_draws_what_it_scores(p):
    for n in (1, 40, 10**6):
        model = jg.Binomial.from_values(np.float32(p), n)
        x = np.asarray(model.sample(KEY, (2000,)))
        # n p is rounded once: sqrt(n) roundings of deviances
        np.testing.assert_allclose(model.log_prob(x), peer(model, x), rtol=1e-5, atol=1e-6 + 2e-7 * np.sqrt(n))
        spread = np.sqrt(n * p * (1 - p) / 2000)
        assert abs(x.mean() - n * p) < 4.5 * spread + 1e-2 * (n * p < 0.1), (n, x.mean())
        assert (x >= 0).all()
        assert (x <= n).all()


def test_binomial_trials_of_each_event():
    n = RNG.integers(0, 30, (N, 2)).astype(np.float32)
    x = RNG.binomial(n.astype(int), [0.2, 0.7])
    model = jg.Binomial.init(KEY, x, n)
    np.testing.assert_allclose(model.probs, x.sum(axis=0) / n.sum(axis=0), rtol=1e-5)
    expected = scipy.stats.binom(n, np.asarray(model.probs, float)).logpmf(x).sum(axis=1)
    np.testing.assert_allclose(model.log_prob(x, context=n), expected, rtol=1e-5, atol=1e-5)
    assert model.log_prob(n[0] + 1, context=n[0]) == -np.inf
    fitted = jg.fit(KEY, jg.Mixture.init(KEY, x, 2, jg.Binomial.init, context=n), (x, n), steps=10)
    assert np.isfinite(fitted.history["objective"]).all()
    # a Beta prior: its mode, and a coordinate without trials
    prior = jg.Binomial.init(KEY, x * [1, 0], n * [1, 0], prior=[3.0, 2.0])
    counts = x.sum(axis=0), n.sum(axis=0)
    assert float(prior.probs[0]) == pytest.approx((counts[0][0] + 2) / (counts[1][0] + 3), rel=1e-5)
    assert float(prior.probs[1]) == 0.5
    with pytest.raises(jg.ModelError, match="how many trials"):
        jg.Binomial.init(KEY, x)
    with pytest.raises(jg.DataError, match="outside the support"):
        jg.Binomial.init(KEY, x, trials=3)


def test_counts_far_from_their_rates():
    x, rate = np.float32([0, 0, 3, 3, 1e6, 50]), np.float32([0.0, 2.0, 2e-38, 1e-20, 1e6, 1e-3])
    expected = scipy.stats.poisson(rate.astype(float)).logpmf(x)
    np.testing.assert_allclose(poisson_log_mass(x, jnp.asarray(rate), jnp.log(rate)), expected, rtol=1e-5, atol=1e-5)
    log = np.float32([-120.0, 1.0])
    slopes = jax.vmap(jax.grad(lambda log, x: poisson_log_mass(x, jnp.exp(log), log)))(log, x[2:4])
    np.testing.assert_allclose(slopes, x[2:4] - np.exp(log), rtol=1e-5)


def test_multinomial():
    probs = np.array([0.5, 0.3, 0.2, 0.0])
    model = jg.Multinomial.from_values(probs, 1000)
    x = np.asarray(model.sample(KEY, (3000,)))
    assert (x.sum(axis=1) == 1000).all()
    z = (np.cov(x.T)[:3, :3] / 1000 - (np.diag(probs) - np.outer(probs, probs))[:3, :3]) * np.sqrt(3000)
    assert np.abs(z).max() < 2.5, "of a variance of at most a quarter, its error over root n is below a half"
    np.testing.assert_allclose(model.log_prob(x), scipy.stats.multinomial(1000, probs).logpmf(x), rtol=1e-5, atol=1e-5)
    big = np.random.default_rng(0).multinomial(10**7, np.full(50, 0.02), 4)
    expected = scipy.stats.multinomial(10**7, np.full(50, 0.02)).logpmf(big)
    np.testing.assert_allclose(jg.Multinomial.from_values(np.full(50, 0.02)).log_prob(big), expected, rtol=1e-6)
    assert model.log_prob(np.array([1, 1, 1, 1])) == -np.inf
    assert model.log_prob(np.zeros(4)) == 0
    learned = STEP(dataclasses.replace(model, prior=jnp.full(4, 2.0)), x.astype(np.float32))[0]
    assert float(learned.probs[3]) == 0, "what cannot be stays so"
    fitted = jg.fit(KEY, jg.HMM.init(KEY, x[:60].reshape(3, 20, 4), 2, jg.Multinomial.init), x[:60].reshape(3, 20, 4),
                    steps=5)  # fmt: skip
    assert np.isfinite(fitted.history["objective"]).all()


def test_laplace_climbs_to_the_weighted_median():
    x = X[jg.Laplace][:, :1].astype(np.float32)
    weight = RNG.uniform(0.1, 3, N).astype(np.float32)
    order = np.argsort(x[:, 0])
    total = np.cumsum(weight[order], dtype=float)
    median = x[order[np.searchsorted(total, total[-1] / 2)], 0]
    # from the maximum without weights, from on top of an event at the end, and from far away
    for location in (np.median(x), x.max(), 1e3):
        begin = jg.Laplace.from_values(np.float32([location]), np.float32([1.0]))
        fitted = jg.fit(KEY, begin, {"x": x, "weight": weight}, jg.EM(), steps=200, tolerance=0.0)
        assert np.diff(fitted.history["objective"]).min() > -1e-5  # rounding
        assert float(fitted.model.location[0]) == pytest.approx(median, abs=1e-3)
        distance = (weight * np.abs(x[:, 0] - median)).sum() / weight.sum()
        assert float(fitted.model.scale[0]) == pytest.approx(distance, rel=1e-5)


def test_laplace_on_top_of_events():
    """Where those at the location outweigh the pull of the rest it stays, exactly; else it leaves."""
    for x, median in (([0, 0, 0, 0, 1, 2, 5], 0.0), ([0, 0, 0, 1, 2, 5, 7], 1.0)):
        x = np.float32(x)[:, None]
        model = jg.Laplace.from_values([0.0], [1.0])
        for _ in range(30):
            model = STEP(model, x)[0]
        assert float(model.location[0]) == pytest.approx(median, abs=1e-5 * median)
        # sums from on top of them, seen from elsewhere, still bound: their maximum is no worse than where they are seen
        old = jg.Laplace.from_values([0.0], [1.0])
        for by in (-1.0, 0.2, 0.5):
            new = jg.Laplace.from_values([by], [1.0])
            moved = latent.maximize(new, latent.recentre(new, old, old.e_step(x)[0]))[0]
            assert peer(moved, x).sum() >= peer(new, x).sum()


# ---- what lies under noise -------------------------------------------------------------------------------------------


def deconvolved(seed=0, n=200):
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.1, 3, (n, 2))
    clean = rng.multivariate_normal([1, -1], [[2.0, 0.8], [0.8, 1.0]], n)
    return (clean + spread * rng.normal(size=(n, 2))).astype(np.float32), spread.astype(np.float32)


def test_noisy_gaussian_is_the_deconvolved_maximum():
    x, spread = deconvolved()
    wide = spread[..., None].astype(float) ** 2 * np.eye(2)
    fitted = jg.fit(KEY, jg.NoisyGaussian.init(KEY, x, spread), (x, spread), steps=300, tolerance=1e-8)
    assert np.diff(fitted.history["objective"]).min() > -1e-5

    def loss(t):
        factor = np.array([[np.exp(t[2]), 0], [t[3], np.exp(t[4])]])
        total, d = factor @ factor.T + wide, x - t[:2]
        return np.mean(np.linalg.slogdet(2 * np.pi * total)[1] + np.einsum("ni,nij,nj->n", d, np.linalg.inv(total), d))

    best = scipy.optimize.minimize(loss, np.zeros(5))
    assert fitted.history["objective"][-1] == pytest.approx(-best.fun / 2, abs=1e-4)
    np.testing.assert_allclose(fitted.model.mean, best.x[:2], atol=2e-2)  # where the likelihood is flat
    mean, cov = np.asarray(fitted.model.mean, float), np.asarray(fitted.model.covariance, float)
    expected = [scipy.stats.multivariate_normal(mean, cov + s).logpdf(row) for row, s in zip(x, wide, strict=True)]
    np.testing.assert_allclose(fitted.model.log_prob(x, context=spread), expected, rtol=1e-5, atol=1e-5)
    # the same noise as covariances, with the same answers
    same = dataclasses.replace(fitted.model, correlated=True)
    wide = wide.astype(np.float32)
    np.testing.assert_allclose(same.log_prob(x, context=wide), expected, rtol=1e-5, atol=1e-5)
    pulled = [mean + cov @ np.linalg.solve(cov + s, row - mean) for row, s in zip(x, wide, strict=True)]
    np.testing.assert_allclose(same.denoise(x, context=wide), pulled, rtol=1e-4, atol=1e-4)
    for a, b in zip(same.e_step(x, context=wide)[0], fitted.model.e_step(x, context=spread)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    old, new = same, dataclasses.replace(same, offset=same.offset + 1)
    assert new.recentre(old, old.e_step(x, context=wide)[0]).first == pytest.approx(
        shift_moments(old.e_step(x, context=wide)[0], jnp.ones(2)).first)  # fmt: skip


def test_without_noise_it_is_a_gaussian_and_mixtures_see_through_it():
    x, spread = deconvolved(n=300)
    plain, none = jg.Gaussian.init(KEY, x), jg.NoisyGaussian.init(KEY, x, np.zeros_like(x))
    np.testing.assert_allclose(none.covariance, plain.covariance, rtol=1e-4)
    np.testing.assert_allclose(none.mean, plain.mean, rtol=1e-4, atol=1e-5)
    # two narrow groups that noise hides: the fit finds how narrow they are
    rng = np.random.default_rng(3)
    group = np.arange(300) % 2
    noise = rng.uniform(0.2, 1.5, (300, 1)).astype(np.float32)
    y = (np.where(group, 2.0, -2.0)[:, None] + noise * rng.normal(size=(300, 1))).astype(np.float32)
    start = jg.Mixture.init(KEY, y, 2, jg.NoisyGaussian.init, context=noise)
    fitted = jg.fit(KEY, start, (y, noise), steps=150).model
    assert np.sqrt(np.asarray(fitted.components.covariance)).max() < 0.35, "beside a spread of 0.9 with the noise"
    np.testing.assert_allclose(np.sort(np.asarray(fitted.components.mean)[:, 0]), [-2, 2], atol=0.2)
    with pytest.raises(jg.ShapeError, match="noise of these events"):
        jg.NoisyGaussian.init(KEY, x, spread[:, :1])


# ---- atoms -----------------------------------------------------------------------------------------------------------


def joined(weights, parts, x):
    """The log-density of a mixture of densities of any classes."""
    rows = [np.log(w) + np.asarray(part.log_prob(x), np.float64) for w, part in zip(weights, parts, strict=True)]
    return np.logaddexp(*rows)


def test_an_atom_beside_what_is_continuous():
    """Zero-inflated gamma, log-normal and Beta as they are, others punctured: a zero is the atom's alone."""
    x = np.float32([0.0, 0.5, 0.0, 0.9])
    atom = jg.Delta.from_values(0.0)
    slabs = [
        jg.Gamma.from_values(0.7, 0.6), jg.Gamma.from_values(0.7, 3.0), jg.LogNormal.from_values(1.0, 0.5),
        jg.Beta.from_values(0.5, 2.0),
        jg.Punctured.from_density(jg.Laplace.from_values(0.0, 1.0), 0.0),
        jg.Punctured.from_density(jg.Exponential.from_values(2.0), 0.0),
    ]  # fmt: skip
    for slab in slabs:
        log_prob = joined((0.3, 0.7), (atom, slab), x)
        np.testing.assert_allclose(log_prob[[0, 2]], np.log(0.3), rtol=1e-6)
        np.testing.assert_allclose(log_prob[[1, 3]], np.log(0.7) + np.asarray(slab.log_prob(x[[1, 3]])), rtol=1e-6)
    # beside counts a zero may come from either
    shop = jg.Poisson.from_values(2.0)
    counts = np.arange(30)
    assert np.exp(joined((0.3, 0.7), (atom, shop), counts)).sum() == pytest.approx(1, rel=1e-5)
    assert np.exp(joined((0.3, 0.7), (atom, shop), counts))[0] == pytest.approx(0.3 + 0.7 * np.exp(-2.0), rel=1e-5)


def test_delta():
    x = np.float32([[0, 1], [0, 2], [3, 2], [np.nan, 2]])
    model = jg.Delta.init(KEY, x, missing=True)
    np.testing.assert_array_equal(model.value, [0, 2])
    np.testing.assert_array_equal(model.log_prob(x), [-np.inf, 0, -np.inf, 0])
    statistics, _ = model.e_step(x, np.float32([1, 2, 3, 4]))
    assert float(statistics) == 6
    assert latent.maximize(model, statistics)[1] == 0
    assert jg.summary(model).endswith("0 trained of 2 scalars, 8 bytes")
    np.testing.assert_array_equal(jg.Delta.from_values(0.1).log_prob(np.array([0.1, 0.2])), [0, -np.inf])
    np.testing.assert_array_equal(jg.Delta.from_values(3.0).log_prob(np.array([3, 4])), [0, -np.inf])
    with jax.enable_x64(True):
        single = dataclasses.replace(model, value=jnp.float32([0.1, 0.2]))
        assert single.log_prob(np.array([0.1, 0.2])) == 0, "the same numbers in float64"
        assert jg.Delta.from_values(np.array([0.1])).log_prob(np.float32([0.1])) == 0


def test_punctured():
    """Events at the value add nothing to the density's fit, and are not refused."""
    x = np.concatenate([X[jg.LogNormal][:20], np.zeros((5, 2))]).astype(np.float32)
    model = jg.Punctured.init(KEY, x, jg.DiagonalGaussian.init)
    only = STEP(model.density, x[:20])[0]
    np.testing.assert_allclose(STEP(model, x)[0].density.mean, only.mean, rtol=1e-5)
    slab = jg.Punctured.from_density(jg.LogNormal.init(KEY, x[:20]), [0.0, 0.0])
    slab.check_data(x)
    with pytest.raises(jg.DataError, match="outside the support"):
        slab.check_data(x - 1)
    with pytest.raises(jg.ModelError, match="no event of the density"):
        jg.Punctured.from_density(slab.density, [0.0])
    tied = jg.Mixture.init(KEY, x, 2, functools.partial(jg.Punctured.init, leaf=functools.partial(jg.Gaussian.init,
                                                                                                   tied=True)))
    fitted = jg.fit(KEY, tied, x[:20], steps=3).model
    np.testing.assert_array_equal(fitted.components.density.raw[0], fitted.components.density.raw[1])
