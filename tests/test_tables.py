"""Tables: frames as numbers and back beside pandas, models of them beside scipy and grids, and what is refused."""

import datetime
import functools
import re

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import latent
from jaxgen.core.errors import DataError, JaxgenError, ModelError
from jaxgen.data import Table

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
GROUP = np.arange(240) < 96
FRAME = pd.DataFrame({
    "age": RNG.normal(np.where(GROUP, 20.0, 50.0), 5.0),
    "sex": np.where(RNG.random(240) < np.where(GROUP, 0.9, 0.2), "male", "female"),
    "kids": RNG.poisson(np.where(GROUP, 0.3, 3.0)),
    "alone": RNG.random(240) < np.where(GROUP, 0.8, 0.1),
    "port": pd.Categorical(RNG.choice(["S", "C"], 240), categories=["S", "C", "Q"]),
})  # fmt: skip
HOLED = FRAME.copy()
HOLED.loc[::7, "age"] = np.nan
HOLED.loc[::11, "sex"] = None
HOLED.loc[3, "port"] = None


@functools.cache
def mixture():
    start = jg.Mixture.init(KEY, HOLED, 2)
    return jg.fit(KEY, start, HOLED, steps=15).model


def test_cells_are_pandas_own_codes_and_come_back():
    table = Table.from_frame(HOLED)
    assert [c.kind for c in table.schema.columns] == ["number", "label", "count", "flag", "label"]
    expected = np.stack([
        HOLED["age"], HOLED["sex"].astype("category").cat.codes, HOLED["kids"], HOLED["alone"],
        HOLED["port"].cat.codes,
    ], axis=1).astype(float)  # fmt: skip
    expected[:, [1, 4]] = np.where(expected[:, [1, 4]] < 0, np.nan, expected[:, [1, 4]])
    np.testing.assert_array_equal(table.values, expected)
    np.testing.assert_array_equal(table.codes("port"), HOLED["port"].cat.codes)
    pd.testing.assert_frame_equal(table.frame(), HOLED)
    back = table.take(["port", "age"]).frame()
    pd.testing.assert_frame_equal(back, HOLED[["port", "age"]])
    assert table.drop("age").columns == ("sex", "kids", "alone", "port")


@pytest.mark.parametrize(("cells", "kind", "levels"), [
    (pd.array([1, None, 0], "Int64"), "flag", (0, 1)),
    (pd.array([True, None, False], "boolean"), "flag", (False, True)),
    (pd.array([7, None, 2], "Int64"), "count", ()),
    ([1990, 2001, 2020], "number", ()),  # far less spread than counts
    ([10, 45, 80], "number", ()),  # steps of one are a continuum
    ([-1, 2, 3], "number", ()),
    ([0.5, None, 2], "number", ()),
    (["b", None, "a"], "label", ("a", "b")),
    (pd.cut([1.0, 5.0, 1.5], [0, 2, 6]), "label", ("(0, 2]", "(2, 6]")),
    (np.array([1.5, 2.5, np.nan], np.float32), "number", ()),
])  # fmt: skip
def test_kinds_are_those_of_the_cells(cells, kind, levels):
    frame = pd.DataFrame({"a": cells})
    table = Table.from_frame(frame)
    (column,) = table.schema.columns
    assert (column.kind, column.levels) == (kind, levels)
    back = table.frame()
    assert back["a"].isna().tolist() == frame["a"].isna().tolist()
    assert back["a"].dropna().map(str).tolist() == frame["a"].dropna().map(str).tolist()
    if kind != "label":
        assert back["a"].dtype == frame["a"].dtype


def test_classes_that_are_numbers_are_labels_on_request():
    table = Table.from_frame(pd.DataFrame({"pclass": [3, 1, 3]}), labels=["pclass"])
    assert table.values.tolist() == [[1.0], [0.0], [1.0]]
    pd.testing.assert_frame_equal(table.frame(), pd.DataFrame({"pclass": [3, 1, 3]}))


