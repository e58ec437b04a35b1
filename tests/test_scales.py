"""Nothing depends on the units of a column, and no far value steers what is not about it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.datasets import load_breast_cancer

import jaxgen as jg
from jaxgen.core.pytree import model
from jaxgen.ops import scales
from jaxgen.ops.kmeans import kmeans, nearest
from jaxgen.ops.scaling import mean_and_scale
from jaxgen.ops.starts import cluster_shares

KEY = jax.random.key(0)
#: clusters of three events each, the last a single far value
FAR = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [1e6]], np.float32)
FACTORS = np.array([1e6, 1e-6, 30.0], np.float32)
GROUP = np.arange(240) % 3 == 0


def table(seed=0, n=240):
    """Two clusters apart in the second column, columns that depend on each other, and one far value in the third."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.4], [0.0, 0.0, 1.0]])
    x[:, 1] += np.where(GROUP[:n], 9.0, 0.0)
    x[5, 2] = 60.0
    return x.astype(np.float32)


def mixture(leaf):
    return lambda x: jg.fit(KEY, jg.Mixture.init(KEY, x, 2, leaf), x, steps=30).model


def regression(x):
    start = jg.Mixture.init(KEY, x[:, 1:], 2, jg.LinearRegression.init, context=x[:, :1])
    fitted = jg.fit(KEY, start, (x[:, 1:], x[:, :1]), steps=30).model
    return lambda x: fitted.log_prob(x[:, 1:], context=x[:, :1])


def chain(x):
    start = jg.HMM.init(KEY, x.reshape(8, 30, 3), 2, jg.Gaussian.init)
    fitted = jg.fit(KEY, start, x.reshape(8, 30, 3), steps=30).model
    return lambda x: jnp.repeat(fitted.log_prob(x.reshape(8, 30, 3)) / 30, 30)


def variational(leaf):
    return lambda x: jg.fit(KEY, jg.VariationalMixture.init(KEY, x, 2, leaf), x, steps=30).model


def descended(start):
    """Fits by gradients, whose steps are in the scales of the parameters."""
    algorithm = jg.Gradient(jg.losses.nll, optax.adam(0.05), steps=30)
    return lambda x: jg.fit(KEY, start(x), x, algorithm).model


def regression_by_gradient(x):
    data = x[:, 1:], x[:, :1]
    # away from the maximum: EM would leave a gradient nothing to do
    start = jg.LinearRegression.init(KEY, data[0], jnp.roll(data[1], 1, axis=0))
    fitted = jg.fit(KEY, start, data, jg.Gradient(jg.losses.nll, optax.adam(0.05), steps=30)).model
    return lambda x: fitted.log_prob(x[:, 1:], context=x[:, :1])


