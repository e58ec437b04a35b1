"""Random fields of pairs against enumeration by numpy, exact lattices, and the definition of Gibbs sampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import jaxgen as jg
from jaxgen import units
from jaxgen.metrics import ais, bracket
from jaxgen.ops import graphs

TRIANGLE = [[0, 1], [1, 2], [0, 2]]
#: a ring of five, two chords and a site for itself, the seventh
EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [0, 2], [1, 4], [4, 5]])
RNG = np.random.default_rng(0)
COUPLINGS, FIELD = RNG.normal(size=8), 0.5 * RNG.normal(size=7)
POTTS_FIELD = 0.5 * RNG.normal(size=(7, 3))


def spins():
    return jg.RandomField.ising(EDGES, COUPLINGS.astype(np.float32), FIELD.astype(np.float32))


def labels():
    return jg.RandomField.potts(EDGES, COUPLINGS.astype(np.float32), 3, POTTS_FIELD.astype(np.float32))


def enumerated(kind):
    """All states, their log-weights in float64, and what of them has means."""
    values = {"ising": (-1, 1), "potts": (0, 1, 2)}[kind]
    x = np.array(list(itertools.product(values, repeat=7)))
    i, j = EDGES.T
    if kind == "ising":
        return x, x @ FIELD + (x[:, i] * x[:, j]) @ COUPLINGS, x
    own = POTTS_FIELD[np.arange(7), x].sum(axis=1)
    return x, own + (x[:, i] == x[:, j]) @ COUPLINGS, (x[..., None] == np.arange(3)).reshape(len(x), -1)


MODELS = {"ising": spins, "potts": labels}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 5e-8), (np.float32, 1e-6)])
def test_the_frustrated_triangle(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        triangle = jg.RandomField.ising(TRIANGLE, dtype(-1), np.array([0.2, 0, 0], dtype))
        assert triangle.sites.shape == (3, 1), "a triangle needs three colours"
        log_z, mean = triangle.log_partition(), triangle.marginals()
        assert log_z.dtype == dtype
    np.testing.assert_allclose(log_z, 2.8177142, atol=tolerance)
    np.testing.assert_allclose(mean[0], 0.1973753, atol=tolerance)


@pytest.mark.parametrize("kind", MODELS)
def test_equals_enumeration(kind):
    x, log_weight, statistic = enumerated(kind)
    model, log_z = MODELS[kind](), scipy.special.logsumexp(log_weight)
    np.testing.assert_allclose(-model.energy(x), log_weight, atol=1e-5)
    np.testing.assert_allclose(model.log_partition(), log_z, atol=1e-5)
    p = np.exp(log_weight - log_z)
    np.testing.assert_allclose(model.marginals(), p @ statistic, atol=1e-5)
    # the gradient of log Z by a coupling is how alike its ends are
    alike = jax.grad(lambda m: m.log_partition(), allow_int=True)(model).couplings
    i, j = EDGES.T
    ends = x[:, i] * x[:, j] if kind == "ising" else x[:, i] == x[:, j]
    np.testing.assert_allclose(alike, p @ ends, atol=1e-5)
    # the pseudo-likelihood from the same table: p(x_i | rest) is p over its sum over x_i
    cube = np.log(p).reshape((2 if kind == "ising" else 3,) * 7)
    pseudo = sum(cube - scipy.special.logsumexp(cube, axis=a, keepdims=True) for a in range(7))
    np.testing.assert_allclose(model.pseudo_log_likelihood(x), pseudo.reshape(-1), atol=2e-5)


def transition(model, method, x, rows):
    """Frequencies of where a kernel leads from the given states, `[rows, states]`."""
    draws, base = 20_000, len(np.unique(x))
    start = jnp.repeat(jnp.asarray(x[rows], jnp.float32), draws, axis=0)
    got = np.asarray(getattr(model, method)(jax.random.key(3), start)).reshape(len(rows), draws, -1)
    code = ((got - x.min()) / ((x.max() - x.min()) / (base - 1))).round().astype(int) @ base ** np.arange(6, -1, -1)
    return np.stack([np.bincount(c, minlength=base**7) for c in code]) / draws


@pytest.mark.parametrize("method", ["kernel", "reverse_kernel"])
def test_a_sweep_updates_every_site_once_in_the_order_of_the_colours(method):
    """Its transition probabilities are the product of single-site conditionals, in numpy from the enumeration."""
    x, log_weight, _ = enumerated("ising")
    model, rows = spins(), [0, 45, 127]
    colours = np.asarray(model.sites)[:: -1 if method == "reverse_kernel" else 1]
    order = np.concatenate([row[row < 7] for row in colours])
    p = np.exp(log_weight).reshape((2,) * 7)
    expected = []
    for row in rows:
        reach = np.zeros((2,) * 7)
        reach[tuple((x[row] + 1) // 2)] = 1
        for site in order:
            reach = reach.sum(axis=site, keepdims=True) * (p / p.sum(axis=site, keepdims=True))
        expected.append(reach.reshape(-1))
    # 20,000 draws: four standard errors of the most frequent states, over 384 of them
    assert np.abs(transition(model, method, x, rows) - np.array(expected)).max() < 4.5 * 0.5 / 20_000**0.5


@pytest.mark.parametrize("kind", MODELS)
def test_sample_tends_to_p_and_observed_sites_stay(kind):
    x, log_weight, statistic = enumerated(kind)
    model = MODELS[kind]()
    # six standard errors of 10,000 draws, the correlation left after 60 sweeps included
    draws = model.sample(jax.random.key(0), (10_000,), sweeps=60)
    seen = np.asarray(model.units.statistic(draws)).mean(axis=0)
    np.testing.assert_allclose(seen, model.marginals(), atol=0.06)
    observed = np.arange(7) < 2
    held = np.broadcast_to(x[0], (10_000, 7)).astype(np.float32)
    clamped = jax.lax.fori_loop(
        0, 60, lambda t, x: model.kernel(jax.random.fold_in(jax.random.key(1), t), x, observed=observed), held
    )
    np.testing.assert_array_equal(clamped[:, :2], held[:, :2])
    among = (x[:, :2] == x[0, :2]).all(axis=1)
    p = scipy.special.softmax(log_weight[among])
    np.testing.assert_allclose(
        np.asarray(model.units.statistic(clamped)).mean(axis=0), p @ statistic[among], atol=0.06
    )


def test_annealing_brackets_the_exact_lattice():
    """A torus of 4 by 4 spins at the critical temperature, by enumeration of its 65536 states."""
    model = jg.RandomField.ising(graphs.lattice((4, 4)), np.float32(0.4407), jnp.full(16, 0.05))
    exact = float(model.log_partition())
    assert abs(float(ais(jax.random.key(0), model, chains=500, steps=300).log_z) - exact) < 0.05
    found = bracket(jax.random.key(1), model, chains=300, steps=300)
    assert found.low < exact < found.high
    assert found.width < 0.5
    path = model.annealing_path()
    assert float(path.at(0.0).log_partition()) == pytest.approx(16 * np.log(2), abs=1e-5)
    assert float(path.log_partition()) == pytest.approx(16 * np.log(2), abs=1e-5)
    np.testing.assert_array_equal(path.at(1.0).edges, model.edges)


def test_couplings_are_learned_and_other_weights_compile_nothing():
    true = spins()
    x = true.sample(jax.random.key(0), (4000,), sweeps=60)
    start = jg.RandomField.ising(EDGES, 0.0, np.zeros(7, np.float32))
    fitted = jg.fit(jax.random.key(1), start, x, jg.ContrastiveDivergence(), steps=1500, batch_size=256)
    before, after, best = (
        float(-m.energy(x).mean() - m.log_partition()) for m in (start, fitted.model, true)
    )
    assert before < best - 1
    assert after > best - 0.02  # of fifteen parameters from 4000 events: about 15 / (2 * 4000), and the chains' noise
    np.testing.assert_array_equal(fitted.model.sites, start.sites)

    @jax.jit
    def sweep(model, x):
        traces.append(1)
        return model.kernel(jax.random.key(0), x)

    traces = []
    for model in (true, fitted.model):
        sweep(model, x)
    assert len(traces) == 1


def test_gaussian_sites_are_the_gaussian_that_they_are():
    """Precision `1 - J` in the units of the sites: variances after many sweeps against numpy's inverse."""
    field = jg.RandomField.from_edges(units.Gaussian.from_values(np.zeros(3), [1.0, 2.0, 0.5]), TRIANGLE, 0.4)
    draws = np.asarray(field.sample(jax.random.key(0), (20_000,), sweeps=100))
    scale = np.diag([1.0, 2.0, 0.5])
    covariance = scale @ np.linalg.inv(1.4 * np.eye(3) - 0.4) @ scale
    # 20,000 draws of variances up to 8.6: five standard errors, sqrt(2 / n) of each
    np.testing.assert_allclose(np.cov(draws.T) / np.sqrt(np.outer(*2 * [covariance.diagonal()])),
                               covariance / np.sqrt(np.outer(*2 * [covariance.diagonal()])), atol=0.05)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_colours_and_tables_of_random_graphs(seed):
    rng = np.random.default_rng(seed)
    n = 60
    edges = np.argwhere(np.triu(rng.random((n, n)) < 0.1, 1))
    colour = graphs.colouring(edges, n)
    degree = np.bincount(edges.reshape(-1), minlength=n)
    assert (colour[edges[:, 0]] != colour[edges[:, 1]]).all()
    assert colour.max() <= degree.max()
    table = graphs.neighbours(edges, n)
    assert sorted(table.sites[table.sites < n]) == list(range(n))
    for c, m in np.argwhere(table.sites < n):
        real = table.edges[c, m] < len(edges)
        site, near = table.sites[c, m], edges[table.edges[c, m][real]]
        assert sorted(table.others[c, m][real]) == sorted(near[near != site]) and (near == site).any(axis=1).all()
        assert real.sum() == degree[site]


