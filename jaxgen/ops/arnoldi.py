"""Leading eigenvalues of a linear map that is known by its products alone, by Arnoldi's method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def leading_eigenvalues(
    key: Any, product: Callable[[Any], Any], n: int, size: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of largest modulus of a real map, complex pairs among them, and their residuals.

    The map is projected on the Krylov space of a random vector, which is orthogonalised twice. With a size of n or more
    the eigenvalues are exact up to rounding; of one that is repeated there is one copy.

    Args:
        key: typed key of the first vector.
        product: `[n] -> [n]`, the map of a vector.
        n: number of coordinates.
        size: products, and dimension of the space.

    Returns:
        eigenvalues by falling modulus, complex, and `|A v - lambda v|` of their unit vectors.

    Source: Arnoldi (1951), The principle of minimized iterations; Saad (2011), Numerical methods for large eigenvalue
    problems, algorithm 6.2.

    Example:
        >>> turn = np.array([[1.0, 0.5], [-0.5, 1.0]])
        >>> values, residuals = leading_eigenvalues(jax.random.key(0), lambda v: turn @ v, 2)
        >>> sorted(values.round(4).tolist(), key=lambda value: value.imag), bool(residuals.max() < 1e-6)
        ([(1-0.5j), (1+0.5j)], True)
    """
    size = min(size, n)
    first = np.asarray(jax.random.normal(key, (n,)), np.float64)
    basis = [first / np.linalg.norm(first)]
    projected = np.zeros((size + 1, size))
    for j in range(size):
        image = np.asarray(product(basis[j]), np.float64)
        length = np.linalg.norm(image)
        for _ in range(2):  # once leaves what rounding left of the others
            for i, vector in enumerate(basis):
                share = vector @ image
                projected[i, j] += share
                image = image - share * vector
        projected[j + 1, j] = rest = np.linalg.norm(image)
        if not rest > 1e-6 * length:  # the space holds its own images: nothing is left to find
            projected, size = projected[: j + 2, : j + 1], j + 1
            break
        basis.append(image / rest)
    values, vectors = np.linalg.eig(projected[:size, :size])
    residuals = np.abs(projected[size, size - 1] * vectors[size - 1])
    order = np.argsort(-np.abs(values), kind="stable")
    return values[order], residuals[order]
