"""Tables made like tables: cells that come back as they were, conditionals, constraints, files, and what is refused."""

import datetime

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import jaxgen as jg
from jaxgen import tasks
from jaxgen.core.cells import Reading
from jaxgen.tasks.frames import frame_of, library_of
from jaxgen.tasks.margins import LABEL, Ranks, cells_of, margin_of

KEY = jax.random.key(0)
N = 200
RNG = np.random.default_rng(0)
MALE = RNG.random(N) < 0.4


def mixed():
    return pd.DataFrame({
        "sex": np.where(MALE, "M", "F"),
        "height": np.round(np.where(MALE, 180, 165) + 6 * RNG.normal(size=N)).astype("float32") / 100,
        "kids": RNG.poisson(1.5, N).astype("int8"),
        "seen": pd.array(np.where(RNG.random(N) < 0.2, None, RNG.integers(18, 90, N)), dtype="Int64"),
        "rate": np.round(RNG.exponential(size=N), 3),
        "same": 7,
    })  # fmt: skip


FRAME = mixed()
EVERY_TYPE = pd.DataFrame({
    "category": pd.Categorical(np.where(MALE, "lo", "hi"), categories=["lo", "mid", "hi"], ordered=True),
    "half": RNG.normal(size=N).astype("float16"),
    "flag": MALE,
    "flag or none": np.where(RNG.random(N) < 0.3, None, MALE),
    "text or none": pd.array(np.where(RNG.random(N) < 0.3, None, "x"), dtype="string"),
    "day": [datetime.date(2020, 1, 1) + datetime.timedelta(int(d)) for d in RNG.integers(0, 900, N)],
    "time": pd.Series(np.datetime64("2020-03-01T10:00:07", "ns") + RNG.integers(0, 10**6, N).astype("m8[s]")),
    "local": pd.date_range("2020-03-20", periods=N, freq="D", tz="Europe/Berlin"),
    "nanometres": 1e-9 * RNG.normal(size=N), "huge": 1e300 * RNG.normal(size=N),
    "long": RNG.integers(2**55, 2**55 + 50, N), "unsigned": RNG.integers(0, 200, N).astype("uint8"),
    "hundreds": 100 * RNG.integers(-20, 20, N), 5: RNG.normal(size=N),
    "number or none": np.where(RNG.random(N) < 0.3, np.nan, RNG.normal(size=N).round(1)),
})  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return tasks.synthesizer(KEY, FRAME, components=[2], steps=20)


@pytest.mark.parametrize("frame", [
    EVERY_TYPE, pl.from_pandas(EVERY_TYPE.rename(columns=str).drop(columns="half")), dict(FRAME.drop(columns="seen")),
], ids=["pandas", "polars", "dict"])  # fmt: skip
def test_scores_lead_back_to_the_same_cells(frame):
    """Names, types, levels, zones and every single cell, at any place in the interval of its rank."""
    reading, names = Reading("test", "f({})"), list(map(str, frame if isinstance(frame, dict) else frame.columns))
    margins, columns = [], []
    for name in frame if isinstance(frame, dict) else frame.columns:
        margin, cells = margin_of(name, frame[name], reading, names)
        numbers, there = margin.encoded(cells, "test")
        values = np.zeros(N, numbers.dtype)
        if margin.kind == LABEL:
            values[there] = numbers
            there = values < len(margin.levels)
        else:
            ranks = Ranks.of(numbers)
            # of values that were seen once the middle alone is the value
            place = np.where(ranks.counts[np.searchsorted(ranks.values, numbers)] > 1, RNG.random(len(numbers)), 0.5)
            values[there] = ranks.numbers(ranks.scores(numbers, place), margin.decimals)
        margins.append(margin)
        columns.append(cells_of(margin, values, ~there))
    again = frame_of(library_of(frame), margins, columns, "test")
    if isinstance(frame, pd.DataFrame):
        pd.testing.assert_frame_equal(again, frame, check_freq=False, rtol=1e-12)
    elif isinstance(frame, pl.DataFrame):
        assert again.schema == frame.schema
        assert again.drop("5", "nanometres", "huge").equals(frame.drop("5", "nanometres", "huge"))  # to some digits
    else:
        assert all((np.asarray(again[name]) == np.asarray(frame[name])).all() for name in frame)


