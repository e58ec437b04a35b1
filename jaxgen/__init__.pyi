from . import data, losses, metrics, nn, ops, plot, recipes
from .annealing import Trajectory
from .core.door import per_batch, per_event, per_latent, per_sample, weighted_events
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
from .core.gate import Batch
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
from .models.deep_belief import DeepBelief
from .models.deep_boltzmann import DeepBoltzmann
from .models.dequantized import Dequantized
from .models.discrete import Bernoulli, Categorical, Poisson
from .models.energy_model import EnergyModel
from .models.external import DistraxLeaf
from .models.flow import Flow
from .models.gamma import Gamma
from .models.gan import Generator
from .models.gaussian import DiagonalGaussian, Gaussian, StandardNormal
from .models.hmm import HMM, MarkovChain
from .models.input_chain import InputChain
from .models.low_rank import LowRankGaussian
from .models.mixture import Mixture
from .models.negative_binomial import NegativeBinomial
from .models.normal_wishart import NormalWishart
from .models.product import Product
from .models.random_field import RandomField
from .models.rbm import RBM
from .models.regression import LinearRegression, lagged
from .models.semi_markov import SemiMarkovChain
from .models.student import StudentT
from .models.vae import VAE
from .models.variational import VariationalMixture
from .models.von_mises import VonMises
from .nn import units
from .nn.net import Net
from .ops import likelihoods, samplers
from .selection import Candidate, Selection, gaussian_leaves, select
