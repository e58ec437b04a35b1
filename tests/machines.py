"""Small Boltzmann machines and what numpy makes of them by enumeration, for the tests of energy models."""

import itertools

import numpy as np
from scipy import special, stats

from jaxgen.models.energy.rbm import RBM


def family(nv, nh, s=1.0, dtype=np.float32):
    """The machines R(nv, nh, s) of the reference figures."""
    i, j = np.arange(1, nv + 1.0), np.arange(1, nh + 1.0)
    w = s * np.sin(1.7 * i[:, None] + 2.3 * j)
    return RBM.from_values(*(a.astype(dtype) for a in (0.3 * np.cos(1.1 * i), -0.2 + 0.4 * np.sin(0.9 * j), w)))


def states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)))


def enumerated(nv, nh, s=1.0):
    """`(log Z, log p(v) of every v in the order of states)` of R(nv, nh, s): all joint states, nothing simplified."""
    i, j = np.arange(1, nv + 1.0), np.arange(1, nh + 1.0)
    b, c, w = 0.3 * np.cos(1.1 * i), -0.2 + 0.4 * np.sin(0.9 * j), s * np.sin(1.7 * i[:, None] + 2.3 * j)
    v, h = states(nv), states(nh)
    minus_energy = (v @ b)[:, None] + h @ c + v @ w @ h.T
    log_z = special.logsumexp(minus_energy)
    return log_z, special.logsumexp(minus_energy, axis=1) - log_z


def index(v):
    """The position of bits in the order of `states`."""
    v = np.asarray(v).astype(int)
    return v @ (2 ** np.arange(v.shape[-1])[::-1])


def fits(counts, p):
    """Whether counts fit probabilities, at one false alarm in a million."""
    expected = counts.sum() * p
    return ((counts - expected) ** 2 / expected).sum() < stats.chi2.isf(1e-6, len(p) - 1)
