"""The registry of the laws: one small case per model class. A model class without a case fails the suite.

A case makes a model of two events' worth of structure with every trained leaf moved off its start, so that no law holds
only because parameters are zero.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from case import Case, every, grid, moved

import jaxgen as jg
from jaxgen.bijections import Coupling, Interval, Vmap
from jaxgen.core import algebra
from jaxgen.core.exchange import distrax
from jaxgen.core.files import loadable
from jaxgen.nn.critics import ProjectionCritic
from jaxgen.nn.mlp import MLP
from jaxgen.ops.conjugate import NormalInverseWishart
from jaxgen.tasks.margins import Margin


def gaussian(key):
    return moved(key, jg.Gaussian.from_values([0.5, -0.5], [[1.0, 0.3], [0.3, 0.8]]))


def tied_with_prior(key):
    prior = NormalInverseWishart.from_values([0.0, 0.0], 0.5, [[1.0, 0.0], [0.0, 1.0]], 5.0)
    means = [[0.5, -0.5], [2.0, 1.0]]
    leaf = jg.Gaussian.from_values(means, [[[1.0, 0.3], [0.3, 0.8]]] * 2, prior=prior, tied=True)
    return jg.Mixture.from_components(leaf, [0.4, 0.6], prior=2.0)


def kinds(key):
    """Two Poissons with more zeros than they have."""
    rates = jnp.exp(0.3 * jax.random.normal(key, (2,)))
    parts = [jg.Delta.from_values(0.0), jg.Poisson.from_values(2 * rates[0]), jg.Poisson.from_values(6 * rates[1])]
    return jg.Mixture.from_components(parts, [0.3, 0.3, 0.4])


def low_rank(key):
    return moved(key, jg.LowRankGaussian.from_values([0.5, -0.5], [[0.8], [0.4]], [0.5, 0.7]))


def diagonal(key):
    return moved(key, jg.DiagonalGaussian.from_values([0.5, -0.5], [1.0, 0.7]))


def student(key):
    # tails light enough for an integral over a box
    return moved(key, jg.StudentT.from_values([0.5, -0.5], [[1.0, 0.3], [0.3, 0.8]], 20.0), 0.2)


def table(key):
    first, second = jax.random.split(key)
    label = moved(first, jg.Categorical.from_values([0.2, 0.3, 0.5]))
    return jg.Product.from_blocks([((0, 2), gaussian(second)), (1, label)])


@loadable
def laplace(params):
    return distrax().Laplace(params["loc"], jnp.exp(params["log_scale"]))


def from_distrax(key):
    return moved(key, jg.DistraxLeaf.from_values({"loc": jnp.ones(2), "log_scale": jnp.full(2, -0.5)}, laplace, (2,)))


def regression(key):
    cov = [[1.0, 0.3], [0.3, 0.8]]
    return moved(key, jg.LinearRegression.from_values([[0.5, -0.3], [0.2, 0.4]], [0.5, -0.5], cov))


def batch_of(make, k=2):
    """K models of one kind as one model with a leading axis."""
    return lambda key: algebra.stack([make(one) for one in jax.random.split(key, k)])


def mixture(make, k=2):
    return lambda key: moved(key, jg.Mixture.from_components(batch_of(make, k)(key)), 0.1)


def variational(leaf, stick_breaking):
    def build(key):
        first, second = jax.random.split(key)
        x = jax.random.normal(first, (80, 2)) + jnp.where(jnp.arange(80)[:, None] < 40, 2.0, -1.0)
        return jg.VariationalMixture.init(second, x, 2, leaf, concentration=2.0, stick_breaking=stick_breaking)

    return build


def categorical(key):
    return moved(key, jg.Categorical.from_values([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]))


def bernoulli(key):
    return moved(key, jg.Bernoulli.from_values([0.3, 0.6, 0.5]))


def poisson(key):
    return moved(key, jg.Poisson.from_values([1.5, 3.0]))


def negative_binomial(key):
    return moved(key, jg.NegativeBinomial.from_values([1.5, 3.0], [2.0, 4.0]))


def gamma(key):
    return moved(key, jg.Gamma.from_values([1.0, 2.0], [8.0, 10.0]), 0.2)


def beta(key):
    return moved(key, jg.Beta.from_values([3.0, 2.5], [2.5, 4.0]), 0.1)


def binomial(key):
    return moved(key, jg.Binomial.from_values([0.3, 0.6]))


def trials(key, shape):
    return jax.random.randint(key, shape, 0, 5).astype(jnp.float32)


def multinomial(key):
    return moved(key, jg.Multinomial.from_values([0.2, 0.3, 0.5], 4))


def sizes(key, shape):
    """Standard deviations of errors."""
    return jnp.abs(jax.random.normal(key, shape))


def near(key, shape):
    """Means and raw log-scales that keep a normal within the plane, and wider than its grid."""
    return 0.3 * jax.random.normal(key, shape)


def noisy_gaussian(key):
    return moved(key, jg.NoisyGaussian.from_values([0.5, -0.5], [[1.0, 0.3], [0.3, 0.8]]))


def punctured(key):
    return jg.Punctured.from_density(gaussian(key), [0.5, -0.5])


def von_mises(key):
    return moved(key, jg.VonMises.from_values([0.5, -2.0], [1.0, 4.0]))


def chain(key):
    move = [[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.3, 0.3, 0.4]]
    return moved(key, jg.MarkovChain.from_values([0.5, 0.3, 0.2], move, transition_prior=1.5))


def hmm(make):
    def build(key):
        first, second = jax.random.split(key)
        model = jg.HMM.from_values([0.6, 0.4], [[0.8, 0.2], [0.3, 0.7]], batch_of(make)(first))
        return moved(second, model, 0.1)

    return build


def left_right(key):
    first, second = jax.random.split(key)
    move = [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    return moved(second, jg.HMM.from_values([0.6, 0.4, 0.0], move, batch_of(categorical, 3)(first)))


def inputs(key):
    first, second, third = jax.random.split(key, 3)
    move = [[0.7, 0.3, 0.0], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]]
    weight = 0.5 * jax.random.normal(third, (3, 3, 2))
    chain = jg.InputChain.from_values([0.5, 0.5, 0.0], move, weight, center=[0.1, 0.2])
    return moved(second, jg.HMM.from_chain(chain, batch_of(categorical, 3)(first)), 0.2)


def semi_markov(key):
    first, second = jax.random.split(key)
    chain = jg.SemiMarkovChain.from_values(None, None, [[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], duration_prior=1.5)
    return moved(second, jg.HMM.from_chain(chain, batch_of(categorical, 3)(first), tie=chain.tie), 0.2)


def rbm(key):
    first, second = jax.random.split(key)
    return moved(first, jg.RBM.from_values(jnp.zeros(4), jnp.zeros(3), jax.random.normal(second, (4, 3))))


def rbm_of_reals(key):
    first, second = jax.random.split(key)
    reals = jg.units.Gaussian.from_values([1.0, -2.0, 0.5], [0.5, 2.0, 1.0])
    weights = 0.5 * jax.random.normal(second, (3, 2))
    return moved(first, jg.RBM.from_units(reals, jg.units.Bernoulli.zeros(2), weights), 0.2)


def rbm_with_label(key):
    """Every other kind of unit, and centres away from zero."""
    first, second = jax.random.split(key)
    visible = jg.units.Group.of(jg.units.Categorical.zeros(1, 3), jg.units.Bernoulli.zeros(2))
    hidden = jg.units.Group.of(jg.units.Spin.zeros(2), jg.units.Rectified.zeros(1))
    weights, centers = jax.random.normal(second, (5, 3)), {"visible_center": [0.2, 0.3, 0.5, 0.4, 0.6]}
    return moved(first, jg.RBM.from_units(visible, hidden, weights, **centers, hidden_center=[0.1, -0.2, 0.8]))


def ising(key):
    """Two triangles with an edge in common, and a site for itself."""
    first, second = jax.random.split(key)
    edges = [[0, 1], [1, 2], [0, 2], [1, 3], [2, 3]]
    field = jg.RandomField.ising(edges, jax.random.normal(second, (5,)), field=jnp.zeros(5))
    return moved(first, field, 0.3)


def potts(key):
    return moved(key, jg.RandomField.potts([[0, 1], [1, 2], [0, 2]], [1.0, -0.5, 0.7], 3), 0.3)


def deep_boltzmann(key):
    first, second, third = jax.random.split(key, 3)
    layers = [jg.units.Bernoulli.zeros(2), jg.units.Bernoulli.zeros(2), jg.units.Spin.zeros(2)]
    weights = [jax.random.normal(second, (2, 2)), jax.random.normal(third, (2, 2))]
    centers = [[0.4, 0.6], [0.5, 0.3], [0.1, -0.2]]
    return moved(first, jg.DeepBoltzmann.from_layers(layers, weights, centers=centers))


def deep_belief(key):
    first, second = jax.random.split(key)
    bits = lambda n: jg.units.Bernoulli.zeros(n)  # noqa: E731
    below = jg.RBM.from_units(bits(3), bits(2), jax.random.normal(first, (3, 2)))
    return jg.DeepBelief.from_machines([below, jg.RBM.from_units(bits(2), bits(2), jax.random.normal(second, (2, 2)))])


def energies(key):
    first, second, third = jax.random.split(key, 3)
    net = MLP((8, 1), jax.nn.silu)
    x = jax.random.normal(first, (8, 2))
    made = jg.EnergyModel.init(second, x, diagonal(first), network=net, sampler=jg.samplers.MALA(0.2), moves=2)
    return moved(third, made, 0.3)


def realnvp(base=None, context=None):
    def build(key):
        first, second, third = jax.random.split(key, 3)
        x = jax.random.normal(first, (64, 2)) * jnp.array([1.5, 0.7]) + 0.3
        own = jg.StandardNormal((2,)) if base is None else base(third)
        layer = functools.partial(Coupling.init, features=(8,), context_shape=context)
        flow = jg.Flow.init(second, x, own, layer, layers=2)
        return moved(third, flow, 0.1)

    return build


def dequantized(key):
    first, second, third = jax.random.split(key, 3)
    layer = functools.partial(Coupling.init, features=(8,), context_shape=(2,))
    unit = Interval(0.0, 1.0)
    noise = lambda key, u: jg.Flow.init(key, u, jg.StandardNormal((2,)), layer, layers=2, support=unit)  # noqa: E731
    density = lambda key, y: jg.DiagonalGaussian.from_values([2.0, 1.5], [1.0, 0.7])  # noqa: E731
    x = jax.random.randint(first, (32, 2), 0, 4)
    return moved(third, jg.Dequantized.init(second, x, density, noise=noise, high=3), 0.1)


def warped(key):
    first, second = jax.random.split(key)
    layer = moved(second, Coupling.init(second, jnp.zeros((1, 2)), features=(8,)), 0.3)
    return jg.Flow(hmm(diagonal)(first), Vmap(layer))


def vae(prior=lambda key: jg.StandardNormal((2,)), likelihood=jg.likelihoods.bernoulli, shape=(2, 3)):
    def build(key):
        first, second, third, fourth = jax.random.split(key, 4)
        x = jax.random.bernoulli(first, 0.5, (32, *shape)).astype(jnp.float32)
        return moved(second, jg.VAE.init(third, x, prior(fourth), hidden=(8,), likelihood=likelihood), 0.1)

    return build


def sequences_of_latents(key):
    first, second, third = jax.random.split(key, 3)
    x = jax.random.normal(first, (16, 3, 2))
    return moved(second, jg.VAE.init(third, x, hmm(diagonal)(first), hidden=(4,), likelihood=jg.likelihoods.gaussian))


def aggregate(key):
    return jg.Aggregate(near(key, (3, 2, 2)), jnp.zeros(3), jg.posteriors.ConditionalNormal((2,)))


def with_pseudo_inputs(key):
    x = jax.random.bernoulli(key, 0.5, (32, 6)).astype(jnp.float32)
    prior = jg.VampPrior.init(key, x, 3, (2,), weights=True)
    return moved(key, jg.VAE.init(key, x, prior, hidden=(8,)), 0.1)


def ladder(key):
    return moved(key, jg.Ladder.init(key, (1, 1), hidden=(8,)), 0.2)


def semi_supervised(key):
    first, second = jax.random.split(key)
    x = jax.random.normal(first, (16, 2))
    vae = jg.VAE.init(first, x, jg.StandardNormal((1,)), hidden=(4,), likelihood=jg.likelihoods.gaussian,
                      context_shape=(3,))  # fmt: skip
    return moved(second, jg.SemiSupervised.init(second, x, vae, hidden=(4,)))


def quantized(key):
    """Codes of a prior that is not the uniform one that `init` gives."""
    first, second, third, fourth = jax.random.split(key, 4)
    x = jax.random.bernoulli(first, 0.5, (32, 4)).astype(jnp.float32)
    prior = jg.Categorical(jax.random.normal(second, (2, 3)))
    return moved(third, jg.VQVAE.init(fourth, x, 3, grid=(2,), features=2, hidden=(8,), prior=prior), 0.1)


def regularized(key):
    first, second, third = jax.random.split(key, 3)
    x = jax.random.normal(first, (32, 4))
    noise = jg.likelihoods.GaussianOfScale(0.5)
    return moved(second, jg.RAE.init(third, x, 2, hidden=(8,), likelihood=noise, prior=gaussian(third)), 0.1)


def generator(key):
    first, second, third = jax.random.split(key, 3)
    x = jax.random.normal(third, (16, 2))
    return moved(first, jg.Generator.init(second, x, jg.StandardNormal((2,)), hidden=(8,)), 0.1)


def relaxed(key):
    return jg.Relaxed.from_hmm(hmm(gaussian)(key), 3)


def conditional_generator(key):
    first, second, third = jax.random.split(key, 3)
    x = jax.random.normal(third, (16, 2))
    options = {"hidden": (8,), "context_shape": (3,), "context_optional": True}
    return moved(first, jg.Generator.init(second, x, jg.StandardNormal((2,)), **options), 0.1)


def bounded_slope(key):
    made = generator(key)
    return dataclasses.replace(made, net=jg.nn.Spectral.init(key, MLP((8, 2)), (2,)))


def tilted_by_a_ratio(key):
    made = energies(key)
    return dataclasses.replace(made, net=jg.tasks.Ratio(made.net, (jnp.zeros(2), jnp.ones(2)), (2,)))


def made_table(key):
    values = np.array([0.0, 1.0, 2.5])
    ranks = (values.view(np.int32).reshape(-1, 2),) * 2, (np.array([1, 2, 1], np.int32),) * 2
    margins = tuple(Margin(name, "number", "float64", decimals=1) for name in "ab")
    return jg.tasks.Synthesizer(gaussian(key), *ranks, margins)


PLANE = grid(-12.0, 12.0, 200)
ANGLES = 2 * np.pi * (np.arange(4000) + 0.5) / 4000
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), 2 * np.pi / 4000
#: two measurements with a label between them
LABELLED = (
    np.concatenate([np.insert(grid(-12.0, 12.0, 100)[0], 1, label, axis=1) for label in range(3)]), 0.24**2
)  # fmt: skip
BITS = (0, 1)
#: two bits and two spins
BITS_AND_SPINS = (np.array(list(itertools.product(BITS, BITS, (-1, 1), (-1, 1)))), 1.0)
#: a label of three and two bits
LABEL_AND_BITS = (np.array(list(itertools.product(range(3), BITS, BITS))), 1.0)
CASES = [
    Case("standard normal", lambda key: jg.StandardNormal((2,)), PLANE),
    Case("gaussian", gaussian, PLANE),
    Case("diagonal gaussian", diagonal, PLANE),
    Case("table made of ranks", made_table, PLANE),
    Case("categorical", categorical, every((0, 1, 2), (2,))),
    Case("bernoulli", bernoulli, every(BITS, (3,))),
    Case("poisson", poisson, every(range(40), (2,))),
    Case("poisson of many coordinates", lambda key: moved(key, jg.Poisson.from_values(jnp.linspace(0.5, 3.0, 12)))),
    Case("negative binomial", negative_binomial, every(range(80), (2,))),
    Case("gamma", gamma, grid(0.0, 16.0, 250)),
    Case("exponential", lambda key: moved(key, jg.Exponential.from_values([1.0, 2.0]), 0.1), grid(0.0, 25.0, 500),
         tolerance=5e-4),  # steep at zero
    Case("log normal", lambda key: moved(key, jg.LogNormal.from_values([1.0, 2.0], [0.4, 0.3]), 0.1),
         grid(0.0, 12.0, 300)),
    Case("laplace", lambda key: moved(key, jg.Laplace.from_values([0.5, -0.5], [0.7, 0.5])), PLANE, tolerance=5e-3),
    Case("beta", beta, grid(0.0, 1.0, 300)),
    Case("binomial", binomial, every(range(5), (2,)), context=(2,), draw=trials),
    Case("multinomial", multinomial, (np.array([x for x in itertools.product(range(5), repeat=3) if sum(x) == 4]), 1)),
    Case("delta", lambda key: jg.Delta.from_values([0.0, 1.5]), (np.array([[0.0, 1.5]]), 1.0)),
    Case("punctured gaussian", punctured, PLANE),
    Case("mixture of noisy gaussians", mixture(noisy_gaussian), PLANE, context=(2,), draw=sizes),
    Case("von mises", von_mises, grid(-np.pi, np.pi, 100)),
    Case("full normal", lambda key: jg.FullNormal((2,)), PLANE, context=(3, 2), draw=near),
    Case("von mises-fisher", lambda key: jg.VonMisesFisher((2,)), CIRCLE, context=(3,)),
    Case("uniform", lambda key: jg.Uniform.from_values([-1.0, 0.5], [2.0, 3.0]), grid(-4.0, 4.0, 256)),
    Case("uniform sphere", lambda key: jg.UniformSphere((2,)), CIRCLE),
    # a temperature at which the box has all of the tails
    Case("relaxed bernoulli", lambda key: jg.RelaxedBernoulli((2,), 2.0), PLANE, context=(2,)),
    Case("relaxed categorical", lambda key: jg.RelaxedCategorical((3,), logits=jax.random.normal(key, (3,)))),
    Case("enumerated bernoulli", lambda key: jg.EnumeratedBernoulli((3,)), every(BITS, (3,)), context=(3,)),
    Case("enumerated categorical", lambda key: jg.EnumeratedCategorical((3,), jax.random.normal(key, (3,))),
         (np.eye(3), 1.0)),
    Case("mixture of gaussians", mixture(gaussian), PLANE),
    Case("mixture of tied gaussians with priors", tied_with_prior, PLANE),
    Case("mixture of low-rank gaussians", mixture(low_rank), PLANE),
    Case("mixture of diagonal gaussians", mixture(diagonal, 3), PLANE),
    Case("mixture of bernoullis", mixture(bernoulli), every(BITS, (3,))),
    Case("mixture of mixtures", mixture(mixture(diagonal)), PLANE),
    Case("variational mixture", variational(jg.NormalWishart.init, True), PLANE),
    Case("variational mixture, diagonal", variational(jg.NormalWishart.init_diagonal, False), PLANE),
    Case("mixture of student ts", mixture(student), PLANE),
    Case("mixture of kinds", kinds, (np.arange(60.0), 1.0)),
    Case("mixture of products", mixture(table), LABELLED),
    Case("mixture of regressions", mixture(regression), PLANE, context=(2,)),
    # a cusp between the points of the grid
    Case("mixture of distrax leaves", mixture(from_distrax), PLANE, tolerance=5e-3),
    Case("markov chain", chain, every((0, 1, 2), (3,)), length=3),
    Case("hmm of categoricals", hmm(categorical), every((0, 1, 2), (3, 2)), length=3),
    Case("hmm with impossible transitions", left_right, every((0, 1, 2), (3, 2)), length=3),
    Case("hmm of poissons", hmm(poisson), length=3),
    Case("hmm of gaussians", hmm(gaussian), length=3),
    Case("hmm with inputs", inputs, every((0, 1, 2), (3, 2)), length=3, context=(3, 2)),
    Case("hmm with durations", semi_markov, every((0, 1, 2), (3, 2)), length=3),
    Case("rbm", rbm, every(BITS, (4,)), algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("rbm of reals", rbm_of_reals, algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("rbm with a label", rbm_with_label, LABEL_AND_BITS, algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("ising", ising, every((-1, 1), (5,)), algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("potts", potts, every((0, 1, 2), (3,)), algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("deep boltzmann", deep_boltzmann, BITS_AND_SPINS, algorithm=jg.ContrastiveDivergence(chains=8)),
    Case("deep belief", deep_belief),
    Case("energy model", energies, algorithm=jg.ContrastiveDivergence(optax.adam(1e-3), chains=8)),
    Case("realnvp", realnvp(), PLANE),
    Case("realnvp with context", realnvp(context=(3,)), PLANE, context=(3,)),
    Case("vae, bernoulli", vae()),
    Case("vae, gaussian", vae(likelihood=jg.likelihoods.gaussian)),
    Case("vae of sequences", sequences_of_latents, length=3),
    Case("semi-supervised", semi_supervised),
    Case("conditional normal", lambda key: jg.posteriors.ConditionalNormal((2,)), PLANE, context=(2, 2), draw=near),
    Case("quantized autoencoder", quantized),
    Case("regularized autoencoder", regularized),
    Case("dequantized", dequantized),
    Case("aggregate posterior", aggregate, PLANE),
    Case("vae with pseudo-inputs", with_pseudo_inputs),
    Case("ladder", ladder, PLANE, tolerance=1e-3),  # its tails reach beyond the box
    Case("relaxed chain", relaxed, algorithm=jg.Adversarial(critic=MLP((8, 1), in_shape=(3, 2)))),
    Case("generator", generator, algorithm=jg.Adversarial(critic=MLP((8, 1)))),
    Case("conditional generator", conditional_generator, context=(3,),
         algorithm=jg.Adversarial(critic=ProjectionCritic(MLP((8, 8))))),
    Case("generator of bounded slope", bounded_slope, algorithm=jg.Adversarial(critic=MLP((8, 1)))),
    Case("energy of a ratio", tilted_by_a_ratio, algorithm=jg.ContrastiveDivergence(optax.adam(1e-3), chains=8)),
    # compositions
    Case("mixture of flows", mixture(realnvp()), PLANE),
    Case("mixture of conditional flows", mixture(realnvp(context=(3,))), PLANE, context=(3,)),
    Case("hmm of mixtures", hmm(mixture(gaussian)), length=3),
    Case("hmm of flows", hmm(realnvp()), length=3),
    Case("mixture of hmms", mixture(hmm(bernoulli)), every(BITS, (3, 3)), length=3),
    Case("flow on a mixture", realnvp(mixture(diagonal)), PLANE),
    Case("flow on a flow", realnvp(realnvp()), PLANE, tolerance=1e-3),  # its tails reach beyond the box
    Case("flow on a hmm", warped, length=3),
    Case("vae with a mixture prior", vae(mixture(diagonal))),
    Case("vae with a flow prior", vae(realnvp())),
]