LEAVES = {(0, 2): jg.Gaussian.init, (1,): jg.DiagonalGaussian.init}
FAMILIES = {
    "gaussian": lambda x: jg.Gaussian.init(KEY, x),
    "diagonal": lambda x: jg.DiagonalGaussian.init(KEY, x),
    "student": lambda x: jg.fit(KEY, jg.StudentT.init(KEY, x), x, steps=30).model,
    "low rank": lambda x: jg.fit(KEY, jg.LowRankGaussian.init(KEY, x, rank=1), x, steps=30).model,
    "mixture of gaussians": mixture(jg.Gaussian.init),
    "mixture of tied gaussians": mixture(functools.partial(jg.Gaussian.init, tied=True)),
    "mixture of diagonal gaussians": mixture(jg.DiagonalGaussian.init),
    "mixture with holes": mixture(functools.partial(jg.Gaussian.init, missing=True)),
    "mixture of low-rank gaussians": mixture(functools.partial(jg.LowRankGaussian.init, rank=1)),
    "mixture of student ts": mixture(jg.StudentT.init),
    "mixture of products": mixture(lambda key, x: jg.Product.init(key, x, LEAVES)),
    "mixture of regressions": regression,
    "hmm of gaussians": chain,
    "variational mixture": variational(jg.NormalWishart.init),
    "variational mixture, diagonal": variational(jg.NormalWishart.init_diagonal),
    # from a start on the half of the events that has no second cluster
    "gaussian by gradient": descended(lambda x: jg.Gaussian.init(KEY, x[~GROUP])),
    "student by gradient": descended(lambda x: jg.StudentT.init(KEY, x[~GROUP])),
    "laplace by gradient": descended(lambda x: jg.Laplace.init(KEY, x[~GROUP])),
    "low rank by gradient": descended(lambda x: jg.LowRankGaussian.init(KEY, x[~GROUP], rank=1)),
    "mixture by gradient": descended(lambda x: jg.Mixture.init(KEY, x, 2, jg.DiagonalGaussian.init)),
    "regression by gradient": regression_by_gradient,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_change_of_units_changes_the_likelihood_by_the_jacobian(name):
    x = table()
    one, other = (FAMILIES[name](data) for data in (x, x * FACTORS))
    score = lambda fitted, data: np.asarray(getattr(fitted, "log_prob", fitted)(data), np.float64)  # noqa: E731
    # a regression is a density of the last two columns only
    jacobian = np.log(FACTORS[1:] if "regression" in name else FACTORS).sum()
    gap = score(other, x * FACTORS) + jacobian - score(one, x)
    assert abs(gap.mean()) < 1e-4  # nats an event, the promise in float32


def test_sizes_whose_squares_are_no_numbers_are_refused():
    for leaf in (jg.Gaussian.init, jg.DiagonalGaussian.init, jg.StudentT.init):
        for x in (table() * 1e30, table() * 1e-30):
            with pytest.raises(jg.DataError, match="squares"):
                leaf(KEY, x)
            with pytest.raises(jg.DataError, match="squares"):
                jg.Mixture.init(KEY, x, 2, leaf)
        with pytest.raises(jg.ShapeError, match="table"):
            leaf(KEY, table()[:, 0])


def test_scale_is_that_of_a_cluster_whatever_lies_far_away():
    rng = np.random.default_rng(0)
    clusters = np.concatenate([rng.normal(c, 1, size=(200, 1)) for c in (0, 10, 1e6)])
    for x, low, high in (
        (rng.normal(size=(1000, 1)), 0.5, 1.5),
        (clusters, 0.5, 3.0),
        (np.array([[0.0], [1e5]]), 3e4, 1e5),
        (np.full((5, 1), 7.0), 7.0, 7.0),  # a constant column has its size
        (np.zeros((5, 1)), 1.0, 1.0),
        (np.array([[np.nan], [3.0], [np.nan]]), 3.0, 3.0),
        (np.full((3, 1), np.nan), 1.0, 1.0),
    ):
        center, scale = scales.columns(jnp.asarray(x, jnp.float32))
        assert low <= scale[0] <= high and np.isfinite(center[0])
        center, other = scales.columns(jnp.asarray(1e-6 * x, jnp.float32))
        # of windows of nearly one width rounding may choose another
        assert (x == 0).all() or np.isnan(x).all() or np.isclose(other[0], 1e-6 * scale[0], rtol=0.1)


def test_floors_are_of_each_column():
    made = jg.DiagonalGaussian.init(KEY, [[0, 0], [1e5, 1]])
    np.testing.assert_allclose(made.variance, [2.5e9, 0.25], rtol=1e-5)
    u = np.random.default_rng(0).normal(size=(500, 2))
    noise = np.random.default_rng(1).normal(size=(500, 2)) * [1e2, 5e-3]
    x = u * [1e4, 3.0] + noise
    fitted = jg.LinearRegression.init(KEY, x.astype(np.float32), u.astype(np.float32))
    inputs = np.column_stack([u, np.ones(500)])
    left = x - inputs @ np.linalg.lstsq(inputs, x, rcond=None)[0]
    np.testing.assert_allclose(jnp.diagonal(fitted.covariance), left.var(axis=0), rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_breast_cancer(dtype):
    """Thirty columns in units up to a million apart, strongly correlated: closed forms of numpy in float64."""
    x = load_breast_cancer().data
    whole = -0.5 * (np.linalg.slogdet(2 * np.pi * np.cov(x.T, bias=True))[1] + 30)
    alone = scipy.stats.norm(x.mean(axis=0), x.std(axis=0)).logpdf(x).sum(axis=1).mean()
    with jax.enable_x64(dtype == np.float64):
        x = x.astype(dtype)
        for leaf, expected in ((jg.Gaussian.init, whole), (jg.DiagonalGaussian.init, alone)):
            made = leaf(KEY, x)
            assert abs(float(made.log_prob(x).mean()) - expected) < 1e-4  # nats an event, the promise in float32
    assert abs(whole - 32.513) < 1e-3


@pytest.mark.parametrize("df", [0.5, 0.7, 1.0])
def test_student_with_tails_that_have_no_variance(df):
    x = scipy.stats.t(df).rvs(5000, random_state=1).astype(np.float32)
    best = scipy.stats.t.fit(x)
    fitted = jg.fit(KEY, jg.StudentT.init(KEY, x[:, None]), x[:, None]).model
    np.testing.assert_allclose(float(fitted.df), best[0], rtol=0.02)
    # nats an event; EM ends where a step gains 1e-6
    assert float(fitted.log_prob(x[:, None]).mean()) > scipy.stats.t(*best).logpdf(x.astype(float)).mean() - 1e-4


def test_kmeans_keeps_the_digits_of_near_clusters():
    assert nearest(FAR, jnp.array([[1.0], [11.0], [1e6]])).tolist() == [0, 0, 0, 1, 1, 1, 2]
    chosen = np.asarray(kmeans(KEY, jnp.asarray(FAR), 3)[1])
    assert len(set(chosen[:3])) == len(set(chosen[3:6])) == 1 and len({chosen[0], chosen[3], chosen[6]}) == 3


def test_starts_are_not_steered_by_one_far_value():
    given = jg.Mixture.init(KEY, FAR, 3, jg.Gaussian.init, means=[[1.0], [11.0], [1e6]])
    np.testing.assert_allclose(given.components.mean[:, 0], [1, 11, 1e6], rtol=0.1)
    found = jg.HMM.init(KEY, FAR[None], 3, jg.Gaussian.init)
    np.testing.assert_allclose(np.sort(found.emissions.mean[:, 0]), [1, 11, 1e6], rtol=0.1)
    # a cluster of one event has a width
    alone = np.array([[0.0], [0.5], [1.0], [0.2], [0.7], [3.0]], np.float32)
    share = cluster_shares(KEY, jg.Gaussian.init(KEY, alone), jnp.asarray(alone), 2)
    assert (np.asarray(share) > 1e-4).all()
    rng = np.random.default_rng(0)
    for last in (1, 300):
        x = np.concatenate([rng.normal(c, 1, size=(n, 1)) for c, n in ((0, 300), (10, 300), (1e6, last))])
        small = x.astype(np.float32)
        parts = [scipy.stats.norm(part.mean(), max(part.std(), 1.4e-3)) for part in (x[:300], x[300:600], x[600:])]
        density = sum(n * p.pdf(x) for n, p in zip((300, 300, last), parts, strict=True)) / len(x)
        fitted = jg.fit(KEY, jg.Mixture.init(KEY, small, 3, jg.Gaussian.init), small).model
        # float32 rounds values of a million to a sixteenth
        assert abs(float(fitted.log_prob(small).mean()) - np.log(density).mean()) < 5e-3


def test_clusters_in_a_column_of_small_units_are_found():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=400) * 1e6, rng.normal(np.where(np.arange(400) < 200, 0, 8), 1) * 1e-6], 1)
    x = x.astype(np.float32)
    for fitted in (
        jg.fit(KEY, jg.Mixture.init(KEY, x, 2, jg.Gaussian.init), x).model.predict(x),
        jg.fit(KEY, jg.HMM.init(KEY, x[None], 2, jg.Gaussian.init), x[None]).model.predict(x[None])[0],
    ):
        right = np.mean(np.asarray(fitted) == (np.arange(400) < 200))
        assert max(right, 1 - right) == 1.0
    table = jg.select(KEY, x, (1, 2, 3), {"full": jg.Gaussian.init, "diagonal": jg.DiagonalGaussian.init}, restarts=4)
    assert (table.best().leaf, table.best().k) == ("diagonal", 2)