def test_scores_are_normal_and_numbers_between_have_the_columns_decimals():
    numbers = RNG.exponential(size=2000).round(2)
    ranks = Ranks.of(numbers)
    assert stats.kstest(ranks.scores(numbers, RNG.random(2000)), "norm").pvalue > 0.01
    drawn = ranks.numbers(RNG.normal(size=5000), 2)
    assert (drawn >= numbers.min()).all()
    assert (drawn <= numbers.max()).all()
    np.testing.assert_array_equal(drawn, drawn.round(2))
    assert stats.ks_2samp(drawn, numbers).pvalue > 0.01


def test_drawn_rows_are_like_the_table(fitted):
    made = fitted.draw(jax.random.key(1), 3000).frame
    assert made.dtypes.equals(FRAME.dtypes)
    assert abs(made["seen"].isna().mean() - FRAME["seen"].isna().mean()) < 0.03  # three deviations of 3000 rows
    for name in ("height", "kids", "rate"):
        assert made[name].between(FRAME[name].min(), FRAME[name].max()).all()
        assert stats.ks_2samp(made[name], FRAME[name]).statistic < 0.1
    assert set(made["same"]) == {7}
    assert set(made["kids"]) <= set(FRAME["kids"])
    heights = [frame.groupby("sex")["height"].mean() for frame in (made, FRAME)]
    np.testing.assert_allclose(*heights, atol=0.02)  # metres; the sexes are .15 apart


def test_conditionals_are_what_is_left_of_many_draws(fitted):
    """Against rejection: draws of the whole row where the column happens to be as given."""
    many = fitted.draw(jax.random.key(2), 40_000).frame
    for given in ({"sex": "M"}, {"kids": 2}, {"seen": None}):
        (name, cell), = given.items()
        wanted = many[many[name].isna() if cell is None else many[name] == cell]
        made = fitted.draw(jax.random.key(3), 2000, given=given).frame
        assert made.dtypes.equals(FRAME.dtypes)
        assert made[name].isna().all() if cell is None else (made[name] == cell).all()
        for other in {"height", "rate"} - {name}:
            assert stats.ks_2samp(made[other], wanted[other]).statistic < 0.06  # 1.36 sqrt(1/2000 + 1/8000) is .034


def test_a_condition_is_kept_and_its_rate_said(fitted):
    tall = lambda frame: (frame["height"] > 1.7).to_numpy()  # noqa: E731
    drawn = fitted.draw(jax.random.key(4), 500, where=tall)
    assert len(drawn.frame) == 500
    assert tall(drawn.frame).all()
    assert drawn.rate == pytest.approx((FRAME["height"] > 1.7).mean(), abs=0.08)
    with pytest.raises(jg.ModelError, match="too few rows"):
        fitted.draw(KEY, 5, where=lambda frame: np.zeros(len(frame), bool))
    with pytest.raises(jg.ModelError, match="yes or no"):
        fitted.draw(KEY, 5, where=lambda frame: 1)


def test_a_file_holds_it(fitted, tmp_path):
    jg.save(fitted, tmp_path / "table")
    again = jg.load(tmp_path / "table")
    pd.testing.assert_frame_equal(again.draw(KEY, 50).frame, fitted.draw(KEY, 50).frame)
    x = fitted.events(FRAME)
    np.testing.assert_array_equal(again.log_prob(x), fitted.log_prob(x))