def test_lattices():
    assert len(graphs.lattice((3, 4))) == 24 and len(graphs.lattice((3, 4), periodic=False)) == 17
    assert graphs.colouring(graphs.lattice((4, 6)), 24).max() == 1, "two colours, as a chessboard"
    assert graphs.neighbours(graphs.lattice((4, 4)), 16).others.shape == (2, 8, 4)
    matrix = np.zeros((3, 3), np.float32)
    matrix[0, 2] = matrix[2, 0] = 1.5
    field = jg.RandomField.from_matrix(units.Spin.zeros(3), matrix)
    assert field.edges.tolist() == [[0, 2]] and field.couplings.tolist() == [1.5]
    matrix[2, 0] = np.nextafter(matrix[2, 0], np.float32(2))  # as it comes of other arithmetic
    assert jg.RandomField.from_matrix(units.Spin.zeros(3), matrix).couplings.tolist() == [1.5]
    alone = jg.RandomField.from_edges(units.Spin.zeros(1), [], 0.0)
    assert float(alone.log_partition()) == pytest.approx(np.log(2))
    assert set(np.unique(alone.sample(jax.random.key(0), (20,), sweeps=2))) == {-1.0, 1.0}


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: jg.RandomField.ising([[0, 0]], 1.0), jg.ModelError, "itself"),
    (lambda: jg.RandomField.ising([[0, 1], [1, 0]], 1.0), jg.ModelError, "twice"),
    (lambda: jg.RandomField.ising([[0, 3]], 1.0, np.zeros(3)), jg.ModelError, "no site"),
    (lambda: jg.RandomField.ising([[0.5, 1.0]], 1.0), jg.ModelError, "whole numbers"),
    (lambda: jg.RandomField.ising([0, 1, 2], 1.0), jg.ShapeError, "pairs"),
    (lambda: jg.RandomField.ising(TRIANGLE, [1.0, 2.0]), jg.ModelError, "couplings"),
    (lambda: jg.RandomField.ising(TRIANGLE, np.nan), jg.DataError, "finite"),
    (lambda: jg.RandomField.ising([], 1.0), jg.ModelError, "n >= 1"),
    (lambda: jg.RandomField.potts(TRIANGLE, 1.0, 3, np.zeros((3, 2))), jg.ModelError, "states"),
    (lambda: jg.RandomField.from_matrix(units.Spin.zeros(2), [[0.0, 1.0], [2.0, 0.0]]), jg.ModelError, "symmetric"),
    (lambda: jg.RandomField.from_matrix(units.Spin.zeros(3), np.eye(2)), jg.ShapeError, "pair"),
    (lambda: jg.RandomField.from_edges(units.Group.of(units.Spin.zeros(3)), TRIANGLE, 1.0), jg.ModelError, "one kind"),
    (lambda: jg.RandomField.ising(graphs.lattice((5, 5)), 1.0).log_partition(), jg.ModelError, "2\\^25"),
    (lambda: jg.RandomField.from_edges(units.Gaussian.zeros(3), TRIANGLE, 0.1).log_partition(), jg.ModelError, "cont"),
    (lambda: spins().check_data(np.zeros((2, 7))), jg.DataError, "spins"),
    (lambda: labels().check_data(np.full((2, 7), 3)), jg.DataError, "labels"),
    (lambda: spins().energy(np.ones((2, 6))), jg.ShapeError, "7"),
    (lambda: spins().kernel(jax.random.key(0), np.ones(7), observed=np.ones(6, bool)), jg.ShapeError, "mask"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call()
