"""Codes beside known factors: whether each factor has a code of its own, and each code a factor."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import DataError
from jaxgen.core.inputs import as_array

#: sweeps of the lasso at most, and the change, in standard deviations, that ends them
SWEEPS, SETTLED = 1000, 1e-8


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, each from 0 to 1.

    Args:
        disentanglement: how far each code serves one factor alone, weighted by how much it serves.
        completeness: how far each factor needs one code alone, the mean over factors.
        informativeness: share of a factor's variance that a linear function of the codes explains, the mean.
        importance: `[L, F]`, absolute coefficients of that function in standard deviations.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def mutual_information(codes: Any, factors: Any, *, bins: int = 20) -> np.ndarray:
    """Return the mutual information of each code with each factor, nats, from counts.

    Args:
        codes: `[N, L]`.
        factors: `[N, F]`. Columns of more than `bins` different values, of either, are cut into so many of equal width.
        bins: how many, 2 or more.

    Returns:
        `[L, F]`, 0 or more. From few events it is too high, by about `bins^2 / (2 N)`.

    Raises:
        DataError: tables of different length, or of one event.

    Example:
        >>> mutual_information([[0.0], [0.0], [1.0], [1.0]], [[3, 0], [3, 1], [5, 0], [5, 1]]).round(4).tolist()
        [[0.6931, 0.0]]
    """
    codes, factors = _tables(codes, factors, f"mutual_information(codes, factors, bins={bins})", bins)
    left, right = (np.stack([_labels(column, bins) for column in table.T]) for table in (codes, factors))
    return np.array([[_information(a, b) for b in right] for a in left])


def mig(codes: Any, factors: Any, *, bins: int = 20) -> float:
    """Return the mutual information gap: by how much each factor's best code is ahead of the second best.

    `mean_f (I(z_1; v_f) - I(z_2; v_f)) / H(v_f)`, z_1 and z_2 the two codes that know most of f

    1 where each factor has a code of its own that knows all of it, 0 where two codes share it alike.

    Args:
        codes: `[N, L]`, L of 2 or more, such as `model.encode(x)`.
        factors: `[N, F]`.
        bins: of columns of many values, see `mutual_information`.

    Raises:
        DataError: tables of different length, one code, or a factor that is the same for all.

    Source: Chen, Li, Grosse and Duvenaud (2018), Isolating sources of disentanglement in variational autoencoders.

    Example:
        >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> mig(factors[:, ::-1], factors), mig(factors @ [[1, 1], [1, -1]], factors)
        (1.0, 0.0)
    """
    called = f"mig(codes, factors, bins={bins})"
    known = mutual_information(codes, factors, bins=bins)
    table = _tables(codes, factors, called, bins)[1]
    entropy = np.array([_information(a, a) for a in (_labels(column, bins) for column in table.T)])
    return float(np.mean(_gaps(known, called) / _moving(entropy, called)))


def sap(codes: Any, factors: Any) -> float:
    """Return the separated attribute predictability: the gap between the two codes that best predict each factor.

    `mean_f (R^2(z_1, v_f) - R^2(z_2, v_f))`, `R^2` the squared correlation, what a line through one code explains

    Args:
        codes: `[N, L]`, L of 2 or more.
        factors: `[N, F]`, numbers.

    Raises:
        DataError: tables of different length, one code, or a factor that is the same for all.

    Source: Kumar, Sattigeri and Balakrishnan (2018), Variational inference of disentangled latent concepts.

    Example:
        >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> round(sap(factors[:, ::-1], factors), 6), round(sap(factors @ [[1, 1], [1, -1]], factors), 6)
        (1.0, 0.0)
    """
    codes, factors = _tables(codes, factors, "sap(codes, factors)")
    _moving(factors.std(axis=0), "sap(codes, factors)")
    correlation = _standard(codes).T @ _standard(factors) / len(codes)
    return float(np.mean(_gaps(correlation**2, "sap(codes, factors)")))


def dci(codes: Any, factors: Any, *, penalty: float = 0.02) -> DCI:
    """Return disentanglement, completeness and informativeness by sparse linear regression of factors on codes.

    `R_lf = |w_lf|`, w the lasso's coefficients, `min |v_f - sum_l w_lf z_l|^2 / (2 N) + penalty sum_l |w_lf|`, all in
    standard deviations; `D_l = 1 - H(R_l. / sum)/log F`, weighted by `sum_f R_lf`; `C_f = 1 - H(R_.f / sum)/log L`

    Args:
        codes: `[N, L]`, L of 2 or more.
        factors: `[N, F]`, numbers, F of 2 or more.
        penalty: from 0 to 1, where nothing is left.

    Raises:
        DataError: tables of different length, fewer than two columns in one of them, or a factor that is the same for
            all.

    Source: Eastwood and Williams (2018), A framework for the quantitative evaluation of disentangled representations.

    Example:
        >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> [round(value, 4) for value in dci(factors[:, ::-1], factors)[:3]]
        [1.0, 1.0, 0.9996]
    """
    called = "dci(codes, factors)"
    codes, factors = _tables(codes, factors, called)
    _moving(factors.std(axis=0), called)
    if min(codes.shape[1], factors.shape[1]) < 2:
        raise DataError("there is nothing to tell apart", called=called, expected="two codes and two factors or more",
                        got=f"{codes.shape[1]} and {factors.shape[1]}")  # fmt: skip
    z, v = _standard(codes), _standard(factors)
    coefficients = lasso(z, v, penalty)
    importance = np.abs(coefficients)
    serves = importance.sum(axis=1)
    each = 1 - _entropy(importance) / np.log(v.shape[1])
    disentanglement = np.sum(each * serves) / serves.sum() if serves.sum() > 0 else 0.0
    needs = importance.sum(axis=0) > 0
    completeness = np.mean(np.where(needs, 1 - _entropy(importance.T) / np.log(z.shape[1]), 0.0))
    explained = 1 - np.mean((v - z @ coefficients) ** 2)
    return DCI(float(disentanglement), float(completeness), float(explained), importance)


def lasso(z: np.ndarray, v: np.ndarray, penalty: float) -> np.ndarray:
    """Return the coefficients `[L, F]` of sparse linear regressions of v on z, by descent along each coordinate.

    Args:
        z: `[N, L]`, columns of mean 0 and variance 1, or all 0.
        v: `[N, F]`, columns of mean 0.
        penalty: of the sum of absolute coefficients.

    Source: Friedman, Hastie and Tibshirani (2010), Regularization paths for generalized linear models via coordinate
    descent.
    """
    gram, cross = z.T @ z / len(z), z.T @ v / len(z)
    w = np.zeros_like(cross)
    for _ in range(SWEEPS):
        before = w.copy()
        for i in range(len(w)):
            if gram[i, i] > 0:
                part = cross[i] - gram[i] @ w + gram[i, i] * w[i]
                w[i] = np.sign(part) * np.maximum(np.abs(part) - penalty, 0) / gram[i, i]
        if np.abs(w - before).max() < SETTLED:
            break
    return w


def _tables(codes: Any, factors: Any, called: str, bins: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 `[N, columns]`."""
    tables = [np.asarray(as_array(a, name=name, called=called), np.float64)
              for name, a in (("codes", codes), ("factors", factors))]  # fmt: skip
    shapes = [a.shape for a in tables]
    if any(len(s) != 2 for s in shapes) or shapes[0][0] != shapes[1][0] or shapes[0][0] < 2 or bins < 2:
        raise DataError(
            "codes and factors are two tables of the same events", called=called, got=f"shapes {shapes}, bins {bins}",
            expected="[N, L] and [N, F], N and bins of 2 or more",
            fix="np.reshape(codes, (len(codes), -1)) for codes of another shape",
        )  # fmt: skip
    return tables[0], tables[1]


