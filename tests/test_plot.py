"""Pictures: each function draws on the axis it is given, what it draws is where it should be, bad input is refused."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import jaxgen as jg
from jaxgen import plot


@pytest.fixture
def ax():
    return Figure().subplots()


def test_points_and_samples(ax):
    assert plot.data_and_samples(np.zeros((5, 2)), np.ones((4, 2)), ax) is ax
    drawn = np.asarray(ax.collections[0].get_offsets())
    assert sorted(drawn[:, 0].tolist()) == [0] * 5 + [1] * 4
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["data", "samples"]
    assert plot.points(np.zeros((3, 2)), ax) is ax


def test_density_contours_hold_their_mass(ax):
    model = jg.Gaussian.from_values([1.0, -1.0], [[1.0, 0.6], [0.6, 2.0]])
    x = np.asarray(model.sample(jax.random.key(0), (4000,)))
    plot.density(model, x, ax)
    contour = ax.collections[0]
    levels = np.asarray(contour.levels)[:-1]
    best = float(model.log_prob(model.mean))
    p = np.exp(np.asarray(model.log_prob(x)) - best)
    inside = [(p > level).mean() for level in levels]
    # 4000 draws: three standard errors are 0.024; the rest is the grid's and the maximum over the grid
    np.testing.assert_allclose(inside, [0.99, 0.9, 0.75, 0.5, 0.25], atol=0.035)


def test_density_given_a_context_is_that_of_the_conditional(ax):
    line = jg.LinearRegression.from_values([[1.0], [2.0]], [0.0, 1.0], np.eye(2))
    there = jg.Gaussian.from_values([3.0, 7.0], np.eye(2))
    x = np.asarray(there.sample(jax.random.key(0), (50,)))
    plot.density(line, x, ax, context=np.array([3.0]))
    other = plot.density(there, x, Figure().subplots())
    np.testing.assert_allclose(ax.collections[0].levels, other.collections[0].levels, rtol=1e-5)


def test_ellipses_are_the_covariances(ax):
    covariance = np.array([[[4.0, 0.0], [0.0, 1.0]], [[1.0, 0.8], [0.8, 1.0]]])
    means = np.array([[0.0, 0.0], [5.0, 5.0]])
    mixture = jg.Mixture.from_components(jg.Gaussian.from_values(means, covariance))
    plot.ellipses(mixture, ax, deviations=(1.0,))
    first, second = ax.patches
    # full axes are twice a standard deviation: 2 and 1; sqrt(1.8) and sqrt(0.2) along the diagonal
    np.testing.assert_allclose([first.width, first.height], [4, 2], rtol=1e-4)
    np.testing.assert_allclose([second.width, second.height], [2 * 1.8**0.5, 2 * 0.2**0.5], rtol=1e-4)
    assert second.angle % 180 == pytest.approx(45, abs=1e-2)
    diagonal = jg.DiagonalGaussian.from_values([[0.0, 0.0]], [[2.0, 1.0]])
    assert plot.ellipses(jg.Mixture.from_components(diagonal), ax) is ax


def test_ellipses_of_more_coordinates_are_those_of_the_marginal(ax):
    covariance = np.diag([4.0, 1.0, 9.0])
    parts = jg.Gaussian.from_values([[1.0, 2.0, 3.0]] * 2, [covariance] * 2)
    mixture = jg.Mixture.from_components(parts, [0.9, 0.1])
    x = np.arange(12.0).reshape(4, 3)
    plot.ellipses(mixture, ax, x=x, coordinates=(2, 0), deviations=(1.0,))
    heavy, light = ax.patches
    np.testing.assert_allclose([heavy.width, heavy.height, *heavy.center], [6, 4, 3, 1], rtol=1e-4)
    assert heavy.get_facecolor()[3] > light.get_facecolor()[3]
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), x[:, [2, 0]])
    for pair in ((0, 3), (1, 1), (0, 1, 2), (0.0, 1.0)):
        with pytest.raises(jg.ModelError, match="coordinates"):
            plot.ellipses(mixture, ax, coordinates=pair)
    with pytest.raises(jg.ShapeError, match="mixture"):
        plot.ellipses(mixture, ax, x=x[:, :2], coordinates=(0, 1))


def test_responsibilities_mix_the_colours(ax):
    mixture = jg.Mixture.from_components(jg.DiagonalGaussian.from_values([[-9.0, 0.0], [9.0, 0.0]], np.ones((2, 2))))
    assert plot.responsibilities(mixture, [[0.0, 3.0], [-9.0, 1.0], [9.0, 2.0]], ax) is ax
    dots = ax.collections[0]
    # the doubtful one is drawn last
    np.testing.assert_array_equal(dots.get_offsets()[:, 1], [1, 2, 3])
    first, second, both = dots.get_facecolors()[:, :3]
    np.testing.assert_allclose([first, second], [to_rgba(colour)[:3] for colour in plot.PALETTE[:2]], atol=1e-6)
    assert (np.minimum(first, second) <= both).all()
    assert (both <= np.maximum(first, second)).all()
    np.testing.assert_allclose(both**2, (first**2 + second**2) / 2, atol=1e-5)


def test_information(ax):
    row = lambda leaf, k, bic, sound=True: types.SimpleNamespace(leaf=leaf, k=k, bic=bic, sound=sound)  # noqa: E731
    rows = [row("full", 1, 9.0), row("full", 2, -5.0), row("full", 3, -99.0, False), row("tied", 1, 8.0)]
    table = types.SimpleNamespace(rows=rows, best=lambda by: rows[1])
    assert plot.information(table, ax) is ax
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [9, -5, np.nan])
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), [2])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["full", "tied"]
    assert ax.texts[0].get_text() == "full, K = 2: \N{MINUS SIGN}5.0"
    low, high = ax.get_ylim()  # the best is at the lower end, as the axis says
    assert low < -5 and 8 < high < 20 and "lower is better" in ax.get_ylabel()


def test_states(ax):
    plot.states([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], ax, time=[10, 11, 12, 13], levels=[1.5, 3.5])
    assert len(ax.patches) == 2
    assert ax.get_xlim() == (10, 13)
    first, second = ax.patches
    assert first.get_extents().width == pytest.approx(second.get_extents().width)


def test_decoded(ax):
    hmm = jg.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], jg.Poisson.from_values([1.0, 9.0]))
    x = np.array([0, 1, 2, 9, 8, 12, 1, 0])
    years = np.arange(1990, 1998)
    above, below = plot.decoded(hmm, x, ax, time=years, levels=hmm.emissions.rate)
    assert above is ax and below.figure is ax.figure
    assert below.get_xlim() == above.get_xlim() == (1990, 1997)
    # three runs: 0, 1 and 0 again, in the colours of their states
    faces = [patch.get_facecolor()[:3] for patch in above.patches]
    np.testing.assert_allclose(faces, [to_rgba(plot.PALETTE[k])[:3] for k in (0, 1, 0)])
    assert [t.get_text() for t in above.get_legend().get_texts()] == ["state 0", "state 1"]
    # below, the first state's area is as high as its probability
    share = np.asarray(hmm.smooth(x))
    lowest = below.collections[0].get_paths()[0]
    for i in range(1, 7):  # the first and last are edges of the area
        here = [[years[i], height] for height in (0.5 * share[i, 0], share[i, 0] + 1e-3)]
        assert lowest.contains_points(here).tolist() == [True, False]
    ax.figure.draw_without_rendering()
    boxes = [a.get_window_extent() for a in (above, below)]
    assert boxes[1].y1 < boxes[0].y0 and boxes[1].height > 30
    with pytest.raises(jg.ModelError, match="decode"):
        plot.decoded(jg.StandardNormal((2,)), x, ax)
    with pytest.raises(jg.ShapeError, match="one series"):
        plot.decoded(hmm, x[None], ax)
    coin = jg.HMM.from_values([1.0], [[1.0]], jg.Categorical.from_values([[1.0, 0.0]]))
    with pytest.raises(jg.DataError, match="no path"):
        plot.decoded(coin, [0, 1], ax)


def test_series_of_several_numbers_and_gaps(ax):
    series = np.arange(400.0).reshape(200, 2)
    series[3] = np.nan
    plot.states(series, np.repeat([0, 1], 100), ax)
    # many times are a line without dots
    assert [line.get_marker() for line in ax.lines] == ["", ""]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), series[:, 1])


def test_images_and_filters(ax):
    plot.images(np.arange(24.0).reshape(6, 2, 2), ax, columns=3)
    sheet = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    assert sheet.shape == (5, 8)
    np.testing.assert_array_equal(sheet[:2, 3:5], [[4, 5], [6, 7]])
    assert np.isnan(sheet[2]).all()
    weights = np.zeros((6, 2))
    weights[4, 1] = -3.0
    other = Figure().subplots()
    plot.filters(weights, (2, 3), other, columns=2)
    sheet = np.ma.filled(other.images[0].get_array().astype(float), np.nan)
    assert sheet[1, 5] == -1
    assert np.nansum(np.abs(sheet)) == 1
    assert plot.images(np.zeros((2, 4, 4, 3)), Figure().subplots()).images[0].get_array().shape[-1] == 3


def test_history(ax):
    fitted = types.SimpleNamespace(history={"loss": np.linspace(3, 1, 500), "validation": np.array([-2.0, -1.5]),
                                            "validation_step": np.array([250, 500])})  # fmt: skip
    plot.history(fitted, "loss", ax)
    assert ax.get_ylabel() == "loss (nats per event)"
    # the running mean of a straight line is that line
    x, y = ax.lines[1].get_data()
    np.testing.assert_allclose(y, np.linspace(3, 1, 500)[x.astype(int) - 1], atol=0.01)
    np.testing.assert_allclose(ax.lines[2].get_data()[1], [2.0, 1.5])
    assert plot.history(fitted, ax=Figure().subplots()).get_ylabel() == ax.get_ylabel()


def test_refuses(ax):
    model = jg.StandardNormal((2,))
    bits = jg.Mixture.from_components(jg.Bernoulli.from_values([[0.5] * 3]))
    for call in (
        lambda: plot.density(model, np.zeros((5, 3)), ax),
        lambda: plot.data_and_samples(np.zeros((5, 2)), np.zeros(5), ax),
        lambda: plot.states([1.0, 2.0], [0], ax),
        lambda: plot.images(np.zeros((4, 4)), ax),
        lambda: plot.responsibilities(bits, np.zeros((2, 3)), ax),
        lambda: plot.filters(np.zeros((6, 2)), (2, 2), ax),
    ):
        with pytest.raises(jg.ShapeError, match="expected"):
            call()
    with pytest.raises(jg.ModelError, match="density"):
        plot.ellipses(jg.Mixture.from_components(jg.Gaussian.from_values(jnp.zeros((2, 3)), [np.eye(3)] * 2)), ax)
    with pytest.raises(jg.ModelError, match="mixture"):
        plot.responsibilities(model, np.zeros((5, 2)), ax)
    with pytest.raises(jg.DataError, match="loss"):
        plot.history(types.SimpleNamespace(history={"loss": np.zeros(3)}), "nothing", ax)
