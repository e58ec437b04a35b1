"""Information criteria, entropy and the selection of mixtures: mclust, scikit-learn, closed forms."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.data.folds import split_folds
from jaxgen.selection.restarts import padded_width

FULL, DIAGONAL = jg.Gaussian.init, jg.DiagonalGaussian.init
TIED = functools.partial(jg.Gaussian.init, tied=True)


@pytest.mark.parametrize(
    ("leaf", "k", "expected", "dtype"),
    [
        (FULL, 2, -574.0178, np.float64),
        (FULL, 2, -574.0178, np.float32),  # the program of all that follow: one says what rounding does to it
        (FULL, 3, -580.8389, np.float64),
        (TIED, 3, -632.9633, np.float64),
        (DIAGONAL, 2, -857.5515, np.float64),
    ],
    ids=["full 2", "full 2, float32", "full 3", "tied 3", "diagonal 2"],
)
def test_iris(leaf, k, expected, dtype):
    """BIC of the best of restarts, as mclust reports it, whose sign is the other one."""
    x = load_iris().data.astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        start = lambda key: jg.Mixture.init(key, x, k, leaf)  # noqa: E731
        fitted = jg.fit(jax.random.key(0), start, x, restarts=20, steps=1000, tolerance=1e-9)
        # the figures have four decimals; float32 rounds a sum of 150 log-densities
        assert -jg.bic(fitted.model, x) == pytest.approx(expected, abs=1e-3 if dtype == np.float64 else 2e-2)


def test_criteria_are_what_they_say():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = jg.Gaussian.init(jax.random.key(0), x)
    total = float(np.asarray(model.log_prob(x), np.float64).sum())
    assert latent.free_parameters(model) == 5
    assert jg.bic(model, x) == pytest.approx(5 * math.log(50) - 2 * total, abs=1e-3)
    assert jg.aic(model, x) == pytest.approx(10 - 2 * total, abs=1e-3)
    mixture = jg.Mixture.init(jax.random.key(0), x, 2, FULL)
    share = np.asarray(mixture.responsibilities(x), np.float64)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)))
    assert jg.icl(mixture, x) == pytest.approx(jg.bic(mixture, x) + 2 * entropy, abs=1e-2)


def test_entropy_of_a_gaussian():
    model = jg.Gaussian.from_values([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
    exact = 0.5 * math.log((2 * math.pi * math.e) ** 2 * (2 - 0.25))
    closed = jg.entropy(jax.random.key(0), model)
    assert closed.mean == pytest.approx(exact, abs=1e-5) and closed.kind == jg.Kind.EXACT  # float32 parameters
    estimate = jg.entropy(jax.random.key(0), jg.Mixture.from_components([model, model]))
    assert abs(estimate.mean - exact) < 5 * estimate.standard_error < 0.1
    assert estimate.kind == jg.Kind.ESTIMATE


def test_select_finds_the_number_of_clusters():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)) + c for c in ((0, 0), (8, 0), (0, 8))]).astype(np.float32)
    table = jg.select(jax.random.key(0), x, range(1, 5), {"full": FULL, "diagonal": DIAGONAL}, restarts=4)
    assert len(table.rows) == 8
    assert table.best("bic").k == 3
    for row in table.rows:
        assert row.bic == pytest.approx(jg.bic(row.model, x), abs=1e-2)
    assert "diagonal" in str(table)
    assert bool(jnp.isfinite(table.best("bic").model.log_prob(x)).all())


def test_weights_count_events():
    x = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
    weight = np.arange(30) % 3
    mixture = jg.Mixture.init(jax.random.key(0), x, 2, FULL)
    repeated = np.repeat(x, weight, 0)
    for criterion in (jg.bic, jg.aic, jg.icl):
        # nothing but the order of a float64 sum differs
        assert criterion(mixture, (x, None, weight)) == pytest.approx(criterion(mixture, repeated), rel=1e-6)


def test_missing_entries_are_left_out_of_the_likelihood():
    x = np.random.default_rng(2).normal(size=(40, 2)).astype(np.float32)
    x[::4, 1] = np.nan
    model = jg.Gaussian.from_values([0.1, -0.2], [[1.2, 0.4], [0.4, 0.9]], missing=True)
    both, first = x[~np.isnan(x[:, 1])], x[np.isnan(x[:, 1])][:, :1]
    complete = jg.Gaussian.from_values([0.1, -0.2], [[1.2, 0.4], [0.4, 0.9]])
    total = float(complete.log_prob(both).sum() + complete.marginal((0,)).log_prob(first).sum())
    assert jg.aic(model, x) == pytest.approx(10 - 2 * total, abs=1e-3)
    with pytest.raises(jg.DataError, match="NaN"):
        jg.aic(complete, x)


def test_criteria_refuse_what_is_no_exact_likelihood():
    x = np.zeros((4, 3), np.float32)
    rbm = jg.RBM.init(jax.random.key(0), x, 2)
    generator = jg.Generator.init(jax.random.key(0), x, jg.StandardNormal((2,)))
    for model in (rbm, generator):
        with pytest.raises(jg.ModelError, match="exact likelihood"):
            jg.bic(model, x)
        with pytest.raises(jg.ModelError, match="density"):
            jg.entropy(jax.random.key(0), model)
    with pytest.raises(jg.ModelError, match="responsibilities"):
        jg.icl(jg.StandardNormal((3,)), x)
    with pytest.raises(jg.DataError, match="label"):
        jg.bic(jg.StandardNormal((3,)), {"x": x, "label": [0, 0, 1, 1]})


SHORT_AND_LONG = (12, 30, 7)


@pytest.fixture(scope="module")
def counts():
    """A hidden Markov model of counts, and sequences of several lengths from it."""
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 8.0]))
    drawn = np.asarray(hmm.sample(jax.random.key(0), (3,), length=max(SHORT_AND_LONG)))
    return hmm, [row[:n] for row, n in zip(drawn, SHORT_AND_LONG, strict=True)]


def test_criteria_of_sequences_count_steps(counts, monkeypatch):
    hmm, rows = counts
    seen = [np.arange(len(row)) != 3 for row in rows]
    for data, steps in ((jg.Sequences.pack(rows), 49), (jg.Sequences.pack(rows, seen), 46)):
        log_prob, doubt = (np.asarray(f(data), np.float64) for f in (hmm.log_prob, hmm.path_entropy))
        found = jg.metrics.evidence(hmm, data, classify=True)
        assert (found.events, found.parameters) == (steps, 5)
        assert found.log_likelihood == pytest.approx(log_prob.sum(), abs=1e-9)
        assert found.icl == pytest.approx(5 * math.log(steps) + 2 * doubt.sum() - 2 * log_prob.sum(), abs=1e-9)
        assert jg.aic(hmm, data) == pytest.approx(10 - 2 * log_prob.sum(), abs=1e-9)
        assert jg.score(jax.random.key(0), hmm, data).mean == pytest.approx(log_prob.mean(), abs=1e-6)
        # a sequence at a time gives the same
        monkeypatch.setattr("jaxgen.metrics.information.CHUNK_EVENTS", 1)
        monkeypatch.setattr("jaxgen.metrics.events.CHUNK_EVENTS", 1)
        assert jg.bic(hmm, data) == pytest.approx(found.bic, abs=1e-4)
        assert jg.score(jax.random.key(0), hmm, data).mean == pytest.approx(log_prob.mean(), abs=1e-5)
        monkeypatch.undo()
    # one long sequence is as many observations as it has steps; a weight of 2 is the sequence twice
    assert jg.metrics.evidence(hmm, rows[1][None]).events == 30
    weighted = jg.metrics.evidence(hmm, (jg.Sequences.pack(rows), None, [1.0, 2.0, 0.0]))
    twice = jg.metrics.evidence(hmm, jg.Sequences.pack([rows[0], rows[1], rows[1]]))
    assert weighted.events == twice.events == 72
    assert weighted.log_likelihood == pytest.approx(twice.log_likelihood, rel=1e-6)


def test_criteria_of_gaussian_series():
    x = np.random.default_rng(5).normal(size=(3, 20, 2)).astype(np.float32)
    hmm = jg.HMM.init(jax.random.key(0), x, 2, functools.partial(DIAGONAL, missing=True))
    log_prob = np.asarray(hmm.log_prob(x), np.float64)
    assert jg.bic(hmm, x) == pytest.approx(11 * math.log(60) - 2 * log_prob.sum(), abs=1e-3)
    assert jg.score(jax.random.key(0), hmm, x).mean == pytest.approx(log_prob.mean(), abs=1e-5)
    x[0, :5, 0] = np.nan
    x[1, :5] = np.nan
    # steps of which nothing was seen are no observations, others are
    assert jg.metrics.evidence(hmm, x).events == 55
    series = jg.Mixture.from_components([hmm, hmm.permute([1, 0])])
    # two names of one model: nobody knows which sequence is whose
    assert jg.metrics.evidence(series, x, classify=True).entropy == pytest.approx(3 * math.log(2), abs=1e-4)


def test_entropy_of_mixtures_and_symbols():
    # parts that do not meet: the entropy of the choice and of each part
    parts = jg.DiagonalGaussian.from_values([[-50.0], [50.0]], [[1.0], [2.0]])
    exact = -0.25 * math.log(0.25) - 0.75 * math.log(0.75) + 0.5 * math.log(2 * math.pi * math.e) + 0.75 * math.log(2)
    estimate = jg.entropy(jax.random.key(1), jg.Mixture.from_components(parts, [0.25, 0.75]), samples=40_000)
    assert abs(estimate.mean - exact) < 5 * estimate.standard_error < 0.05
    assert estimate.events == 40_000
    symbols = jg.Categorical.from_values([0.2, 0.3, 0.5])
    exact = -sum(p * math.log(p) for p in (0.2, 0.3, 0.5))
    assert jg.entropy(jax.random.key(2), symbols).mean == pytest.approx(exact, abs=1e-6)
    with pytest.raises(jg.FitError, match="samples"):
        jg.entropy(jax.random.key(0), symbols, samples=1)


@pytest.mark.parametrize("leaf", [FULL, TIED, DIAGONAL], ids=["full", "tied", "diagonal"])
def test_components_of_weight_zero_change_nothing(leaf):
    """The steps of EM on a padded mixture are those on the mixture."""
    x = load_iris().data.astype(np.float32)
    small = jg.Mixture.init(jax.random.key(0), x, 3, leaf)
    idle = jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[:1], 4, 0)]), small.components)
    padded = jg.Mixture(jnp.concatenate([small.logits, jnp.full(4, -jnp.inf)]), idle, None)
    one = jg.scan_fit(jax.random.key(1), small, x, jg.EM(), steps=25)
    other = jg.scan_fit(jax.random.key(1), padded, x, jg.EM(), steps=25)
    # rounding of float32
    np.testing.assert_allclose(other.history["log_likelihood"], one.history["log_likelihood"], rtol=2e-6)
    np.testing.assert_allclose(other.model.weights[:3], one.model.weights, atol=2e-5)
    assert (np.asarray(other.model.weights[3:]) == 0).all()
    first = algebra.take(other.model.components, slice(3))
    np.testing.assert_allclose(first.mean, one.model.components.mean, atol=1e-4)


def test_select_on_old_faithful():
    """The table of a data set that every text on mixtures fits, with what was found by others."""
    x = jg.data.old_faithful().values.astype(np.float32)
    kinds = jg.gaussian_leaves()
    table = jg.select(jax.random.key(0), x, (1, 2, 3), {name: kinds[name] for name in ("full", "tied")})
    rows = {(row.leaf, row.k): row for row in table.rows}
    assert [*rows] == [(leaf, k) for leaf in ("full", "tied") for k in (1, 2, 3)]
    for leaf, k in (("full", 2), ("tied", 3)):
        peer = GaussianMixture(k, covariance_type=leaf, n_init=3, tol=1e-8, max_iter=1000, reg_covar=0, random_state=0)
        expected = peer.fit(x.astype(np.float64)).bic(x.astype(np.float64))
        assert rows[leaf, k].aic == pytest.approx(peer.aic(x.astype(np.float64)), abs=0.03)
        # EM stops where a step gains less than 1e-6 nats per event: what is left of 272 of them is a hundredth or so
        assert rows[leaf, k].bic == pytest.approx(expected, abs=0.03)
    best = table.best()
    assert (best.leaf, best.k, best.status, best.repaired, best.parameters) == ("tied", 3, jg.Status.CONVERGED, 0, 11)
    for row in table.rows:
        assert row.model.logits.shape == (row.k,)
        assert jg.icl(row.model, x) == pytest.approx(row.icl, abs=1e-2)
        assert row.bic - row.aic == pytest.approx(row.parameters * (math.log(272) - 2), abs=1e-6)
    columns = table.as_dict()
    assert {len(column) for column in columns.values()} == {6}
    assert columns["status"][0] == "CONVERGED"
    assert f"{best.bic:.2f}*" in str(table)
    assert f"{best.bic:.2f}" in table._repr_html_()
    with pytest.raises(jg.FitError, match="held_out"):
        table.best("held_out")
    with pytest.raises(jg.FitError, match="no such criterion"):
        table.best("r2")


def test_a_repaired_fit_does_not_compete():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 1)), np.full((10, 1), 30.0)]).astype(np.float32)
    # a second component on one value has no variance but the floor
    table = jg.select(jax.random.key(0), x, (1, 2, 4), {"diagonal": DIAGONAL}, restarts=2)
    one, two, _ = table.rows
    assert (one.repaired, two.repaired) == (0, 1)
    assert two.bic < one.bic
    assert table.best().k == 1
    assert table.best(repaired=True).k > 1
    assert "!" in str(table)


def test_a_fit_that_fails_is_a_row():
    x = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    none = jg.gaussian_leaves(floor=math.nan)["diagonal"]
    table = jg.select(jax.random.key(0), x, (1, 2), {"none": none, "fair": DIAGONAL}, restarts=2)
    row = next(row for row in table.rows if row.leaf == "none" and row.k == 2)
    assert (row.status, row.restarts_failed) == (jg.Status.NON_FINITE, 2)
    assert math.isnan(row.bic)
    assert table.best().leaf == "fair"
    assert "x failed" in str(table)


def test_held_out_data_and_folds():
    rng = np.random.default_rng(3)
    x, new = (rng.normal(size=(n, 2)).astype(np.float32) for n in (41, 30))
    key = jax.random.key(0)
    table = jg.select(key, x, (1, 2), {"full": FULL}, restarts=1, validation=new)
    for row in table.rows:
        assert row.held_out == pytest.approx(jg.score(key, row.model, new).mean, abs=1e-5)
    crossed = jg.select(key, x, (1, 2), {"full": FULL}, restarts=1, folds=4)
    assert "4 folds" in str(crossed)
    total, seen = 0.0, 0
    for fitted, part in split_folds(key, jg.Batch(jnp.asarray(x)), 4, ""):
        counted = part.x[np.asarray(part.weight) > 0]
        assert not (np.asarray(counted)[:, None] == np.asarray(fitted.x)[None]).all(-1).any()
        total, seen = total + float(FULL(key, fitted.x).log_prob(counted).sum()), seen + len(counted)
    assert seen == 41
    assert crossed.rows[0].held_out == pytest.approx(total / 41, abs=1e-4)
    with pytest.raises(jg.FitError, match="both"):
        jg.select(key, x, (1,), folds=2, validation=new)


def test_select_on_weights_holes_and_bits():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 9]).astype(np.float32)
    weight = rng.integers(0, 3, size=80)
    table = jg.select(jax.random.key(0), (x, None, weight), (1, 2), {"diagonal": DIAGONAL}, restarts=2)
    again = jg.select(jax.random.key(0), np.repeat(x, weight, 0), (1, 2), {"diagonal": DIAGONAL}, restarts=2)
    assert table.events == again.events == weight.sum()
    # two searches that end within the tolerance of one maximum
    np.testing.assert_allclose(table.as_dict()["bic"], again.as_dict()["bic"], atol=0.02)
    x[::7, 0] = np.nan
    missing = jg.gaussian_leaves(missing=True)
    holes = jg.select(jax.random.key(0), x, (1, 2), {"spherical": missing["spherical"]}, restarts=2)
    assert holes.best().k == 2
    with pytest.raises(jg.DataError, match="not finite"):
        jg.select(jax.random.key(0), x, (1, 2), {"diagonal": DIAGONAL})
    bits = np.concatenate([rng.random((60, 6)) < p for p in (0.1, 0.9)]).astype(np.int32)
    found = jg.select(jax.random.key(0), bits, (1, 2, 3), {"bits": jg.Bernoulli.init}, restarts=2)
    assert found.best().k == 2
    assert [row.parameters for row in found.rows] == [6, 13, 20]
    assert [row.repaired for row in found.rows] == [0, 0, 0]


def test_select_finds_the_number_of_states():
    # three clear states that stay a while
    move = 0.85 * np.eye(3) + 0.05
    truth = jg.HMM.from_values(None, move, jg.Poisson.from_values([1.0, 12.0, 40.0]))
    lengths = (100, 128, 60)
    drawn = np.asarray(truth.sample(jax.random.key(0), (7,), length=128))
    data, key = jg.Sequences.pack([row[:n] for row, n in zip(drawn, lengths, strict=False)]), jax.random.key(0)
    new = drawn[3:, :100]
    leaves = {"counts": jg.Poisson.init}
    table = jg.select(key, data, (2, 3, 4), leaves, family=jg.HMM.init, restarts=3, steps=100, validation=new)
    assert table.events == 288
    assert "288 observations" in str(table)
    assert {by: table.best(by).k for by in ("bic", "icl")} == {"bic": 3, "icl": 3}
    for row in table.rows:
        assert isinstance(row.model, jg.HMM) and row.model.chain.states == row.k
        assert row.parameters == row.k * row.k - 1 + row.k
        assert row.bic == pytest.approx(row.parameters * math.log(288) - 2 * row.log_likelihood, abs=1e-6)
    best = table.best()
    order = np.argsort(best.model.emissions.rate)
    # 100 steps or so of each state: three standard errors of the largest rate are 2
    np.testing.assert_allclose(best.model.emissions.rate[order], [1, 12, 40], atol=2)
    # held-out nats are those of a step
    assert best.held_out == pytest.approx(float(best.model.log_prob(new).sum()) / 400, abs=1e-4)
    # a maximum lies above the truth
    assert best.log_likelihood > float(np.asarray(truth.log_prob(data), np.float64).sum())
    # folds take whole sequences
    seen = [part.x.length[np.asarray(part.weight) > 0] for _, part in split_folds(key, jg.Batch(data), 2, "")]
    assert sorted(np.concatenate(seen).tolist()) == sorted(lengths)
    with pytest.raises(jg.ModelError, match="from 1"):
        jg.select(key, data, (0,), leaves, family=jg.HMM.init)


def test_progress_is_silent_where_it_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # an import of it would be an error
    x, leaves = np.arange(10.0, dtype=np.float32).reshape(5, 2), {"diagonal": DIAGONAL}
    for shown in (False, None):
        assert len(jg.select(jax.random.key(0), x, (1,), leaves, restarts=1, progress=shown).rows) == 1
    with pytest.raises(ImportError):
        jg.select(jax.random.key(0), x, (1,), leaves, restarts=1, progress=True)


def test_programs_are_few_and_not_too_wide():
    assert {padded_width(k, 20, 272) for k in range(1, 21)} == {20}
    widths = [padded_width(k, 20, 10**6) for k in range(1, 21)]
    assert sorted(set(widths)) == [1, 2, 3, 5, 10, 20]
    assert all(k <= width < 2 * k + 1 for k, width in enumerate(widths, 1))


def test_select_refuses():
    key, x = jax.random.key(0), np.zeros((5, 2), np.float32)
    for ks in ((), (0,), (6,), (1.5,), (True,)):
        with pytest.raises(jg.ModelError, match="1 to 5"):
            jg.select(key, x, ks)
    with pytest.raises(jg.FitError, match="EM does not apply"):
        jg.select(key, x, (1,), {"normal": lambda key, x: jg.StandardNormal((2,))})
    with pytest.raises(jg.FitError, match="label"):
        jg.select(key, {"x": x, "label": [0, 1, 0, 1, 0]}, (1,))
    with pytest.raises(jg.FitError, match="folds"):
        jg.select(key, x, (1,), folds=9)
    with pytest.raises(jg.FitError, match="restarts"):
        jg.select(key, x, (1,), restarts=0)
