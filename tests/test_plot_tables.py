"""Pictures of columns, forecasts, dates and all metrics: what is drawn is what scipy and the models say."""

import types

import jax
import matplotlib.dates
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import jaxgen as jg
from jaxgen import plot

NORMALS = jg.Mixture.from_components(
    jg.DiagonalGaussian.from_values([[0.0, 5.0], [4.0, -1.0]], [[1.0, 2.0], [0.5, 1.0]]), [0.25, 0.75]
)
POISSONS = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 9.0]))
MONTHS = pd.date_range("2001-01-31", periods=6, freq="D")


@pytest.fixture
def ax():
    return Figure().subplots()


def test_histogram_of_a_column_with_its_density(ax):
    x = np.asarray(NORMALS.sample(jax.random.key(0), (500,)), np.float64)
    frame = pd.DataFrame(x, columns=["length", "width"])
    assert plot.histogram(NORMALS, frame, ax, column=1) is ax
    assert ax.get_xlabel() == "width"
    assert sum(bar.get_height() * bar.get_width() for bar in ax.patches) == pytest.approx(1)
    first, second, whole = ax.lines
    at = whole.get_xdata()
    parts = 0.25 * scipy.stats.norm.pdf(at, 5, 2), 0.75 * scipy.stats.norm.pdf(at, -1, 1)
    # differences of a distribution function in float32 over four hundred steps
    for line, density in zip((first, second, whole), (*parts, sum(parts)), strict=True):
        np.testing.assert_allclose(line.get_ydata(), density, atol=2e-4)
    assert [to_rgba(line.get_color()) for line in (first, second)] == [to_rgba(c) for c in plot.PALETTE[:2]]


def test_whole_numbers_get_a_bar_and_a_dot_each(ax):
    counts = np.array([0, 1, 1, 3, 5.0])[:, None]
    plot.histogram(jg.Poisson.from_values([2.0]), counts, ax, names=["goals"])
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], np.array([1, 2, 0, 1, 0, 1]) / 5)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), scipy.stats.poisson.pmf(np.arange(6), 2), atol=1e-6)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(6))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("goals", "probability")


def test_histogram_refuses(ax):
    for call in (
        lambda: plot.histogram(NORMALS, np.zeros((5, 3)), ax),
        lambda: plot.histogram(NORMALS, np.zeros((5, 2)), ax, column=2),
        lambda: plot.histogram(jg.Categorical.from_values([[0.5, 0.5]] * 2), np.zeros((5, 2)), ax),
    ):
        with pytest.raises(jg.ModelError, match="column"):
            call()
    with pytest.raises(jg.ShapeError, match="name"):
        plot.histogram(None, np.zeros((5, 2)), ax, names=["a"])


def test_a_density_far_from_zero_is_drawn_as_high_as_it_is(ax):
    x = scipy.stats.norm.ppf(np.linspace(0.001, 0.999, 300), 1e6, 1)
    plot.histogram(jg.DiagonalGaussian.from_values([1e6], [1.0]), x[:, None], ax)
    (line,) = ax.lines
    # the mean of a density over the sixteenths that float32 has there, and its distribution function's last digit
    np.testing.assert_allclose(line.get_ydata(), scipy.stats.norm.pdf(line.get_xdata(), 1e6, 1), atol=3e-4)
    assert len(line.get_xdata()) > 80


def test_columns_without_a_value_are_no_picture(ax):
    x = np.array([[1.0, np.nan], [2.0, np.nan]])
    for call in (lambda: plot.histogram(None, x, ax, column=1), lambda: plot.corner(None, x, Figure()),
                 lambda: plot.corner(NORMALS, [[1.0, np.nan], [np.nan, 2.0]], Figure())):  # fmt: skip
        with pytest.raises(jg.DataError, match="no value|no row"):
            call()


def test_corner_shows_all_pairs_in_the_components_colours():
    x = np.array([[0.0, 5.0], [4.0, -1.0], [4.1, -1.5]], np.float32)
    axes = plot.corner(NORMALS, pd.DataFrame(x, columns=["a", "b"]), Figure(), samples=x[:1] + 1)
    assert axes[0, 1] is None
    data, drawn = axes[1, 0].collections
    np.testing.assert_array_equal(data.get_offsets(), x)
    np.testing.assert_array_equal(drawn.get_offsets(), x[:1] + 1)
    colours = [to_rgba(plot.component_colour(k))[:3] for k in (0, 1, 1)]
    np.testing.assert_allclose(data.get_facecolors()[:, :3], colours, atol=1e-3)
    assert (axes[1, 0].get_xlabel(), axes[1, 0].get_ylabel(), axes[1, 1].get_xlabel()) == ("a", "b", "b")


