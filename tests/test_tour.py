"""The tour: rows, table, page; a part that fails is reported. And the scores it is made of."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import jaxgen as jg
from jaxgen import tour
from jaxgen.core.protocols import Kind
from jaxgen.core.scores import Score
from jaxgen.metrics import likelihood
from jaxgen.report import HEADER, Failed, Row, Timing, cells, sums, verdict
from jaxgen.tour import applications
from jaxgen.tour.run import USES
from jaxgen.tour.shared import forecast, order_one, thirds
from jaxgen.tour.uses import Asked


def broken(key, quick):
    raise jg.ModelError("no <such> model", called="broken(key)")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    parts = {"Gaussian mixture": tour.PARTS["Gaussian mixture"], "no & part": broken,
             "hidden Markov model": tour.PARTS["hidden Markov model"]}  # fmt: skip
    return tour.tour(tmp_path_factory.mktemp("tour") / "new", quick=True, parts=parts)


def test_rows(run, capsys):
    row = run.rows["Gaussian mixture"]
    assert row.kind == Kind.EXACT
    assert row.held_out > row.baselines["one Gaussian"]
    assert row.timing.samples_per_second > 0
    d = jg.data.old_faithful()
    train, test = d.values[d.train], d.values[d.test]
    one = scipy.stats.multivariate_normal(train.mean(0), np.cov(train.T, bias=True))
    # the floor of a millionth of the variance, and float32 minutes
    assert row.baselines["one Gaussian"] == pytest.approx(one.logpdf(test).mean(), abs=1e-3)


def test_seconds_add_up(run):
    rows = [row for row in run.rows.values() if isinstance(row, Row)]
    for row in rows:
        assert 0 < row.timing.compile + row.timing.fit <= row.timing.total
    total = sum(row.timing.total for row in rows)
    assert 0 < total <= run.seconds
    assert sums(run.rows)[HEADER.index("total s")] == cells("", rows[0]._replace(timing=Timing(1, 1, 1, total)))[9]


def test_units_and_introduction(run):
    text = run.page.read_text(encoding="utf-8")
    assert "3 generative models" in text
    assert cells("n", run.rows["hidden Markov model"])[HEADER.index("per")] == "year"
    assert run.page.with_name("tour.png").read_bytes()[1:4] == b"PNG"


def test_forecast_is_conditional(run):
    """log p(later | earlier) of the HMM, and the one Poisson's by scipy."""
    d = jg.data.earthquakes()
    row = run.rows["hidden Markov model"]
    train, test = d.counts[d.train], d.counts[d.test]
    last = d.counts[d.test - 1]
    low, high = np.quantile(train, (1 / 3, 2 / 3))
    rates = [train[1:][(train[:-1] > a) & (train[:-1] <= b)].mean() for a, b in ((-1, low), (low, high), (high, 99))]
    chain = scipy.stats.poisson(np.choose((last > low) + 0 + (last > high), rates)).logpmf(test).mean()
    expected = {
        "one Poisson": scipy.stats.poisson(train.mean()).logpmf(test).mean(),
        "Poisson of last year's count": scipy.stats.poisson(last).logpmf(test).mean(),
        "Markov chain of thirds": chain,
    }
    assert row.baselines == pytest.approx(expected, abs=1e-4)  # float32
    assert row.best == max(expected, key=expected.get)
    x = jnp.asarray(d.counts, jnp.float32)
    model, _ = jg.recipes.hidden_markov(jax.random.key(0), x[None], 2, leaf=jg.Poisson.init)
    joint = float(model.log_prob(x)), float(model.log_prob(x[:80]))
    # sums of 107 float32 terms
    assert forecast(model, x, 80).mean() == pytest.approx((joint[0] - joint[1]) / 27, abs=1e-4)


def test_markov_chain_of_characters():
    codes = np.random.default_rng(0).integers(0, 3, 60)
    counts = np.ones((3, 3))  # a prior of two is one count more of each
    np.add.at(counts, (codes[:39], codes[1:40]), 1)
    expected = np.log(counts / counts.sum(1, keepdims=True))[codes[39:59], codes[40:]].mean()
    leaf = jg.Categorical.init(jax.random.key(0), codes[:40], size=3, prior=2.0)
    got = order_one(leaf, codes[1:40], codes[:39], (codes[40:], codes[39:59]))
    assert got.mean() == pytest.approx(expected, abs=1e-5)  # float32
    assert thirds(np.array([0.0, 1, 2, 3, 4, 5, 99]), np.arange(6)).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_failure_is_reported(run, tmp_path, capsys):
    assert run.failed == ["no & part"]
    assert isinstance(run.rows["no & part"], Failed)
    result = tour.tour(tmp_path, quick=True, parts={"bad": broken})
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert "ModelError: no <such> model" in out
    assert "Traceback" in err
    assert result.failed == ["bad"]


