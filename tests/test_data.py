"""The sets in the package against what is known of them, and the densities to draw from against scipy."""

import math
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from sklearn.datasets import load_digits, make_moons

import jaxgen
from jaxgen.core.errors import DataError, ShapeError
from jaxgen.data import (
    digits,
    earthquakes,
    eight_gaussians,
    eight_gaussians_centers,
    eight_gaussians_log_density,
    fashion_mnist,
    old_faithful,
    text,
    two_moons,
    two_moons_log_density,
)

# ---- sets in the package ----------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    ours, theirs = digits(), load_digits()
    assert ours.images.dtype == ours.labels.dtype == np.uint8
    np.testing.assert_array_equal(ours.images, theirs.images)
    np.testing.assert_array_equal(ours.labels, theirs.target)


def test_old_faithful_is_the_known_table():
    d = old_faithful()
    assert d.values.shape == (272, 2) and d.columns == ("eruptions", "waiting")
    np.testing.assert_allclose(d.values.mean(0), [3.487783, 70.897059], atol=1e-6)  # R: colMeans(faithful)
    np.testing.assert_allclose(d.values.var(0, ddof=1), [1.302728, 184.823312], atol=1e-6)  # R: var(faithful)
    assert d.values[0].tolist() == [3.6, 79] and d.values[-1].tolist() == [4.467, 74]
    # The split should not set one kind of eruption apart: the shares of long ones agree within two standard errors.
    long = d.values[:, 0] > 3
    assert abs(long[d.train].mean() - long[d.test].mean()) < 2 * 0.48 * math.sqrt(1 / 200 + 1 / 72)


def test_earthquakes_are_the_known_series():
    d = earthquakes()
    assert d.counts.dtype == np.int32 and d.years.tolist() == list(range(1900, 2007))
    assert d.counts[:10].tolist() == [13, 14, 8, 10, 16, 26, 32, 27, 18, 32]
    assert d.counts.sum() == 2072 and d.counts.max() == 41
    # Zucchini & MacDonald (2009), one Poisson state: -log L = 391.9189.
    assert -stats.poisson.logpmf(d.counts, d.counts.mean()).sum() == pytest.approx(391.9189, abs=5e-5)


def test_fashion_mnist_is_a_part_of_the_official_sets():
    d = fashion_mnist()
    assert d.images.shape == (5000, 28, 28) and d.images.dtype == d.labels.dtype == np.uint8
    assert d.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as the official train labels begin
    assert d.labels[d.test[:10]].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]  # as the official test labels begin
    assert d.images.max() == 255 and len(d.names) == 10
    assert d.images.mean() / 255 == pytest.approx(0.286, abs=0.005)  # the mean of all 60,000 is 0.2860
    assert np.bincount(d.labels[d.train]).min() > 350 and np.bincount(d.labels[d.test]).min() > 80


def test_text_is_text_and_codes_spell_it():
    t = text()
    assert len(t.text) == 178_887 and len(t.alphabet) == 69 and t.codes.dtype == np.uint8
    assert "".join(np.array(list(t.alphabet))[t.codes]) == t.text
    assert t.text.startswith("The Time Machine, by H. G. Wells") and t.text.count("Morlock") == 50  # as grep counts
    assert len(repr(t)) < 1000  # a notebook should not print the book


@pytest.mark.parametrize("load", [digits, old_faithful, earthquakes, fashion_mnist, text])
def test_splits_part_the_events(load):
    d = load()
    n = len(next(part for part in d if isinstance(part, np.ndarray)))
    assert sorted([*d.train, *d.test]) == list(range(n))
    assert 0.1 * n <= len(d.test) + 1 and len(d.test) < len(d.train)


def test_package_is_small_and_states_its_licences():
    root = Path(jaxgen.__file__).parent
    total = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert total < 5_000_000
    files = resources.files("jaxgen.data") / "files"
    licences = (files / "LICENSES.md").read_text(encoding="utf-8")
    for file in files.iterdir():
        assert file.name == "LICENSES.md" or f"## {file.name}" in licences


# ---- densities to draw from -------------------------------------------------------------------------------------


def moons_reference(x, noise):
    """log p(x) by scipy's adaptive quadrature in float64, told where the integrand peaks."""
    total = 0.0
    for side in (1, -1):
        shift = (x - np.array([1, 0.5])) if side == -1 else x
        angle = math.atan2(side * shift[1], side * shift[0])

        def integrand(a, shift=shift, side=side):
            square = (shift[0] - side * math.cos(a)) ** 2 + (shift[1] - side * math.sin(a)) ** 2
            return math.exp(-square / 2 / noise**2)

        total += quad(integrand, 0, math.pi, points=[min(max(angle, 0), math.pi)], epsabs=0, epsrel=1e-11, limit=300)[0]
    return math.log(total / (2 * math.pi) / (2 * math.pi * noise**2))


POINTS = np.array([[0.0, 1.0], [1.0, 0.01], [2.0, 0.5], [-1.05, -0.1], [0.5, 0.3], [0.0, 0.0], [1.5, 0.9]])


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_two_moons_density_against_scipy(noise):
    expected = [moons_reference(x, noise) for x in POINTS]
    # float32: positions near 1 are exact to 6e-8, so an exponent of at most 40 to 40 * 2 * 6e-8 / 0.05, about 1e-4.
    np.testing.assert_allclose(two_moons_log_density(POINTS, noise=noise), expected, atol=2e-4)
    with jax.enable_x64(True):
        np.testing.assert_allclose(two_moons_log_density(POINTS, noise=noise), expected, atol=1e-9)  # quad's own error


