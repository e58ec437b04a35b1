from . import (
    bijections as bijections,
    data as data,
    games as games,
    likelihoods as likelihoods,
    losses as losses,
    metrics as metrics,
    nn as nn,
    ops as ops,
    plot as plot,
    posteriors as posteriors,
    recipes as recipes,
    samplers as samplers,
    tasks as tasks,
    units as units,
    watch as watch,
)
from ._version import __version__ as __version__
from .annealing import Trajectory as Trajectory
from .core.algorithms import Algorithm as Algorithm
from .core.compiled import keep_programs as keep_programs
from .core.errors import (
    DataError as DataError,
    FileError as FileError,
    FitError as FitError,
    JaxgenError as JaxgenError,
    JaxgenWarning as JaxgenWarning,
    ModelError as ModelError,
    ShapeError as ShapeError,
)
from .core.files import load as load, save as save
from .core.inputs import Batch as Batch
from .core.methods import (
    per_batch as per_batch,
    per_event as per_event,
    per_latent as per_latent,
    per_sample as per_sample,
    weighted_events as weighted_events,
)
from .core.protocols import (
    Bound as Bound,
    Density as Density,
    Energy as Energy,
    Implicit as Implicit,
    Kind as Kind,
    Latent as Latent,
)
from .core.pytree import (
    fixed as fixed,
    model as model,
    part as part,
    parts as parts,
    static as static,
    summary as summary,
)
from .core.scores import Score as Score
from .core.sequences import Sequences as Sequences
from .core.value import algorithm as algorithm
from .fit.adversarial import Adversarial as Adversarial
from .fit.averages import Average as Average, PowerAverage as PowerAverage
from .fit.behind import fit_prior as fit_prior
from .fit.contrastive import ContrastiveDivergence as ContrastiveDivergence
from .fit.driver import fit as fit
from .fit.em import EM as EM
from .fit.factor import FactorVAE as FactorVAE
from .fit.fitted import Fitted as Fitted
from .fit.gradient import Gradient as Gradient
from .fit.greedy import fit_greedy as fit_greedy
from .fit.loop import Status as Status
from .fit.negative import (
    FromData as FromData,
    Persistent as Persistent,
    Replay as Replay,
    Tempered as Tempered,
)
from .fit.penalties import Decay as Decay, Sparsity as Sparsity
from .fit.scan import ScanFit as ScanFit, scan_fit as scan_fit
from .fit.stepwise import StepwiseEM as StepwiseEM
from .imputation import impute as impute, sample_from as sample_from
from .metrics.align import align as align
from .metrics.errors import standard_errors as standard_errors
from .metrics.information import aic as aic, bic as bic, entropy as entropy, icl as icl
from .metrics.laws import check as check
from .metrics.likelihood import score as score
from .models.chains.hmm import HMM as HMM
from .models.chains.input_chain import InputChain as InputChain
from .models.chains.markov import MarkovChain as MarkovChain
from .models.chains.relaxed import Relaxed as Relaxed
from .models.chains.semi_markov import SemiMarkovChain as SemiMarkovChain
from .models.densities.aggregate import Aggregate as Aggregate, VampPrior as VampPrior
from .models.densities.bernoulli import Bernoulli as Bernoulli
from .models.densities.beta import Beta as Beta
from .models.densities.binomial import Binomial as Binomial
from .models.densities.categorical import Categorical as Categorical
from .models.densities.delta import Delta as Delta
from .models.densities.dequantized import Dequantized as Dequantized
from .models.densities.diagonal_gaussian import DiagonalGaussian as DiagonalGaussian
from .models.densities.enumerated import (
    EnumeratedBernoulli as EnumeratedBernoulli,
    EnumeratedCategorical as EnumeratedCategorical,
)
from .models.densities.exponential import Exponential as Exponential
from .models.densities.external import DistraxLeaf as DistraxLeaf
from .models.densities.full_normal import FullNormal as FullNormal
from .models.densities.gamma import Gamma as Gamma
from .models.densities.gaussian import Gaussian as Gaussian
from .models.densities.laplace import Laplace as Laplace
from .models.densities.log_normal import LogNormal as LogNormal
from .models.densities.low_rank import LowRankGaussian as LowRankGaussian
from .models.densities.multinomial import Multinomial as Multinomial
from .models.densities.negative_binomial import NegativeBinomial as NegativeBinomial
from .models.densities.noisy_gaussian import NoisyGaussian as NoisyGaussian
from .models.densities.normal_wishart import NormalWishart as NormalWishart
from .models.densities.poisson import Poisson as Poisson
from .models.densities.punctured import Punctured as Punctured
from .models.densities.regression import LinearRegression as LinearRegression, lagged as lagged
from .models.densities.relaxed import (
    RelaxedBernoulli as RelaxedBernoulli,
    RelaxedCategorical as RelaxedCategorical,
)
from .models.densities.standard_normal import StandardNormal as StandardNormal
from .models.densities.student import StudentT as StudentT
from .models.densities.uniform import Uniform as Uniform
from .models.densities.von_mises import VonMises as VonMises
from .models.densities.von_mises_fisher import (
    UniformSphere as UniformSphere,
    VonMisesFisher as VonMisesFisher,
)
from .models.energy.deep_belief import DeepBelief as DeepBelief
from .models.energy.deep_boltzmann import DeepBoltzmann as DeepBoltzmann
from .models.energy.energy_model import EnergyModel as EnergyModel
from .models.energy.random_field import RandomField as RandomField
from .models.energy.rbm import RBM as RBM
from .models.latent.mixture import Mixture as Mixture
from .models.latent.product import Product as Product
from .models.latent.variational import VariationalMixture as VariationalMixture
from .models.neural.autoencoder import RAE as RAE
from .models.neural.flow import Flow as Flow
from .models.neural.gan import Generator as Generator
from .models.neural.ladder import Ladder as Ladder
from .models.neural.semi_supervised import SemiSupervised as SemiSupervised
from .models.neural.vae import VAE as VAE
from .models.neural.vqvae import VQVAE as VQVAE
from .nn.net import Net as Net
from .ops.conjugate import NormalInverseWishart as NormalInverseWishart
from .selection import (
    Candidate as Candidate,
    Selection as Selection,
    gaussian_leaves as gaussian_leaves,
    select as select,
)
