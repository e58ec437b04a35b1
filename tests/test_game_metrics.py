"""Diagnostics of games, against closed forms, numpy and enumeration."""

import jax
import numpy as np
import optax
import pytest
from test_games import dirac

import jaxgen as jg
from jaxgen.games import Simultaneous
from jaxgen.metrics import calibration, modes, spectrum
from jaxgen.ops.arnoldi import leading_eigenvalues


@pytest.mark.parametrize(("penalty", "radius"), [(0.0, 1.0012492197), (0.1, 0.9962429423), (1.0, 0.95)])
def test_the_spectrum_of_the_dirac_gan(penalty, radius):
    """Mescheder et al. (2018): at the solution, steps of .1 of both players at once."""
    # the last has one eigenvalue twice and one direction, where an error of the Jacobian counts by its square root
    with jax.enable_x64(penalty == 1.0):
        game, state, batch = dirac(penalty, Simultaneous(), at=0.0)
        found = spectrum(jax.random.key(0), game, state, batch)
    assert found.radius == pytest.approx(radius, abs=1e-4)
    assert len(found.eigenvalues) == 2
    turns = np.abs(found.eigenvalues.imag) > 1e-4
    assert turns.all() == (penalty < 1)


def test_moments_of_an_optimiser_are_part_of_the_step():
    """Descent with momentum m on the same game: `v' = m v + F, w' = w - h v'`."""
    game, state, batch = dirac(0.1, Simultaneous(), optax.sgd(0.1, momentum=0.5), at=0.0)
    found = spectrum(jax.random.key(0), game, state, batch)
    field = np.array([[0, -0.5], [0.5, 0.1]])
    step = np.block([[np.eye(2) - 0.1 * field, -0.05 * np.eye(2)], [field, 0.5 * np.eye(2)]])
    expected = np.linalg.eigvals(step)
    np.testing.assert_allclose(np.abs(found.eigenvalues), np.sort(np.abs(expected))[::-1], atol=1e-5)
    with pytest.raises(jg.FitError, match="no derivative"):
        spectrum(jax.random.key(0), *dirac(0.1, Simultaneous(), optax.adam(0.1), at=0.0))


def test_arnoldi_finds_the_largest():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 60)) / np.sqrt(60)
    matrix[:2, :2] += [[2.0, 1.5], [-1.5, 2.0]]
    values, residuals = leading_eigenvalues(jax.random.key(0), lambda v: matrix @ v, 60, 25)
    expected = np.linalg.eigvals(matrix)
    expected = expected[np.argsort(-np.abs(expected))]
    np.testing.assert_allclose(np.sort_complex(values[:2]), np.sort_complex(expected[:2]), rtol=1e-5)
    assert residuals[:2].max() < 1e-4
    # a map with one eigenvalue has one to find
    values, _ = leading_eigenvalues(jax.random.key(0), lambda v: 3 * v, 5)
    np.testing.assert_allclose(values, [3.0], rtol=1e-6)


def test_calibration_of_log_odds():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 1, 20_000), rng.normal(1, 1, 20_000)
    right, sure = (calibration(by * (0.5 - real), by * (0.5 - fake)) for by in (1.0, 4.0))
    assert right.error < 0.01  # ten shares of 4000 draws each
    assert sure.error > 0.1
    assert right.accuracy == pytest.approx(0.691462461, abs=0.01) and sure.accuracy == right.accuracy
    assert right.counts.sum() == 40_000
    assert calibration(np.array([40.0]), np.array([-40.0])).error == pytest.approx(0, abs=1e-12)


def test_modes_that_samples_cover():
    labels = np.repeat([0, 1, 2, 3], [10, 20, 30, 40])
    seen = np.array([0] * 50 + [1] * 1 + [3] * 49)
    found = modes(seen[:, None], lambda x: x[:, 0], labels)
    assert (found.covered, found.classes) == (3, 4)
    assert modes(seen[:, None], lambda x: x[:, 0], labels, least=0.25).covered == 2
    shares, due = np.array([0.5, 0.01, 0.49]), np.array([0.1, 0.2, 0.4])
    assert found.divergence == pytest.approx((shares * np.log(shares / due)).sum())


@pytest.mark.parametrize(("call", "match"), [
    (lambda: modes(np.zeros(3), lambda x: x, np.array([0, 1])), "whole numbers"),
    (lambda: modes(np.zeros(3), lambda x: x.astype(int), np.zeros(4, int)), "classes of the data"),
    (lambda: modes(np.full(3, 7), lambda x: x, np.array([0, 1])), "classes of the data"),
    (lambda: modes(np.array([0, 1]), lambda x: x, np.array([0, 2])), "classes of the data"),
    (lambda: calibration(np.zeros(3), np.zeros(4)), "outputs of a critic"),
    (lambda: calibration(np.zeros(3), np.full(3, np.nan)), "outputs of a critic"),
    (lambda: calibration(np.zeros(3), np.zeros(3), bins=0), "of bins"),
])  # fmt: skip
def test_errors(call, match):
    with pytest.raises((jg.DataError, jg.FitError), match=match):
        call()
    with pytest.raises(jg.FitError, match="size"):
        spectrum(jax.random.key(0), *dirac(0.0, Simultaneous()), size=0)