def test_forecast_is_a_fan_after_what_was_seen(ax):
    x = np.array([0, 1, 2, 9, 8, 7])
    ahead = POISSONS.forecast(POISSONS.filter(x), 4)
    plot.forecast(ahead, pd.Series(x, index=MONTHS, name="visits"), ax, intervals=(0.9,))
    seen, median = ax.lines
    np.testing.assert_array_equal(seen.get_ydata(), x)
    np.testing.assert_array_equal(median.get_ydata(), ahead.quantile(0.5))
    days = np.datetime64("2001-02-05") + np.arange(1, 5)
    np.testing.assert_array_equal(matplotlib.dates.date2num(median.get_xdata()), matplotlib.dates.date2num(days))
    assert isinstance(ax.xaxis.get_major_formatter(), matplotlib.dates.ConciseDateFormatter)
    assert ax.get_ylabel() == "visits"
    (band,) = ax.collections
    low, high = (np.asarray(end) for end in ahead.interval(0.9))
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (low.min(), high.max())


def test_forecast_of_joint_draws_and_of_given_times(ax):
    draws = np.random.default_rng(0).normal(size=(400, 3, 2))
    plot.forecast(draws, np.zeros((2, 2)), ax, column=1, time=[0, 1, 2, 4, 8], intervals=(0.5,))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), np.median(draws[..., 1], axis=0))
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [2, 4, 8])
    with pytest.raises(jg.DataError, match="probabilities"):
        plot.forecast(draws, None, ax, intervals=(90,))
    for wrong in ({"column": 2}, {"x": np.zeros((2, 2)), "time": [0.0, 1.0, 2.0]}):
        with pytest.raises(jg.ShapeError, match="column|time"):
            plot.forecast(draws, **({"x": None} | wrong), ax=ax)


def test_states_and_decoded_on_dates(ax):
    x = pd.Series([0.0, 1, 2, 9, 8, 12], index=MONTHS, name="rain")
    above, below = plot.decoded(POISSONS, x, ax)
    assert above.get_ylabel() == "rain"
    assert below.get_xlim() == tuple(matplotlib.dates.date2num(MONTHS.to_numpy()[[0, -1]]))
    other = Figure().subplots()
    plot.states([1.0, 2.0], [0, 1], other, time=["2001-01-01", "2001-03-01"])
    edge = matplotlib.dates.date2num(np.datetime64("2001-01-30T12"))  # half way
    assert other.patches[0].get_extents().x1 == pytest.approx(other.transData.transform((edge, 0))[0], abs=1e-3)
    for colour, patch in zip(plot.PALETTE, other.patches, strict=False):
        np.testing.assert_allclose(patch.get_facecolor()[:3], to_rgba(colour)[:3])
    with pytest.raises(jg.DataError, match="times"):
        plot.states([1.0, 2.0], [0, 1], ax, time=["then", "now"])


def test_all_metrics_at_once_and_log_steps():
    steps = np.arange(1.0, 51)
    history = {"loss": 3 / steps, "gradient_norm": 1 / steps, "validation": np.array([-2.0, -1.0]),
               "validation_step": np.array([25, 50])}  # fmt: skip
    axes = plot.metrics(types.SimpleNamespace(history=history), Figure(), log_steps=True)
    assert [ax.get_ylabel() for ax in axes] == ["gradient norm", "loss (nats per event)"]
    assert [len(ax.lines) for ax in axes] == [1, 2]  # what was validated is the loss
    assert {ax.get_xscale() for ax in axes} == {"log"}
    np.testing.assert_array_equal(axes[1].lines[1].get_ydata(), [2.0, 1.0])


def test_names_of_a_frame_are_on_the_axes_of_the_plane(ax):
    plot.points(pd.DataFrame(np.zeros((3, 2)), columns=["u", "v"]), ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "v")