def _labels(column: np.ndarray, bins: int) -> np.ndarray:
    """Whole numbers from 0: those of its values, or of bins of equal width."""
    values, labels = np.unique(column, return_inverse=True)
    if len(values) <= bins:
        return labels
    edges = np.linspace(values[0], values[-1], bins + 1)
    return np.clip(np.searchsorted(edges, column, side="right") - 1, 0, bins - 1)


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """The mutual information of two columns of labels, nats; of a column with itself its entropy."""
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / len(a)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return max(0.0, float(np.sum(joint[some] * np.log(joint[some] / apart[some]))))


def _gaps(scores: np.ndarray, called: str) -> np.ndarray:
    """The best less the second best of each column."""
    if len(scores) < 2:
        raise DataError("a gap needs two codes", called=called, expected="[N, L], L of 2 or more", got="one code")
    best = np.sort(scores, axis=0)
    return best[-1] - best[-2]


def _moving(spread: np.ndarray, called: str) -> np.ndarray:
    if (spread <= 0).any():
        raise DataError(
            "a factor is the same for all events", called=called, expected="factors of two values or more",
            got=f"factors {np.flatnonzero(spread <= 0).tolist()} of one value", fix="leave these columns out",
        )  # fmt: skip
    return spread


def _standard(table: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1; one that never moves is 0."""
    away, scale = table - table.mean(axis=0), table.std(axis=0)
    return np.where(scale > 0, away / np.where(scale > 0, scale, 1), 0)


def _entropy(importance: np.ndarray) -> np.ndarray:
    """The entropy of each row as shares, nats; of a row of zeros 0."""
    total = importance.sum(axis=1, keepdims=True)
    share = importance / np.where(total > 0, total, 1)
    return -np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1)