def test_features_of_dates_are_pandas_own():
    when = pd.Series(pd.date_range("1969-11-28 06:00", periods=90, freq="D"), name="when")
    table = Table.from_frame(when.to_frame(), dates="features")
    np.testing.assert_allclose(table.values[:, 0], (when - pd.Timestamp("1969-11-28")) / pd.Timedelta("1D"))
    frame = table.frame()
    assert (frame["when weekday"] == when.dt.day_name()).all() and (frame["when month"] == when.dt.month_name()).all()
    others = {"when": when.dt.tz_localize("Europe/Berlin")}, {"when": [cell.to_pydatetime() for cell in when]}
    for other in others:  # local time, and plain dates of Python
        np.testing.assert_array_equal(table.like(other).values, table.values)
    np.testing.assert_array_equal(table.like(when[5:].to_frame()).values, table.values[5:])
    later = Table.from_frame(when[5:].to_frame(), dates="features")  # of the same columns, but 0 is another day
    with pytest.raises(DataError, match="'when' counts days from another date"):
        table.schema.read(later, "test")


def test_days_keep_their_seconds_in_float32():
    when = pd.Series(pd.date_range("2024-02-29 23:59:58", periods=5, freq="s"), name="when")
    days = Table.from_frame(when.to_frame(), dates="features").values[:, 0].astype(np.float32)
    seconds = (when - pd.Timestamp("2024-02-29")) / pd.Timedelta("1s")
    np.testing.assert_allclose(days * 86400, seconds, atol=0.01)  # float32 has 7 digits of 86400 s


def test_samples_beyond_the_range_of_a_columns_dtype():
    cells = np.array([10, 45, 80], np.uint8)
    frame = Table.from_frame({"a": cells}).frame([[-3.2], [300.0]])
    assert (frame["a"].dtype, frame["a"].tolist()) == ("int64", [-3, 300])
    assert Table.from_frame({"a": cells}).frame([[255.0]])["a"].dtype == "uint8"
    holed = Table.from_frame({"a": pd.array([10, None, 80], "UInt8")}).frame([[-3.2], [np.nan]])
    assert (holed["a"].dtype, holed["a"].isna().tolist(), holed["a"][0]) == ("Int64", [False, True], -3)


@pytest.mark.parametrize(("columns", "values"), [
    (["a", "b", "c"], [[1.0, 2.0]]), (["a"], [1.0, 2.0]), ([], 1.0),
])  # fmt: skip
def test_names_fit_the_values(columns, values):
    with pytest.raises(DataError, match=re.escape(f"got:      shape {list(np.shape(values))}")):
        Table.from_values(columns, values)
    assert Table.from_values(["a", "b"], np.zeros((4, 3, 2))).columns == ("a", "b")


REFUSED = {
    "two columns": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "empty": pd.DataFrame({"a": []}),
    "'a' has no value": pd.DataFrame({"a": [None, None]}),
    "'a' holds dates": pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}),
    "'a' mixes numbers and text": pd.DataFrame({"a": [1, 2, "n/a"]}),
    "'a' holds text that is another": pd.DataFrame({"a": [f"name {i}" for i in range(30)]}),
    "'a' holds what is no cell": pd.DataFrame({"a": [(1, 2)]}),
    "'Unnamed: 0' numbers the rows": pd.DataFrame({"Unnamed: 0": [0, 1], "b": [1.5, 2.5]}),
    "several lengths": {"a": [1], "b": [1, 2]},
    "no frame": np.ones((2, 2)),
    "'g' is not one column": {"g": np.ones((3, 2))},
    "'s' is not one column": {"s": np.array(1.0)},
    "durations|no cell": pd.DataFrame({"a": [datetime.timedelta(1)]}),
}  # fmt: skip


@pytest.mark.parametrize("match", REFUSED)
def test_what_is_no_table_is_refused_in_a_paragraph(match):
    with pytest.raises(DataError, match=match) as caught:
        Table.from_frame(REFUSED[match])
    assert len(str(caught.value)) < 700