@model
class Divided:
    """A density whose M-step divides by its weight, as a newcomer writes it."""

    mean: jax.Array
    event_shape = (1,)

    def log_prob(self, x, *, context=None):
        return -0.5 * jnp.sum((x - self.mean) ** 2, axis=-1)

    def sample(self, key, shape=(), *, context=None):
        return self.mean + jax.random.normal(key, (*shape, 1))

    def e_step(self, x, weight):
        return (jnp.sum(weight), weight @ x), self.log_prob(x)

    def m_step(self, statistics):
        return Divided(statistics[1] / statistics[0])


def test_a_part_without_mass_keeps_its_parameters():
    x = jnp.asarray(np.random.default_rng(0).normal(np.where(np.arange(80) < 40, 0, 9)[:, None], 1), jnp.float32)
    components = Divided(jnp.array([[0.0], [9.0], [4.0]]))
    start = jg.Mixture.from_components(components, [0.5, 0.5, 0.0])
    fitted = jg.scan_fit(KEY, start, x, steps=5)
    assert fitted.model.weights[2] == 0 and fitted.model.components.mean[2] == 4 and fitted.history["repaired"][-1] == 1
    leaf = lambda key, x: Divided(jnp.mean(x, axis=0))  # noqa: E731
    table = jg.select(KEY, x, (1, 2, 3), {"divided": leaf})
    assert table.best().k == 2 and all(np.isfinite(row.bic) for row in table.rows)


def test_a_fit_that_ends_at_a_floor_says_so():
    x = np.stack([np.arange(8.0), np.full(8, 3.0)], axis=1).astype(np.float32)
    with pytest.warns(jg.JaxgenWarning, match="the last step repaired 1 of the model's parts"):
        jg.fit(KEY, jg.Gaussian.init(KEY, x), x, steps=2)


def test_no_step_in_float32_loses_where_covariances_are_singular():
    """Ten columns of which four are constant or follow from others."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 100, 6)) + 4 * rng.integers(0, 4, size=(4, 100, 1))
    x = np.concatenate([base, base[..., :2] @ [[1.0, 2.0], [0.5, -1.0]], np.full((4, 100, 2), 3.0)], axis=-1)
    x = x.astype(np.float32)
    fitted = jg.scan_fit(KEY, jg.HMM.init(KEY, x, 4, jg.Gaussian.init), x, steps=30)
    history = np.asarray(fitted.history["objective"], np.float64)
    assert np.isfinite(history).all() and history[-1] > history[0]
    # rounding of a sum of four hundred steps
    assert np.diff(history).min() >= -2e-5 * np.abs(history).max()


@pytest.mark.parametrize("units", [1e30, 1e-30, 7e37])
def test_mean_and_scale_have_no_units_beyond_which_squares_are_no_numbers(units):
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    for found, one in zip(mean_and_scale(x * np.float32(units)), mean_and_scale(x), strict=True):
        np.testing.assert_allclose(np.asarray(found, np.float64) / units, one, rtol=1e-5)
