"""Data: small real sets in the package, densities to draw from, readers for files, and the check of arrays."""

from jaxgen.core.inputs import as_array
from jaxgen.core.tables import Schema, Table
from jaxgen.data.blobs import Blobs, blobs
from jaxgen.data.measured import Measured, binarized, dequantized
from jaxgen.data.readers import read, read_idx, read_npy, read_npz, read_parquet
from jaxgen.data.sets import digits, earthquakes, fashion_mnist, old_faithful, text, weekly_returns
from jaxgen.data.stream import Stream
from jaxgen.data.synthetic import (
    eight_gaussians,
    eight_gaussians_centers,
    eight_gaussians_log_density,
    two_moons,
    two_moons_log_density,
)
from jaxgen.data.tables import read_csv

__all__ = [
    "Blobs",
    "Measured",
    "Schema",
    "Stream",
    "Table",
    "as_array",
    "binarized",
    "blobs",
    "dequantized",
    "digits",
    "earthquakes",
    "eight_gaussians",
    "eight_gaussians_centers",
    "eight_gaussians_log_density",
    "fashion_mnist",
    "old_faithful",
    "read",
    "read_csv",
    "read_idx",
    "read_npy",
    "read_npz",
    "read_parquet",
    "text",
    "two_moons",
    "two_moons_log_density",
    "weekly_returns",
]


def __dir__() -> list[str]:
    return __all__
