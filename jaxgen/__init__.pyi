from . import bijections, data, losses, metrics, nn, ops, plot, recipes, units
from .annealing import Trajectory
from .core.errors import (
    DataError,
    FileError,
    FitError,
    JaxgenError,
    JaxgenWarning,
    ModelError,
    ShapeError,
)
from .core.files import load, save
from .core.inputs import Batch
from .core.methods import per_batch, per_event, per_latent, per_sample, weighted_events
from .core.protocols import (
    Algorithm,
    Bound,
    Density,
    Energy,
    Implicit,
    Kind,
    Latent,
    Score,
)
from .core.pytree import fixed, model, static, summary
from .core.sequences import Sequences
from .core.value import algorithm
from .fit.adversarial import Adversarial
from .fit.contrastive import ContrastiveDivergence
from .fit.driver import Fitted, fit
from .fit.em import EM
from .fit.gradient import Gradient
from .fit.greedy import fit_greedy
from .fit.loop import ScanFit, Status, scan_fit
from .fit.negative import FromData, Persistent, Relayed, Replay, Tempered
from .fit.penalties import Decay, Sparsity
from .fit.stepwise import StepwiseEM
from .imputation import impute
from .metrics.align import align
from .metrics.errors import standard_errors
from .metrics.information import aic, bic, entropy, icl
from .metrics.likelihood import score
from .models.chains.hmm import HMM, MarkovChain
from .models.chains.input_chain import InputChain
from .models.chains.semi_markov import SemiMarkovChain
from .models.densities.dequantized import Dequantized
from .models.densities.discrete import Bernoulli, Categorical, Poisson
from .models.densities.external import DistraxLeaf
from .models.densities.gamma import Gamma
from .models.densities.gaussian import DiagonalGaussian, Gaussian, StandardNormal
from .models.densities.low_rank import LowRankGaussian
from .models.densities.negative_binomial import NegativeBinomial
from .models.densities.normal_wishart import NormalWishart
from .models.densities.regression import LinearRegression, lagged
from .models.densities.student import StudentT
from .models.densities.von_mises import VonMises
from .models.energy.deep_belief import DeepBelief
from .models.energy.deep_boltzmann import DeepBoltzmann
from .models.energy.energy_model import EnergyModel
from .models.energy.random_field import RandomField
from .models.energy.rbm import RBM
from .models.latent.mixture import Mixture
from .models.latent.product import Product
from .models.latent.variational import VariationalMixture
from .models.neural.flow import Flow
from .models.neural.gan import Generator
from .models.neural.vae import VAE
from .nn.net import Net
from .ops import likelihoods, samplers
from .ops.conjugate import NormalInverseWishart
from .selection import Candidate, Selection, gaussian_leaves, select