def test_units_of_columns_are_nothing(fitted):
    with_units = FRAME.assign(rate=1e6 * FRAME["rate"])
    other = tasks.synthesizer(KEY, with_units, components=[2], steps=20)
    scores = [one.log_prob(one.events(frame)) for one, frame in ((other, with_units), (fitted, FRAME))]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_a_flow_takes_labels_as_scores():
    frame = FRAME.drop(columns=["seen", "same"])
    flow = lambda key, x: jg.recipes.realnvp(key, x, layers=2)  # noqa: E731
    made = tasks.synthesizer(KEY, frame, model=flow, scored=True, steps=200, batch_size=100)
    drawn = made.draw(KEY, 500).frame
    assert drawn.dtypes.equals(frame.dtypes)
    assert drawn["sex"].eq("M").mean() == pytest.approx(MALE.mean(), abs=0.15)
    with pytest.raises(jg.ModelError, match="no conditionals"):
        made.draw(KEY, 5, given={"sex": "M"})
    with pytest.raises(jg.DataError, match="missing have no score"):
        tasks.synthesizer(KEY, FRAME, model=flow, scored=True)


def test_an_autoencoder_makes_rows():
    """Labels and numbers keep their shares and what goes with what; the density that it does not have is refused."""
    frame = FRAME.drop(columns=["seen", "same"])
    vae = lambda key, x: jg.recipes.vae(key, x, 3, hidden=(16,), likelihood=jg.likelihoods.gaussian)  # noqa: E731
    made = tasks.synthesizer(KEY, frame, model=vae, scored=True, steps=1000, batch_size=100)
    drawn = made.draw(KEY, 1000).frame
    assert drawn.dtypes.equals(frame.dtypes)
    assert drawn["sex"].eq("M").mean() == pytest.approx(MALE.mean(), abs=0.1)
    assert drawn["kids"].isin(frame["kids"]).all()
    heights = drawn.groupby("sex")["height"].mean()
    assert heights["M"] - heights["F"] > 0.05  # metres: .15 in the table, 0 where columns are drawn on their own
    with pytest.raises(jg.ModelError, match="log_prob"):
        made.log_prob(made.events(frame))
    with pytest.raises(jg.ModelError, match="draws numbers where column 'sex' has labels"):
        tasks.synthesizer(KEY, frame, model=vae, steps=2, batch_size=100)


@pytest.mark.parametrize(("frame", "words"), [
    (FRAME[:0], "empty"), (FRAME[:1], "one row"), (FRAME.assign(gone=np.nan), "no value"), (3, "no frame"),
    (pd.DataFrame([[1, 2]] * 3, columns=["a", "a"]), "two columns"), (FRAME.assign(rate=np.inf), "infinite"),
    (FRAME.assign(name=[f"n{i}" for i in range(N)]), "text that is another"),
    (FRAME.assign(both=[1, "a"] * (N // 2)), "mixes numbers and text"),
])  # fmt: skip
def test_what_is_no_table_is_refused(frame, words):
    with pytest.raises(jg.DataError, match=words):
        tasks.synthesizer(KEY, frame)


@pytest.mark.parametrize(("given", "words"), [
    ({"sex": "X"}, "none of its levels"), ({"weight": 3}, "no column 'weight'"), ({"height": 9.0}, "never was there"),
    ({"kids": None}, "no missing cells"), ({"kids": "two"}, "not numeric"),
])  # fmt: skip
def test_cells_that_no_row_has_are_refused(fitted, given, words):
    with pytest.raises(jg.DataError, match=words):
        fitted.draw(KEY, 5, given=given)


def test_other_frames_are_refused(fitted):
    with pytest.raises(jg.DataError, match="no column 'sex'"):
        fitted.events(FRAME.drop(columns="sex"))
    with pytest.raises(jg.DataError, match="missing cells"):
        fitted.events(FRAME.assign(rate=np.nan))
    with pytest.raises(jg.DataError, match="no rows of the table"):
        fitted.frame(np.zeros((3, 2)))
    with pytest.raises(jg.ModelError, match="number of rows"):
        fitted.draw(KEY, 0)
