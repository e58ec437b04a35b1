"""Small real data sets that ship inside the package; origins, licences and citations in files/LICENSES.md.

Each comes with `train` and `test`, index arrays into its events: `d = digits(); d.images[d.train]`.
"""

from __future__ import annotations

import lzma
from importlib import resources
from typing import NamedTuple

import numpy as np

from jaxgen.core.tables import Table
from jaxgen.data.opening import refusing
from jaxgen.data.tables import read_csv


class Digits(NamedTuple):
    """Handwritten digits, see `digits`."""

    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray


class OldFaithful(NamedTuple):
    """Eruptions of a geyser, see `old_faithful`."""

    values: np.ndarray
    columns: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


class Earthquakes(NamedTuple):
    """Yearly counts of earthquakes, see `earthquakes`."""

    counts: np.ndarray
    years: np.ndarray
    train: np.ndarray
    test: np.ndarray


class WeeklyReturns(NamedTuple):
    """A stock market by weeks, see `weekly_returns`."""

    size: np.ndarray
    years: np.ndarray
    train: np.ndarray
    test: np.ndarray


class FashionMNIST(NamedTuple):
    """Pictures of clothes, see `fashion_mnist`."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray


class Text(NamedTuple):
    """A text as symbols, see `text`."""

    text: str
    codes: np.ndarray
    alphabet: str
    train: np.ndarray
    test: np.ndarray

    def __repr__(self) -> str:  # the tuple's own would print the book
        return f"Text({self.text[:40]!r}..., {len(self.codes)} characters of {self.alphabet!r})"


def digits() -> Digits:
    """Handwritten digits, 8 by 8 pixels, 17 grey levels.

    Returns:
        images: `[1797, 8, 8]` uint8, ink from 0 to 16 (number of dark pixels in a 4 by 4 block).
        labels: `[1797]` uint8, 0 to 9.
        train, test: `[1500]`, `[297]`, the first and the last in the order of the original.

    Example:
        >>> d = digits()
        >>> d.images[d.train].shape, int(d.images.max())
        ((1500, 8, 8), 16)

    Source: Alpaydin & Kaynak (1998), UCI Machine Learning Repository, CC BY 4.0 (the test part, as in scikit-learn).
    """
    arrays = _arrays("digits.npz")
    return Digits(arrays["images"], arrays["labels"], np.arange(1500), np.arange(1500, 1797))


def old_faithful() -> OldFaithful:
    """Eruptions of the Old Faithful geyser, Yellowstone: how long each took and the wait for the next.

    Returns:
        values: `[272, 2]` float64, both in minutes.
        columns: `("eruptions", "waiting")`.
        train, test: `[200]`, `[72]`, a fixed random split (each in order).

    Example:
        >>> old_faithful().values.mean(0).round(4).tolist()
        [3.4878, 70.8971]

    Source: Azzalini & Bowman (1990), Härdle (1991); measurements, as in R's `faithful`.
    """
    table = _table("old_faithful.csv")
    order = np.random.RandomState(0).permutation(len(table.values))  # the one numpy stream that is frozen for ever
    return OldFaithful(table.values, table.columns, np.sort(order[:200]), np.sort(order[200:]))


def earthquakes() -> Earthquakes:
    """Number of major earthquakes (magnitude 7 or more) in the world, by year, 1900 to 2006.

    Returns:
        counts: `[107]` int32, events a year.
        years: `[107]` int32.
        train, test: `[80]`, `[27]`, the years to 1979 and those after: a forecast, not a random split.

    Example:
        >>> earthquakes().counts[:5].tolist()
        [13, 14, 8, 10, 16]

    Source: U.S. Geological Survey, from Zucchini & MacDonald (2009), Hidden Markov Models for Time Series.
    """
    years, counts = _table("earthquakes.csv").values.astype(np.int32).T
    return Earthquakes(np.ascontiguousarray(counts), np.ascontiguousarray(years), np.arange(80), np.arange(80, 107))


def fashion_mnist() -> FashionMNIST:
    """Pictures of clothes, 28 by 28 pixels: the first 4000 and 1000 of the official train and test sets.

    Returns:
        images: `[5000, 28, 28]` uint8, brightness from 0 to 255.
        labels: `[5000]` uint8, 0 to 9.
        names: of the ten classes.
        train, test: `[4000]`, `[1000]`, from the official sets.

    Example:
        >>> d = fashion_mnist()
        >>> d.images[d.test].shape, d.names[d.labels[0]]
        ((1000, 28, 28), 'ankle boot')

    Source: Xiao, Rasul & Vollgraf (2017), arXiv:1708.07747, MIT licence. (`read_idx` reads the four full files.)
    """
    arrays = _arrays("fashion_mnist.npz")
    names = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    return FashionMNIST(arrays["images"], arrays["labels"], names, np.arange(4000), np.arange(4000, 5000))


def weekly_returns() -> WeeklyReturns:
    """Absolute weekly returns of the S&P 500 in percent, from May 2004 to May 2014.

    Returns:
        size: `[521]`, absolute weekly returns in percent, positive.
        years: `[521]`, the time as a year and its part.
        train, test: `[400]`, `[121]`, the weeks to the end of 2011 and those after: a forecast, not a random split.

    Example:
        >>> d = weekly_returns()
        >>> d.size[:3].round(2).tolist(), d.years[[0, -1]].round(1).tolist()
        ([1.61, 0.66, 0.91], [2004.3, 2014.3])

    Source: the series `areturns` in statsmodels' tests of Markov switching, after Hamilton and Susmel (1994).
    """
    size = _table("weekly_returns.csv").values[:, 0]
    years = 2004 + (124 + 7 * np.arange(len(size))) / 365.25  # the first week ends on day 124
    return WeeklyReturns(size, years, np.arange(400), np.arange(400, len(size)))


def text() -> Text:
    """H. G. Wells, The Time Machine (1895), as text and as symbols.

    Returns:
        text: 178,887 characters of ASCII; a paragraph is one line, an empty line between two.
        codes: `[178887]` uint8, `alphabet[codes[i]] == text[i]`.
        alphabet: the 69 characters in use, sorted.
        train, test: `[160998]`, `[17889]`, the first nine tenths and the rest.

    Example:
        >>> t = text()
        >>> "".join(t.alphabet[c] for c in t.codes[:16])
        'The Time Machine'

    Source: Wells (1895), Project Gutenberg; public domain.
    """
    data = lzma.decompress((resources.files("jaxgen.data") / "files" / "time_machine.txt.xz").read_bytes())
    alphabet, codes = np.unique(np.frombuffer(data, np.uint8), return_inverse=True)
    cut = len(data) * 9 // 10
    return Text(
        data.decode("ascii"), codes.astype(np.uint8), alphabet.tobytes().decode("ascii"),
        np.arange(cut), np.arange(cut, len(data)),
    )  # fmt: skip


def _arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file of the package, which is packed by LZMA: `read_npz`, for anyone's files, takes no such."""
    with (
        resources.as_file(resources.files("jaxgen.data") / "files" / name) as path,
        refusing(f"data, from {name} of the package", "the file as it was installed"),
        np.load(path, allow_pickle=False) as arrays,
    ):
        return dict(arrays)


def _table(name: str) -> Table:
    with resources.as_file(resources.files("jaxgen.data") / "files" / name) as path:
        return read_csv(path)