def test_page_loads_nothing(run):
    text = run.page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text)
    assert sources
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    ids = set(re.findall(r'id="([^"]+)"', text))
    assert {s[1:] for s in sources if s.startswith("#")} == ids
    assert "no &amp; part" in text
    assert "&lt;such&gt;" in text
    pictures = sorted(p.name for p in run.page.parent.glob("*.png"))
    assert pictures == ["a-made-table-1.png", "gaussian-mixture-1.png", "hidden-markov-model-1.png", "tour.png"]


def test_families_are_put_to_use(run, tmp_path, monkeypatch):
    assert list(run.uses) == ["a made table"]  # of the one family here that has a use
    use = run.uses["a made table"]
    assert use.family == "Gaussian mixture"
    assert use.best == min(use.baselines, key=use.baselines.get)
    assert 0 < use.seconds < run.seconds
    text = run.page.read_text(encoding="utf-8")
    assert "What models are for" in text
    assert f"{use.number:.3f}" in text
    assert {asked.family for asked in USES.values()} <= set(tour.PARTS)
    assert len({asked.family for asked in USES.values()}) == len(USES)

    def fails(key, kept, quick):
        raise jg.ModelError("no use", called="fails(key, kept, quick)")

    monkeypatch.setitem(USES, "a made table", Asked("Gaussian mixture", fails))
    parts = {"Gaussian mixture": lambda key, quick: run.rows["Gaussian mixture"]}
    assert tour.tour(tmp_path, quick=True, parts=parts).failed == ["a made table"]


def test_baselines_of_uses_are_scikit_learns():
    rng = np.random.default_rng(0)
    train, x = rng.normal(size=(80, 3)) * [1, 2, 3] + 5, rng.normal(size=(40, 3)) * 4
    covariance = EmpiricalCovariance().fit(train)
    covariance.covariance_ = covariance.covariance_ * 80 / 79 + 0.01 * np.eye(3)
    covariance.precision_ = np.linalg.inv(covariance.covariance_)
    np.testing.assert_allclose(applications.mahalanobis(train, x), covariance.mahalanobis(x), rtol=1e-10)
    everything = np.concatenate([train, x])
    components = PCA(2).fit(train).transform(everything)
    ours = applications.principal(everything, np.arange(80), 2)[:, ::-1]
    np.testing.assert_allclose(np.abs(ours), np.abs(components), rtol=1e-8, atol=1e-10)  # up to signs
    score, strange = rng.normal(size=60).round(1), rng.random(60) < 0.3  # with ties
    assert applications.auroc(score, strange) == pytest.approx(roc_auc_score(strange, score), abs=1e-12)
    same = [applications.told_by_neighbours(*rng.normal(size=(2, 200, 2))) for _ in range(10)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.03)  # three standard errors of 4000 rows, of which pairs depend
    assert applications.told_by_neighbours(train, x[:80] + 100) == 1


def test_posterior_of_a_simulated_year_is_that_of_its_weeks():
    """Likelihoods of the summaries differ from those of all weeks by a constant; the grid's density sums to one."""
    theta = np.array([[1.2, 1.7], [2.5, 3.0]])
    weeks = scipy.stats.gamma(1.5, scale=0.8).rvs(applications.WEEKS, random_state=0)
    x = np.array([np.log(weeks.mean()), np.log(weeks).mean()])
    full = scipy.stats.gamma(theta[:, :1], scale=theta[:, 1:] / theta[:, :1]).logpdf(weeks).sum(axis=1)
    np.testing.assert_allclose(np.diff(applications.year_log_likelihood(theta, x)), np.diff(full), rtol=1e-10)
    finer, area = applications.prior_grid(300)
    flat = finer.reshape(-1, 2)
    density = np.exp(applications.year_log_likelihood(flat, x) - applications.year_log_likelihood(theta[:1], x))
    density *= np.exp(applications.exact_log_posterior(theta[:1], x[None]))
    assert density.sum() * area == pytest.approx(1, abs=1e-3)  # two grids
    made = np.asarray(applications.simulated_year(jax.random.key(0), jnp.asarray(np.tile(theta[:1], (4000, 1)))))
    # the mean of 52 draws of a gamma is a gamma: expectations of its log, and of one draw's
    shape, mean = theta[0]
    exact = [scipy.special.digamma(n * shape) - np.log(n * shape / mean) for n in (52, 1)]
    np.testing.assert_allclose(made.mean(axis=0), exact, atol=0.01)  # four standard errors