def test_another_frame_is_read_with_the_same_levels():
    table = Table.from_frame(FRAME)
    some = FRAME[FRAME["sex"] == "male"].iloc[:, ::-1]
    np.testing.assert_array_equal(table.like(some).values, table.values[FRAME["sex"] == "male"])
    for other, match in (
        (FRAME.assign(sex="X"), "'sex' holds what is none of its levels"),
        (FRAME.drop(columns="sex"), "no column 'sex'"),
        (FRAME.assign(age="old"), "'age' is not numeric"), (FRAME.assign(alone=2), "'alone' holds other numbers"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=match):
            table.like(other)


def test_log_prob_is_the_sum_over_scipys_columns():
    model = jg.Product.init(KEY, FRAME)
    assert latent.free_parameters(model) == 2 + 1 + 1 + 1 + 2
    shares = FRAME["sex"].value_counts(normalize=True), FRAME["port"].value_counts(normalize=True)
    expected = (
        scipy.stats.norm(FRAME["age"].mean(), FRAME["age"].std(ddof=0)).logpdf(FRAME["age"])
        + np.log(FRAME["sex"].map(shares[0])) + np.log(FRAME["port"].astype(str).map(shares[1]))
        + scipy.stats.poisson(FRAME["kids"].mean()).logpmf(FRAME["kids"])
        + scipy.stats.bernoulli(FRAME["alone"].mean()).logpmf(FRAME["alone"])
    )  # fmt: skip
    # float32, of a variance around a mean of 40
    np.testing.assert_allclose(model.log_prob(FRAME), expected, rtol=1e-5)


def test_blocks_are_chosen_by_name():
    blocks = {"age": jg.StudentT.init, ("sex", "port"): functools.partial(jg.Categorical.init, size=3)}
    model = jg.Product.init(KEY, HOLED, blocks)
    assert [type(block).__name__ for block in model.blocks] == ["StudentT", "Categorical", "Poisson", "Bernoulli"]
    assert model.columns == ((0,), (1, 4), (2,), (3,)) and latent.accepts_missing(model)
    assert not latent.accepts_missing(jg.Product.init(KEY, FRAME))
    assert latent.accepts_missing(jg.Product.init(KEY, FRAME, missing=True))
    with pytest.raises(DataError, match="no column 'old'"):
        jg.Product.init(KEY, FRAME, {"old": jg.StudentT.init})
    with pytest.raises(ModelError, match="names are no columns"):
        jg.Product.init(KEY, np.ones((3, 1)), {"age": jg.StudentT.init})
    with pytest.raises(ModelError, match="columns of an array are of no kind"):
        jg.Mixture.init(KEY, np.ones((3, 1)), 1)


def test_a_mixture_of_a_frame_finds_its_groups_and_answers_frames(tmp_path):
    model, table = mixture(), Table.from_frame(HOLED)
    label = np.asarray(model.predict(HOLED)) == 1
    assert max(np.mean(label == GROUP), np.mean(label != GROUP)) > 0.95
    scores = np.asarray(model.log_prob(HOLED))
    for x in (table, table.values, HOLED.iloc[:, ::-1]):
        np.testing.assert_array_equal(model.log_prob(x), scores)
    assert jg.score(KEY, model, HOLED).mean == pytest.approx(scores.mean(), abs=1e-5)
    assert jg.metrics.align(model, model.permute([1, 0]), HOLED).order.tolist() == [1, 0]
    jg.save(model, tmp_path / "m")
    again = jg.load(tmp_path / "m")
    assert latent.schema(again) == table.schema
    np.testing.assert_array_equal(again.log_prob(HOLED), scores)
    drawn = table.frame(model.sample(KEY, (50,)))
    assert drawn.dtypes.equals(HOLED.dtypes) and set(drawn["sex"]) == {"male", "female"}


def test_tables_of_other_levels_are_refused():
    model = mixture()
    other = HOLED.assign(sex=HOLED["sex"].replace("male", "m"))
    for x in (other, Table.from_frame(other), Table.from_frame(HOLED.rename(columns={"age": "years"}))):
        with pytest.raises(DataError, match="levels|columns"):
            model.log_prob(x)
        with pytest.raises(DataError, match="levels|columns"):
            jg.fit(KEY, model, x)
    with pytest.raises(DataError, match="'sex' of x holds labels"):
        jg.Mixture.init(KEY, FRAME, 2, jg.Gaussian.init)
    with pytest.raises(DataError, match="'sex' of x holds labels"):
        jg.StandardNormal((5,)).log_prob(Table.from_frame(FRAME))


def test_labels_are_imputed_at_the_likeliest_and_numbers_at_the_mean():
    model = mixture()
    whole = np.asarray(model.impute(HOLED))
    seen = Table.from_frame(HOLED).values
    np.testing.assert_array_equal(whole[~np.isnan(seen)], seen[~np.isnan(seen)].astype(np.float32))
    row = np.flatnonzero(np.isnan(seen[:, 1]))[1]
    by_level = [float(model.log_prob(np.where(np.arange(5) == 1, level, seen[row]))) for level in (0, 1)]
    assert whole[row, 1] == np.argmax(by_level)
    row = np.flatnonzero(np.isnan(seen[:, 0]))[1]
    # the mean of the density of ages given the rest, on a grid: 0.1 years of a span where it is smooth
    ages = np.arange(-50, 150, 0.1)
    events = np.tile(seen[row], (len(ages), 1))
    events[:, 0] = ages
    density = np.exp(np.asarray(model.log_prob(events), np.float64) - float(model.log_prob(seen[row])))
    assert whole[row, 0] == pytest.approx(np.sum(ages * density) / np.sum(density), rel=1e-4)
    with pytest.raises(ModelError, match="not all of the models can do this"):
        jg.Product.init(KEY, HOLED, {"age": jg.StudentT.init}).impute(HOLED)


def test_errors_name_columns():
    cases = [
        ("column 'age' holds infinite", lambda: jg.Mixture.init(KEY, FRAME.assign(age=np.inf), 2)),
        ("too large.*of column 'age'", lambda: jg.Mixture.init(KEY, FRAME.assign(age=1e39), 2)),
        ("in column 'kids'", lambda: jg.Product.init(KEY, FRAME, {"kids": jg.Bernoulli.init})),
        ("in column 'age'", lambda: jg.Product.init(KEY, FRAME).check_data(HOLED[["age"]].assign(
            sex=0, kids=0, alone=0, port=0).to_numpy())),
        ("of column 'age'", lambda: jg.fit(KEY, jg.Product.init(KEY, FRAME), HOLED.assign(sex="male", port="S"))),
        ("of column 'b'", lambda: jg.data.as_array(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, np.nan]}))),
    ]  # fmt: skip
    for match, call in cases:
        with pytest.raises(JaxgenError, match=match):
            call()


