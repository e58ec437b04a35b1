"""Pictures of latents: what is drawn is what a decoder makes of the places that were meant."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import jaxgen as jg
from jaxgen import plot
from jaxgen.plot.latents import between


@pytest.fixture
def ax():
    return Figure().subplots()


class Painter:
    """A latent of three numbers is the grey of three pixels, of two rows each; a picture keeps its upper row only."""

    def decode(self, z):
        return jnp.stack([z, z], axis=-2)

    def reconstruct(self, x):
        return 0.5 * x


def cells(ax, rows, columns):
    """The pictures of a grid, `[rows, columns, 2, 3]`: between them is a line."""
    sheet = np.asarray(ax.images[0].get_array().filled(np.nan))
    return np.stack([[sheet[3 * r : 3 * r + 2, 4 * c : 4 * c + 3] for c in range(columns)] for r in range(rows)])


def test_traversals_change_one_coordinate_at_a_time(ax):
    start = np.array([1.0, 2.0, 3.0])
    assert plot.traversals(Painter(), start, ax, coordinates=[2, 0], reach=1.0, steps=5) is ax
    found = cells(ax, 2, 5)[:, :, 0]
    np.testing.assert_allclose(found[0, :, 2], [2.0, 2.5, 3.0, 3.5, 4.0])
    np.testing.assert_allclose(found[1, :, 0], [0.0, 0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(found[0, :, :2], np.tile([1.0, 2.0], (5, 1)))


def test_ways_between_two_latents(ax):
    a, b = np.array([3.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.0])
    plot.interpolation(Painter(), a, b, ax, steps=3)
    np.testing.assert_allclose(cells(ax, 1, 3)[0, 1, 0], [1.5, 1.5, 0.0])
    circle = between(a[None], b[None], 7, True)[0]
    np.testing.assert_allclose(np.linalg.norm(circle, axis=1), 3.0)  # a great circle keeps the length
    np.testing.assert_allclose(circle[[0, -1]], [a, b], atol=1e-12)
    # along one line there is no circle
    np.testing.assert_allclose(between(a[None], -a[None], 3, True)[0, 1], 0.0, atol=1e-12)


def test_reconstructions_stand_below_their_events(ax):
    x = np.random.default_rng(0).random((4, 2, 3))
    plot.reconstructions(Painter(), x, ax, columns=2)
    found = cells(ax, 4, 2)
    np.testing.assert_allclose(found[[0, 2]].reshape(4, 2, 3), x, rtol=1e-6)
    np.testing.assert_allclose(found[[1, 3]].reshape(4, 2, 3), x / 2, rtol=1e-6)


def test_a_map_is_coloured_by_class(ax):
    z = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    plot.latent_map(z, ax, label=[1, -1, 0, 1])
    colours = [tuple(c.get_facecolor()[0]) for c in ax.collections]
    assert colours == [to_rgba(plot.DATA), to_rgba(plot.component_colour(0)), to_rgba(plot.component_colour(1))]
    np.testing.assert_array_equal(ax.collections[2].get_offsets(), z[[0, 3]])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0", "1"]


def test_a_map_of_many_coordinates_is_of_the_widest(ax):
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [5.0, 3.0]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    z = np.concatenate([plane, 0.01 * rng.normal(size=(50, 4))], axis=1) @ turn
    plot.latent_map(z, ax)
    found = np.asarray(ax.collections[0].get_offsets())
    gaps = lambda p: np.linalg.norm(p[:, None] - p[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(gaps(found), gaps(plane), atol=0.1)
    assert ax.get_xlabel() == "first principal latent"


@pytest.mark.parametrize(
    ("draw", "error"),
    [
        (lambda ax: plot.latent_map(np.zeros((3, 1)), ax), jg.ShapeError),
        (lambda ax: plot.latent_map(np.zeros((3, 2)), ax, label=[1, 2]), jg.ShapeError),
        (lambda ax: plot.traversals(Painter(), np.zeros((2, 3)), ax), jg.ShapeError),
        (lambda ax: plot.traversals(Painter(), np.zeros(3), ax, coordinates=[3]), jg.DataError),
        (lambda ax: plot.traversals(Painter(), np.zeros(3), ax, steps=1), jg.DataError),
        (lambda ax: plot.interpolation(Painter(), np.zeros(3), np.zeros(2), ax), jg.ShapeError),
        (lambda ax: plot.reconstructions(Painter(), np.zeros(3), ax), jg.ShapeError),
    ],
)
def test_bad_input_is_refused(draw, error, ax):
    with pytest.raises(error):
        draw(ax)
