"""Measures of made tables against scipy, scikit-learn and hand-made cases."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import jaxgen as jg
from jaxgen import tasks
from jaxgen.tasks.closeness import closeness
from jaxgen.tasks.tabulated import alike, pair_alike, tabulated
from jaxgen.tasks.utility import utility

KEY = jax.random.key(0)


def table(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n) + shift
    return pd.DataFrame({"a": a, "b": a + rng.normal(size=n), "c": np.where(a + rng.normal(size=n) > 0, "x", "y")})


MADE, TRAIN, HOLDOUT = table(150, 0, 0.5), table(200, 1), table(100, 2)
COLUMNS = tabulated({"fitted": TRAIN, "held-out": HOLDOUT, "made": MADE}, "test")


def test_columns_and_pairs_are_scipys():
    assert alike(COLUMNS[0], 2, 1) == pytest.approx(1 - stats.ks_2samp(MADE["a"], HOLDOUT["a"]).statistic)
    share = [frame["c"].eq("x").mean() for frame in (MADE, HOLDOUT)]
    assert alike(COLUMNS[2], 2, 1) == pytest.approx(1 - abs(share[0] - share[1]))
    r = [stats.spearmanr(frame["a"], frame["b"]).statistic for frame in (MADE, HOLDOUT)]
    assert pair_alike(COLUMNS[0], COLUMNS[1], 2, 1) == pytest.approx(1 - abs(r[0] - r[1]) / 2)
    edges = np.quantile(TRAIN["a"], np.linspace(0, 1, 11)[1:-1])
    counts = [pd.crosstab(np.searchsorted(edges, frame["a"], side="right"), frame["c"], normalize=True)
              for frame in (MADE, HOLDOUT)]  # fmt: skip
    counts = [one.reindex(index=range(10), columns=["x", "y"]).fillna(0) for one in counts]
    by_hand = 1 - (counts[0] - counts[1]).abs().to_numpy().sum() / 2
    assert pair_alike(COLUMNS[0], COLUMNS[2], 2, 1) == pytest.approx(by_hand)


def test_distances_are_scikit_learns():
    """One column: (0, 10, 3, 4, 1) and 5 are .1 apart, in units of the range."""
    real = [0.0, 10.0, 3.0, 4.0, 1.0]
    one = tabulated({"fitted": {"a": real}, "held-out": {"a": [7.0]}, "made": {"a": [5.0]}}, "test")
    assert closeness(one).distance == pytest.approx(0.1)
    x = [np.stack([(f["a"] - TRAIN["a"].min()) / np.ptp(TRAIN["a"]), (f["b"] - TRAIN["b"].min()) / np.ptp(TRAIN["b"]),
                   f["c"].eq("x") / 2, f["c"].eq("y") / 2], axis=1) for f in (MADE, TRAIN, HOLDOUT)]  # fmt: skip
    near = [NearestNeighbors(n_neighbors=1, metric="manhattan").fit(x[i]).kneighbors(x[0])[0][:, 0] for i in (1, 2)]
    found = closeness(COLUMNS)
    assert found.closer == pytest.approx(np.mean(near[0] < near[1]))
    assert found.distance == pytest.approx(near[0].mean() / 3)
    to_made = [NearestNeighbors(n_neighbors=1, metric="manhattan").fit(x[0]).kneighbors(x[i])[0][:, 0] for i in (1, 2)]
    advantage = stats.ks_2samp(*to_made, alternative="greater").statistic
    assert found.membership == pytest.approx(advantage)


def test_nothing_is_given_away_by_fresh_rows_and_all_by_copies():
    """The standard error is the deviation of the share over tables that have nothing to do with each other."""
    shares, errors, advantages, chance = [], [], [], []
    for seed in range(60):
        parts = [table(n, [seed, n]) for n in (150, 120, 60)]
        found = closeness(tabulated({"fitted": parts[1], "held-out": parts[2], "made": parts[0]}, "test"))
        shares.append(found.closer)
        errors.append(found.standard_error)
        advantages.append(found.membership)
        chance.append(found.membership_by_chance)
    assert np.mean(shares) == pytest.approx(2 / 3, abs=0.02)
    assert np.std(shares) / np.mean(errors) == pytest.approx(1, abs=0.3)  # of 60: its own error is .09
    assert np.mean(advantages) == pytest.approx(np.mean(chance), abs=0.02)
    copied = closeness(tabulated({"fitted": TRAIN, "held-out": HOLDOUT, "made": TRAIN}, "test"))
    assert (copied.copies, copied.closer, copied.membership) == (1.0, 1.0, 1.0)


def test_utility_is_scikit_learns():
    make = lambda: LogisticRegression()  # noqa: E731
    found = utility(COLUMNS, "c", None, make, "test")
    scale = lambda f: np.stack([(f[c] - TRAIN[c].mean()) / TRAIN[c].std(ddof=0) for c in "ab"], axis=1)  # noqa: E731
    for frame, auc, accuracy in ((MADE, found.auc, found.accuracy), (TRAIN, found.real_auc, found.real_accuracy)):
        fitted = make().fit(scale(frame), frame["c"])
        score = fitted.predict_proba(scale(HOLDOUT))[:, 1]
        assert auc == pytest.approx(roc_auc_score(HOLDOUT["c"] == "y", score))
        assert accuracy == pytest.approx(accuracy_score(HOLDOUT["c"], fitted.predict(scale(HOLDOUT))))
    above = utility(COLUMNS, "a", 0.0, None, "test")
    assert above.target == "a >= 0"
    assert 0.7 < above.real_auc < 1  # b alone says so with .79, in the mean


def test_the_report_prints():
    found = tasks.fidelity(KEY, MADE.assign(d=1.0), TRAIN.assign(d=1.0), HOLDOUT.assign(d=np.nan), target="c")
    assert found.columns["d"] == 0  # seen in the one, never in the other
    for text in (str(found), found._repr_html_()):
        for word in ("columns alike", "pairs alike", "AUC of c", "closest row was fitted", "exact copies"):
            assert word in text
    assert 0.5 < found.c2st.accuracy <= 1


@pytest.mark.parametrize(("change", "words"), [
    ({"holdout": HOLDOUT.drop(columns="a")}, "held-out table has no column 'a'"), ({"target": "d"}, "no such column"),
    ({"target": "a", "above": 99.0}, "the same in all"), ({"made": MADE[:3]}, "too few rows"),
    ({"made": MADE.assign(a="x")}, "not numeric"),
])  # fmt: skip
def test_refusals(change, words):
    given = {"made": MADE, "train": TRAIN, "holdout": HOLDOUT} | change
    with pytest.raises(jg.DataError, match=words):
        tasks.fidelity(KEY, **given)
