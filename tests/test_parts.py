"""Parts of a model: of several kinds, with bounds in place of likelihoods, declared once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra, frozen, latent
from jaxgen.core.protocols import Kind

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
RAIN = np.where(RNG.uniform(size=600) < 0.3, 0, RNG.gamma(2.0, 1.5, size=600)).astype(np.float32)[:, None]
COUNTS = np.where(RNG.uniform(size=500) < 0.4, 0, RNG.poisson(3.0, size=500))


def rain():
    return [jg.Delta.from_values([0.0]), jg.Gamma.from_values([1.0], [1.0])]


def zero_inflated():
    return jg.Mixture.from_components([jg.Delta.from_values(0.0), jg.Poisson.from_values(2.0)])


def test_a_zero_inflated_gamma_is_a_mixture():
    """The zeros are the atom's, the others a gamma's: both have their own maximum."""
    fitted = jg.fit(KEY, jg.Mixture.from_components(rain()), RAIN)
    share, positive = float((RAIN == 0).mean()), RAIN[RAIN > 0]
    assert fitted.status.name == "CONVERGED" and fitted.history["repaired"][-1] == 0
    np.testing.assert_allclose(fitted.model.weights, [share, 1 - share], atol=1e-5)
    shape, _, scale = scipy.stats.gamma.fit(positive, floc=0)
    best = share * np.log(share) + (1 - share) * (
        np.log(1 - share) + scipy.stats.gamma.logpdf(positive, shape, scale=scale).mean()
    )
    assert abs(jg.score(KEY, fitted.model, RAIN).mean - best) < 1e-4
    drawn = np.asarray(fitted.model.sample(KEY, (2000,)))
    assert abs((drawn == 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_a_zero_inflated_poisson_by_em_and_by_gradient():
    """Zeros may be of either part; both trainings reach the maximum that scipy finds."""
    found = scipy.optimize.minimize(
        lambda p: -np.log(p[0] * (COUNTS == 0) + (1 - p[0]) * scipy.stats.poisson.pmf(COUNTS, p[1])).mean(),
        [0.5, 2.0], bounds=[(0.01, 0.99), (0.1, 9.0)],
    )  # fmt: skip
    fitted = jg.fit(KEY, zero_inflated(), COUNTS)
    descended = jg.fit(KEY, zero_inflated(), COUNTS, jg.Gradient(optimizer=optax.adam(0.05)), steps=300, batch_size=500)
    for model in (fitted.model, descended.model):
        assert abs(jg.score(KEY, model, COUNTS).mean + found.fun) < 1e-4


def test_the_gradient_outside_of_a_support_is_finite():
    mixture = jg.Mixture.from_components(rain())
    gradient = jax.grad(lambda m: m.log_prob(RAIN).sum())(mixture)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient) if leaf.dtype == np.float32)


def test_states_of_several_kinds():
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.8, 0.2], [0.3, 0.7]], rain())
    x = hmm.sample(KEY, (3,), length=80)
    fitted = jg.fit(KEY, hmm, x)
    assert np.diff(fitted.history["objective"]).min() > -1e-3
    np.testing.assert_array_equal(fitted.model.viterbi(x).path == 0, x[..., 0] == 0)
    chains = jg.Mixture.from_components(algebra.repeat(hmm, 2))  # a batch of models that hold several kinds
    assert chains.log_prob(x).shape == (3,)
    np.testing.assert_allclose(chains.log_prob(x), hmm.log_prob(x), rtol=1e-6)


def test_what_is_said_of_several_kinds(tmp_path):
    mixture = zero_inflated()
    assert latent.free_parameters(mixture) == 2 and latent.supports_em(mixture) and not latent.accepts_missing(mixture)
    assert latent.likelihood_kind(mixture) is Kind.EXACT
    jg.save(mixture, tmp_path / "model")
    np.testing.assert_array_equal(jg.load(tmp_path / "model").log_prob(COUNTS), mixture.log_prob(COUNTS))
    back = mixture.permute([1, 0])
    assert isinstance(algebra.take(back.components, 0), jg.Poisson)
    np.testing.assert_allclose(back.log_prob(COUNTS), mixture.log_prob(COUNTS), rtol=1e-6)
    held = jg.fit(KEY, mixture, COUNTS, jg.EM(frozen={"components[1]": True}), steps=3).model
    assert held.components.members[1].rate == mixture.components.members[1].rate
    restarts = jg.fit(KEY, lambda key: zero_inflated(), COUNTS, restarts=2, steps=3)
    assert restarts.scores[0] == restarts.scores[1]
    with pytest.raises(jg.DataError, match="positive"):  # an event that no kind takes
        jg.fit(KEY, jg.Mixture.from_components(rain()), -RAIN)


def test_a_batch_of_several_kinds_keeps_their_order():
    one = [jg.Poisson.from_values(r) for r in (1.0, 2.0)]
    other = jg.NegativeBinomial.from_values(3.0, 2.0)
    several = algebra.stack([one[0], other, one[1]])
    x = np.arange(5)
    rows = algebra.component_log_prob(several, x)
    for row, model in zip(rows, (one[0], other, one[1]), strict=True):
        np.testing.assert_allclose(row, model.log_prob(x), rtol=1e-6)
    mass = jnp.array([1.0, 2.0, 3.0])
    assert [part.tolist() for part in several.rows(mass)] == [[1.0, 3.0], [2.0]]
    draws = [int(algebra.sample_component(KEY, several, k)) for k in range(3)]
    assert draws == [int(algebra.sample_component(KEY, algebra.stack([m]), 0)) for m in (one[0], other, one[1])]


def test_frozen_paths_name_models_and_not_where_their_kind_is_kept():
    gammas = [jg.Gamma.from_values([m], [1.0]) for m in (1.0, 2.0)]
    hmm = jg.HMM.from_values([1.0, 0, 0], np.full((3, 3), 1 / 3), [gammas[0], jg.Delta.from_values([0.0]), gammas[1]])

    def named(model, path, which=True):
        held = jax.tree_util.tree_leaves_with_path(frozen.frozen_leaves(model, {path: which}))
        return {jax.tree_util.keystr(at)[1:]: mask[..., 0].tolist() for at, mask in held if mask.any()}

    means, shapes, value = (f"emissions.members[{i}" for i in ("0].log_mean", "0].log_shape", "1].value"))
    assert named(hmm, "emissions[2]") == {means: [False, True], shapes: [False, True]}
    assert named(hmm, "emissions[0].log_mean") == {means: [True, False]}
    assert named(hmm, "emissions.log_mean", (False, False, True)) == {means: [False, True]}
    assert named(hmm, "emissions", (False, True, True)) == {means: [False, True], shapes: [False, True], value: [True]}
    chains = jg.Mixture.from_components(algebra.repeat(hmm, 2))
    inner = named(chains, "components[1].emissions[2].log_mean")
    assert inner == {f"components.{means}": [[False, False], [False, True]]}
    for path, which in (("emissions[3]", True), ("emissions.none", True), ("emissions", (True, False))):
        with pytest.raises(jg.ModelError, match="freeze|fit"):
            named(hmm, path, which)


def test_blocks_take_the_context_of_a_product():
    """Trials come with the events; sums of successes and trials are the maximum."""
    trials = RNG.integers(1, 20, size=(300, 1)).astype(np.float32)
    x = np.stack([RNG.binomial(trials[:, 0].astype(int), 0.7), RNG.poisson(2.0, 300)], axis=1).astype(np.float32)
    product = jg.Product.from_blocks({(0,): jg.Binomial.from_values([0.5]), 1: jg.Poisson.from_values(1.0)})
    data = {"x": x, "context": trials}
    fitted = jg.fit(KEY, jg.Mixture.from_components([product]), data, steps=3).model.components.blocks
    np.testing.assert_allclose(fitted[0].probs[0], x[:, :1].sum() / trials.sum(), rtol=1e-5)
    np.testing.assert_allclose(fitted[1].rate[0], x[:, 1].mean(), rtol=1e-5)


def test_what_was_not_seen_of_several_kinds():
    """An entry that was seen at the atom's value is the atom's: a density there has another unit than its mass."""
    atom = jg.Delta.from_values([0.0, 0.0], missing=True)
    slab = dataclasses.replace(jg.DiagonalGaussian.from_values([1.0, 2.0], [1.0, 1.0]), missing=True)
    mixture = jg.Mixture.from_components([atom, jg.Punctured.from_density(slab, [0.0, 0.0])], [0.25, 0.75])
    x = np.array([[0.0, np.nan], [np.nan, np.nan], [1.0, np.nan], [0.0, 3.0]], np.float32)
    np.testing.assert_allclose(mixture.responsibilities(x)[:, 0], [1, 0.25, 0, 0], atol=1e-6)
    known = 0.75 * np.exp(-0.5 * np.array([0.0, 2.0])) / np.sqrt(2 * np.pi) ** np.array([1, 2])
    np.testing.assert_allclose(mixture.log_prob(x), np.log([0.25, 1, *known]), atol=1e-6)
    gamma = jg.Gamma(jnp.log(jnp.array([1.0, 2.0])), jnp.zeros(2), missing=True)
    filled = jg.Mixture.from_components([atom, gamma], [0.25, 0.75]).impute(x[:3])
    np.testing.assert_allclose(filled, [[0, 0], [0.75, 1.5], [1, 2]], atol=1e-6)
    with pytest.raises(jg.ModelError, match="Punctured"):
        mixture.impute(x)


def test_an_event_that_no_component_makes_belongs_to_none():
    shares = jg.Mixture.from_components(rain()).responsibilities(np.array([[-1.0], [0.0]], np.float32))
    np.testing.assert_array_equal(shares, [[0, 0], [1, 0]])


def test_moments_and_marginals_of_several_kinds():
    kinds = [jg.Gaussian.from_values([1.0, 2.0], np.eye(2)), jg.DiagonalGaussian.from_values([3.0, 4.0], [1.0, 2.0])]
    mixture = jg.Mixture.from_components(kinds, [0.5, 0.5])
    np.testing.assert_allclose(mixture.mean, [2.0, 3.0], rtol=1e-6)
    given = mixture.condition((0,), [1.0])
    joint, alone = mixture.log_prob(jnp.array([1.0, 2.5])), mixture.marginal((0,)).log_prob(jnp.array([1.0]))
    np.testing.assert_allclose(given.log_prob(jnp.array([2.5])), joint - alone, rtol=1e-5)
    with pytest.raises(jg.ModelError, match="Delta"):
        jg.Mixture.from_components(rain()).marginal((0,))
    with pytest.raises(jg.ModelError, match="not known yet"):
        jax.jit(mixture.permute)(jnp.array([1, 0]))


def test_several_kinds_in_blocks_of_components():
    """A batch of products whose blocks are mixtures of several kinds: data are looked at without numbers at hand."""
    x = np.concatenate([COUNTS[:200, None], RAIN[:200]], axis=1).astype(np.float32)
    products = [jg.Product.from_blocks({0: zero_inflated(), (1,): jg.Mixture.from_components(rain())})] * 2
    latent.check_data(jg.Mixture.from_components(products), x)


def test_products_of_posteriors_are_weighed_by_what_their_e_steps_say():
    """That is no log_prob of a block with a posterior, and responsibilities of mixtures have to go by it."""
    x = RNG.normal(0, 1, (15, 2)).astype(np.float32)
    blocks = {(0,): jg.NormalWishart.init, (1,): jg.NormalWishart.init}
    products = [jg.Product.init(KEY, x + shift, blocks) for shift in (0, 3)]
    scores = algebra.component_step_log_prob(algebra.stack(products), x)
    np.testing.assert_allclose(scores, [one.e_step(x)[1] for one in products], rtol=1e-5)


def test_starts_of_several_kinds():
    start = jg.Mixture.init(KEY, RAIN, 3, [jg.Delta.init, jg.Gamma.init, jg.Gamma.init])
    fitted = jg.fit(KEY, start, RAIN).model
    assert abs(float(fitted.weights[0]) - (RAIN == 0).mean()) < 1e-4
    low, high = np.sort(np.asarray(fitted.components.members[1].mean)[:, 0])
    assert low < RAIN[RAIN > 0].mean() < high
    hmm = jg.HMM.init(KEY, RAIN[None], 2, [jg.Delta.init, jg.Gamma.init])
    assert np.isfinite(hmm.log_prob(RAIN[None])).all()
    turned = jg.Mixture.init(KEY, RAIN, 2, [jg.Gamma.init, jg.Delta.init]).components
    np.testing.assert_allclose(turned.members[0].mean[0], RAIN[RAIN > 0].mean(), rtol=1e-5)
    for k, given in ((3, {}), (2, {"weight": np.ones(len(RAIN))})):
        with pytest.raises(jg.ModelError, match="leaves of several kinds"):
            jg.Mixture.init(KEY, RAIN, k, [jg.Delta.init, jg.Gamma.init], **given)


def test_kinds_start_with_the_context_where_they_take_one():
    """A zero-inflated binomial of known trials, whose maximum scipy finds; and its chain."""
    trials = RNG.integers(1, 9, size=(400, 1))
    x = np.where(RNG.uniform(size=(400, 1)) < 0.3, 0, RNG.binomial(trials, 0.6)).astype(np.float32)
    leaves = [functools.partial(jg.Delta.init, value=0.0), jg.Binomial.init]
    start = jg.Mixture.init(KEY, x, 2, leaves, context=trials)
    fitted = jg.fit(KEY, start, (x, trials), tolerance=0.0).model
    best = scipy.optimize.minimize(
        lambda p: -np.log(p[0] * (x == 0) + (1 - p[0]) * scipy.stats.binom.pmf(x, trials, p[1])).mean(),
        [0.5, 0.5], bounds=[(0.01, 0.99), (0.01, 0.99)],
    ).x  # fmt: skip
    np.testing.assert_allclose([fitted.weights[0], fitted.components[1].probs[0]], best, atol=1e-3)
    hmm = jg.HMM.init(KEY, x[None], 2, leaves, context=trials[None])
    assert np.isfinite(hmm.log_prob(x[None], context=trials[None])).all()


def test_selection_counts_what_stands_beside_an_atom():
    def family(key, x, k, leaf):
        parts = jg.Mixture.init(key, x, k, leaf).components
        return jg.Mixture.from_components([jg.Delta.from_values(0.0), *(algebra.take(parts, i) for i in range(k))])

    found = jg.select(KEY, COUNTS, [1, 2], {"poisson": jg.Poisson.init}, family=family, restarts=1)
    assert isinstance(found.best().model.components, algebra.Several) and found.best().k == 1


def test_a_point_beside_a_density_at_the_point_is_said():
    """The density of an exponential at zero is not zero: a number per unit of x beside a probability."""
    both = [jg.Delta.from_values([0.0]), jg.Exponential.from_values([2.0])]
    with pytest.warns(jg.JaxgenWarning, match="Punctured"):
        jg.fit(KEY, jg.Mixture.from_components(both), RAIN, steps=1)
    apart = [both[0], jg.Punctured.from_density(both[1], [0.0])]
    fitted = jg.fit(KEY, jg.Mixture.from_components(apart), RAIN, steps=20)
    assert abs(float(fitted.model.weights[0]) - (RAIN == 0).mean()) < 1e-5


# ---- bounds


@jg.model
class Affine:
    """Location and logarithm of a scale as an affine function, in place of a network."""

    weight: jax.Array
    shift: jax.Array
    log_scale: jax.Array

    def __call__(self, x):
        location = self.weight @ x + self.shift
        return jnp.stack([location, jnp.broadcast_to(self.log_scale, location.shape)])


def test_a_mixture_of_linear_vaes_has_the_likelihood_of_its_gaussians():
    """x = W z + m + noise is Gaussian; a wider posterior than the true one makes the bound no equality."""
    weight, scale = np.array([[1.0], [0.5]], np.float32), 0.7
    cov = weight @ weight.T + scale**2 * np.eye(2)
    gain = (weight.T @ np.linalg.inv(cov)).astype(np.float32)
    means = np.array([[0.0, 0.0], [3.0, -1.0]], np.float32)
    spread = np.log(1.2 * np.sqrt(1 - gain @ weight)).astype(np.float32)

    def linear(mean):
        encoder = Affine(jnp.asarray(gain), jnp.asarray(-gain @ mean), jnp.asarray(spread[0, 0]))
        decoder = Affine(jnp.asarray(weight), jnp.asarray(mean), jnp.log(jnp.float32(scale)))
        return jg.VAE(jg.StandardNormal((1,)), encoder, decoder, jg.likelihoods.gaussian, (2,))

    mixture = jg.Mixture.from_components([linear(mean) for mean in means], [0.4, 0.6])
    exact = jg.Mixture.from_components(jg.Gaussian.from_values(means, np.stack([cov, cov])), [0.4, 0.6])
    x = exact.sample(KEY, (50,))
    tight = mixture.iwae(KEY, x, samples=2000)
    np.testing.assert_allclose(tight, exact.log_prob(x), atol=0.1)  # weights vary by a fifth: .2 / sqrt(2000), times 20
    assert abs(float(jnp.mean(tight - exact.log_prob(x)))) < 0.005
    share = mixture.estimate_responsibilities(KEY, x, samples=2000)
    np.testing.assert_allclose(share, exact.responsibilities(x), atol=0.025)  # a quarter of the error of a log-ratio
    np.testing.assert_allclose(exact.estimate_responsibilities(KEY, x), exact.responsibilities(x), atol=1e-6)
    one = jnp.mean(jax.vmap(lambda key: mixture.elbo(key, x))(jax.random.split(KEY, 50)))
    assert -0.2 < float(one - jnp.mean(exact.log_prob(x))) < 0


@jg.model
class Exactly:
    """A bound on a density that is known: `log p(x)` and the noise of one draw."""

    mean: jax.Array
    event_shape = (2,)
    context_shape = None

    @jg.per_sample
    def sample(self, key):
        return self.mean + jax.random.normal(key, (2,))

    @jg.per_event
    def elbo(self, key, x):
        return self.iwae(key, x, samples=1)

    @jg.per_event
    def iwae(self, key, x, samples=50):
        """`p(x) mean_s g_s` with `E g = 1`: a log-normal weight."""
        weight = jax.random.normal(key, (samples,)) * 0.5 - 0.125
        exact = -0.5 * jnp.sum((x - self.mean) ** 2) - jnp.log(2 * jnp.pi)
        return exact + jax.nn.logsumexp(weight) - jnp.log(samples)


def bounded():
    means = jnp.array([[0.0, 0.0], [4.0, 1.0]])
    exact = jg.DiagonalGaussian.from_values(means, jnp.ones((2, 2)))
    return jg.Mixture.from_components(Exactly(means), [0.3, 0.7]), jg.Mixture.from_components(exact, [0.3, 0.7])


def test_the_exponential_of_a_mixture_of_bounds_has_the_mean_of_its_likelihood():
    bound, exact = bounded()
    x = exact.sample(KEY, (4,))
    keys = jax.random.split(KEY, 4000)
    terms = np.asarray(jax.vmap(lambda key: bound.elbo(key, x))(keys), np.float64)
    ratio = np.exp(terms - np.asarray(exact.log_prob(x), np.float64))
    assert np.abs(ratio.mean(axis=0) - 1).max() < 4 * ratio.std(axis=0).max() / np.sqrt(4000)
    assert terms.mean() < np.asarray(exact.log_prob(x)).mean()  # a lower bound in the mean
    tight = np.asarray(bound.iwae(KEY, x, samples=4000))
    np.testing.assert_allclose(tight, exact.log_prob(x), atol=0.05)  # noise of .5 / sqrt(4000) times four and more


def test_a_mixture_of_bounds_is_scored_and_trained_as_one():
    bound, exact = bounded()
    x = exact.sample(KEY, (500,))
    score = jg.score(KEY, bound, x, samples=8)
    assert score.kind is Kind.LOWER_BOUND and latent.likelihood_kind(bound) is Kind.LOWER_BOUND
    assert not latent.supports_em(bound)
    start = dataclasses.replace(bound, components=Exactly(jnp.array([[1.0, 0.0], [3.0, 0.0]])))
    fitted = jg.fit(KEY, start, x, steps=400)
    assert type(fitted.state).__name__ == "GradientState"
    np.testing.assert_allclose(np.sort(fitted.model.components.mean[:, 0]), [0, 4], atol=1.0)
    with pytest.raises(jg.ModelError, match="elbo"):
        bound.log_prob(x)
    with pytest.raises(jg.ModelError, match="estimate_responsibilities"):
        bound.responsibilities(x)


@jg.model
class Root:
    """A density from 0 on, `log p(x) = -sum_d sqrt(s x_d)` and a constant: below, its gradient is NaN."""

    scale: jax.Array
    event_shape = (2,)

    @jg.per_sample
    def sample(self, key):
        return self.scale + jnp.zeros(2)

    @jg.per_event
    def log_prob(self, x, *, context=None):
        return jnp.where(jnp.all(x >= 0), -jnp.sum(jnp.sqrt(self.scale * x)), -jnp.inf)


def test_the_gradient_of_a_bound_outside_of_a_support_is_finite():
    mixture = jg.Mixture.from_components([Exactly(jnp.zeros(2)), Root(jnp.ones(()))])
    x = jnp.array([[-1.0, 2.0], [1.0, 2.0]])
    gradient = jax.grad(lambda mixture: mixture.elbo(KEY, x).sum())(mixture)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_chains_products_and_flows_of_bounds():
    bound, exact = bounded()
    emissions = [Exactly(jnp.zeros(2)), Exactly(jnp.full(2, 3.0))]
    move = [[0.8, 0.2], [0.3, 0.7]]
    hmm = jg.HMM.from_values([0.5, 0.5], move, emissions)
    known = jg.HMM.from_values(
        [0.5, 0.5], move, jg.DiagonalGaussian.from_values([[0.0, 0.0], [3.0, 3.0]], np.ones((2, 2)))
    )
    x = known.sample(KEY, (3,), length=6)
    keys = jax.random.split(KEY, 3000)
    terms = np.asarray(jax.vmap(lambda key: hmm.elbo(key, x))(keys), np.float64)
    ratio = np.exp(terms - np.asarray(known.log_prob(x), np.float64))
    # the weight of six steps has a variance of about exp(6 / 4)
    assert np.abs(ratio.mean(axis=0) - 1).max() < 5 * ratio.std(axis=0).max() / np.sqrt(3000)
    assert jg.score(KEY, hmm, x).kind is Kind.LOWER_BOUND
    product = jg.Product.from_blocks({(0, 1): bound, 2: jg.Poisson.from_values(1.0)})
    assert latent.likelihood_kind(product) is Kind.LOWER_BOUND
    row = jnp.array([[0.0, 1.0, 2.0]])
    expected = exact.log_prob(row[:, :2]) + jg.Poisson.from_values(1.0).log_prob(row[:, 2])
    np.testing.assert_allclose(product.iwae(KEY, row, samples=4000), expected, atol=0.05)
    flow = jg.Flow(bound, jg.bijections.Affine(jnp.ones(2), jnp.log(2.0) * jnp.ones(2)))
    straight = jg.Flow(exact, flow.bijection)
    np.testing.assert_allclose(flow.iwae(KEY, row[:, :2], samples=4000), straight.log_prob(row[:, :2]), atol=0.05)
    assert jg.score(KEY, flow, row[:, :2]).kind is Kind.LOWER_BOUND


def test_energies_are_refused_as_components():
    machine = jg.RBM.from_values(jnp.zeros(3), jnp.zeros(2), jnp.zeros((3, 2)))
    with pytest.raises(jg.ModelError, match="known up to a constant"):
        jg.Mixture.from_components([machine, machine])
    with pytest.raises(jg.ModelError, match="known up to a constant"):
        jg.HMM.from_values([0.5, 0.5], np.full((2, 2), 0.5), [machine, machine])


def test_a_mixture_of_vaes_trains_by_its_bound():
    x = jnp.concatenate([jax.random.normal(KEY, (60, 2)), jax.random.normal(KEY, (60, 2)) + 8])
    likelihood = jg.likelihoods.gaussian
    make = functools.partial(jg.VAE.init, prior=jg.StandardNormal((1,)), hidden=(8,), likelihood=likelihood)
    mixture = jg.Mixture.from_components([make(key, x) for key in jax.random.split(KEY, 2)])
    fitted = jg.fit(KEY, mixture, x, steps=30)
    assert fitted.status.name == "FINISHED" and fitted.history["loss"][-1] < fitted.history["loss"][0]
    assert jg.score(KEY, fitted.model, x, samples=5).kind is Kind.LOWER_BOUND
    assert fitted.model.sample(KEY, (3,)).shape == (3, 2)