def test_cells_are_short():
    row = Row("d", Kind.EXACT, "u", -1.5, {"a": -2.0, "b": -1.25}, Timing(0.004, 1_234_567.0, 12.34, 123.4), "", [])
    assert cells("n", row) == ["n", "d", "exact", "u", "-1.500", "-1.250", "b", "12", "0.0040", "123", "1.23 M"]
    assert "loses" in verdict(row)
    assert "beats" in verdict(row._replace(held_out=-1.0))
    nothing = cells("n", row._replace(held_out=None, baselines={}, timing=Timing(9.96, 5.0)))
    assert nothing[4:] == ["", "", "", "0.0", "10", "0.0", "5"]


def test_every_family_has_a_part():
    assert len(tour.PARTS) >= 7
    assert all(callable(part) for part in tour.PARTS.values())


def test_score_of_a_density(monkeypatch):
    model = jg.DiagonalGaussian.from_values([0.5, -1.0], [1.0, 3.0])
    x = np.random.default_rng(0).normal(size=(103, 2)).astype(np.float32)
    exact = scipy.stats.norm([0.5, -1.0], [1.0, 3.0]).logpdf(x.astype(np.float64)).sum(-1)
    for events in (2048, 10):  # one chunk; eleven, the last moved back
        monkeypatch.setattr("jaxgen.metrics.events.CHUNK_EVENTS", events)
        score = likelihood.score(jax.random.key(0), model, x)
        assert score.mean == pytest.approx(exact.mean(), abs=1e-6)
        assert score.standard_error == pytest.approx(exact.std(ddof=1) / math.sqrt(103), rel=1e-5)
        assert (score.kind, score.events) == (Kind.EXACT, 103)
    weight = np.arange(103.0)
    score = likelihood.score(jax.random.key(0), model, (x, None, weight))
    assert score.mean == pytest.approx(np.average(exact, weights=weight), abs=1e-6)
    assert score.events == 102


class Bounded:
    """log p is 0 for every event; the bound is an exponential draw below it."""

    event_shape = (1,)

    def sample(self, key, shape=(), *, context=None, length=None):
        return jnp.zeros((*shape, 1))

    def elbo(self, key, x, *, context=None):
        return -jax.random.exponential(key, x.shape[:1])


def test_score_of_a_bound():
    x = np.zeros((500, 1), np.float32)
    one = likelihood.score(jax.random.key(0), Bounded(), x)
    many = likelihood.score(jax.random.key(0), Bounded(), x, samples=50)
    assert one.kind == many.kind == Kind.LOWER_BOUND
    # five standard errors, of 500 and of 25,000 draws
    assert one.mean == pytest.approx(-1, abs=5 / math.sqrt(500))
    assert many.mean == pytest.approx(-1, abs=5 / math.sqrt(25_000))


def test_score_of_an_energy():
    x = np.array([[0, 1, 1], [1, 1, 0]], np.float32)
    rbm = jg.RBM.from_values(jnp.array([0.3, -0.2, 0.1]), jnp.array([0.5, -0.4]), 0.5 * jnp.ones((3, 2)))
    states = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float32)
    energies = np.asarray(rbm.energy(states), np.float64)
    expected = -np.asarray(rbm.energy(x), np.float64).mean() - scipy.special.logsumexp(-energies)
    score = likelihood.score(jax.random.key(0), rbm, x)
    assert score.kind == Kind.EXACT
    assert score.mean == pytest.approx(expected, abs=1e-5)  # float32 energies

    class Bare:
        event_shape, energy, kernel = rbm.event_shape, staticmethod(rbm.energy), staticmethod(rbm.kernel)

    assert likelihood.score(jax.random.key(0), Bare(), x).kind == Kind.UNNORMALISED


def test_score_refuses():
    key, model = jax.random.key(0), jg.StandardNormal((2,))
    with pytest.raises(jg.DataError, match="leading axis"):
        likelihood.score(key, model, [0.0, 1.0])
    with pytest.raises(jg.FitError, match="samples=0"):
        likelihood.score(key, model, [[0.0, 1.0]], samples=0)
    generator, _ = jg.recipes.gan(key, np.zeros((4, 2), np.float32), 2, hidden=(4,))
    with pytest.raises(jg.ModelError, match="no likelihood"):
        likelihood.score(key, generator, [[0.0, 1.0]])


def test_units():
    assert likelihood.perplexity(-math.log(7)) == pytest.approx(7)
    assert likelihood.bits_per_dim(Score(-10 * math.log(2), 0.0, Kind.EXACT, 5), 5) == pytest.approx(2)
    with pytest.raises(jg.DataError, match="normalised"):
        likelihood.perplexity(Score(-1.0, 0.0, Kind.UNNORMALISED, 1))