def test_sequences_by_a_column():
    frame = FRAME[["alone", "port"]].assign(who=np.repeat(["b", "a", "c"], [100, 80, 60]))
    table = Table.from_frame(frame)
    series = jg.Sequences.from_table(table, by="who")
    assert series.length.tolist() == [100, 80, 60] and series.x.columns == ("alone", "port")
    start = jg.HMM.init(KEY, series, 2)
    model = jg.fit(KEY, start, series, steps=3).model
    assert latent.schema(model) == table.drop("who").schema
    rows = table.drop("who").values
    single = [float(model.log_prob(part)) for part in np.split(rows, [100, 180])]
    np.testing.assert_allclose(model.log_prob(series), single, rtol=1e-5)  # float32 sums of a hundred steps
    one = jg.Sequences.from_table(table.drop("who"))
    assert one.x.shape == (1, 240, 2) and model.log_prob(one).shape == (1,)
    other = Table.from_frame(frame.assign(port=frame["port"].astype(str)))
    with pytest.raises(DataError, match="levels"):
        model.log_prob(jg.Sequences.from_table(other, by="who"))


def test_select_takes_a_frame():
    found = jg.select(KEY, HOLED[["sex", "alone"]], [1, 2], restarts=1, steps=20)
    assert [row.leaf for row in found.rows] == ["product", "product"]
    assert latent.schema(found.rows[1].model).names == ("sex", "alone")


def test_polars_is_read_as_pandas():
    polars = pytest.importorskip("polars")
    columns = {name: [None if pd.isna(cell) else cell for cell in HOLED[name]] for name in HOLED}
    frame = polars.DataFrame(columns, schema_overrides={"port": polars.Enum(["S", "C", "Q"])})
    table = Table.from_frame(frame)
    np.testing.assert_array_equal(table.values, Table.from_frame(HOLED).values)
    assert [c.levels for c in table.schema.columns] == [c.levels for c in Table.from_frame(HOLED).schema.columns]