@pytest.mark.parametrize(
    ("log_density", "low", "high", "step", "optimum"),
    [
        (two_moons_log_density, (-1.4, -0.9), (2.4, 1.4), 0.02, -0.28923),
        (eight_gaussians_log_density, (-5, -5), (5, 5), 0.05, -2.83158),
    ],
)
def test_densities_integrate_to_one_and_the_stated_optimum(log_density, low, high, step, optimum):
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    log_p = np.asarray(log_density(np.stack(np.meshgrid(*axes), -1)), np.float64)
    # The trapezoid rule on a smooth function that ends at zero converges exponentially: float32 is what is left.
    assert np.exp(log_p).sum() * step**2 == pytest.approx(1, abs=1e-4)
    assert (np.exp(log_p) * log_p).sum() * step**2 == pytest.approx(optimum, abs=2e-4)


def test_samples_match_their_densities():
    key_moons, key_ring = jax.random.split(jax.random.key(3))
    for x, log_density, optimum in (
        (two_moons(key_moons, 20_000), two_moons_log_density, -0.28923),
        (eight_gaussians(key_ring, 20_000), eight_gaussians_log_density, -2.83158),
    ):
        log_p = np.asarray(log_density(x))
        assert log_p.mean() == pytest.approx(optimum, abs=float(4 * log_p.std() / math.sqrt(len(x))))


def test_two_moons_has_scikit_learns_geometry():
    x = np.asarray(two_moons(jax.random.key(0), 20_000, noise=0.1))
    y, _ = make_moons(20_000, noise=0.1, random_state=0)
    for view in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: z @ [1, 2], lambda z: z[:, 0] * z[:, 1]):
        assert stats.ks_2samp(view(x), view(y)).pvalue > 1e-4  # deterministic: both are seeded
    clean = np.asarray(two_moons(jax.random.key(1), 500, noise=0))
    circles = np.minimum(abs(np.hypot(*clean.T) - 1), abs(np.hypot(*(clean - [1, 0.5]).T) - 1))
    assert circles.max() < 1e-6


def test_eight_gaussians_sits_on_its_centers():
    centers = eight_gaussians_centers(radius=2.0)
    x = np.asarray(eight_gaussians(jax.random.key(0), 8000, radius=2.0, scale=0.02))
    distance = np.linalg.norm(x[:, None] - centers, axis=-1)
    assert np.bincount(distance.argmin(1), minlength=8).min() > 850  # 1000 each, 5 standard deviations below
    assert distance.min(1).max() < 0.02 * 6
    mixture = np.mean([stats.multivariate_normal(m, 0.09).pdf(POINTS) for m in centers], 0)
    # float32, exponents of at most 30
    np.testing.assert_allclose(eight_gaussians_log_density(POINTS, radius=2.0, scale=0.3), np.log(mixture), atol=3e-5)


def test_draws_are_seeded_and_traceable():
    key = jax.random.key(7)
    np.testing.assert_array_equal(two_moons(key, 5), two_moons(key, 5))
    assert two_moons(key, 5).dtype == jnp.float32
    several = jax.vmap(lambda k: eight_gaussians(k, 4))(jax.random.split(key, 3))
    assert several.shape == (3, 4, 2) and len(np.unique(several)) == several.size
    gradient = jax.jit(jax.grad(lambda x: two_moons_log_density(x).sum()))(jnp.array([[0.0, 1.02], [30.0, 30.0]]))
    # just outside the arc's top the score is close to -(0.02 / noise^2) along y; far away it is finite
    assert gradient[0, 1] == pytest.approx(-8, abs=1) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: two_moons(jax.random.key(0), 0), DataError, "at least 1"),
        (lambda: two_moons(jax.random.key(0), 2.5), DataError, "at least 1"),
        (lambda: two_moons(0, 10), DataError, "jax.random.key"),
        (lambda: two_moons(jax.random.PRNGKey(0), 10), DataError, "jax.random.key"),
        (lambda: two_moons(jax.random.split(jax.random.key(0)), 10), DataError, "jax.random.key"),
        (lambda: two_moons(jax.random.key(0), 10, noise=-1), DataError, "not negative"),
        (lambda: two_moons_log_density([0.0, 0.0], noise=0), DataError, "positive"),
        (lambda: two_moons_log_density(np.zeros((2, 3))), ShapeError, r"\(2, 3\)"),
        (lambda: two_moons_log_density(1.0), ShapeError, "two coordinates"),
        (lambda: eight_gaussians_log_density([["a", "b"]]), DataError, "x"),
        (lambda: eight_gaussians(jax.random.key(0), 10, scale=math.nan), DataError, "scale"),
        (lambda: eight_gaussians(jax.random.key(0), 10, radius="2"), DataError, "radius"),
    ],
)
def test_draws_refuse_what_makes_no_sense(call, error, match):
    with pytest.raises(error, match=match):
        call()
