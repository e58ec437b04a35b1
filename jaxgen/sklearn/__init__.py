"""Estimators for people who live in scikit-learn: `pip install jaxgen[sklearn]`, `import jaxgen.sklearn`."""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("jaxgen.sklearn needs scikit-learn: pip install 'jaxgen[sklearn]'") from error

from jaxgen.sklearn.anomaly import AnomalyDetector
from jaxgen.sklearn.autoencoder import VAE
from jaxgen.sklearn.bayesian import BayesianGaussianMixture
from jaxgen.sklearn.classify import GenerativeClassifier
from jaxgen.sklearn.densities import FlowDensity
from jaxgen.sklearn.hmm import CategoricalHMM, GaussianHMM, PoissonHMM
from jaxgen.sklearn.impute import Imputer
from jaxgen.sklearn.mixture import GaussianMixture
from jaxgen.sklearn.rbm import BernoulliRBM
from jaxgen.sklearn.table import SyntheticTable

__all__ = [
    "VAE",
    "AnomalyDetector",
    "BayesianGaussianMixture",
    "BernoulliRBM",
    "CategoricalHMM",
    "FlowDensity",
    "GaussianHMM",
    "GaussianMixture",
    "GenerativeClassifier",
    "Imputer",
    "PoissonHMM",
    "SyntheticTable",
]


def __dir__() -> list[str]:
    return __all__
