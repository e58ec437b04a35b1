"""Readers for files of numbers: idx, npy, npz, csv. A wrong file is refused with a `FileError`, whatever its bytes."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from jaxgen.core.cells import Reading
from jaxgen.core.errors import DataError, FileError
from jaxgen.core.tables import Dates, Table
from jaxgen.data.opening import DEFLATE_RATIO, checked, opened, refusing
from jaxgen.data.tables import read_csv

# The type code is the third byte of an idx file; numbers are big-endian (LeCun, Cortes & Burges 1998, the MNIST page).
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_NDIM = 32  # what every numpy can hold


def read(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray] | Table:
    """Reads a file; the name's ending says which reader: idx, `-ubyte`, npy, npz, csv, tsv (any `.gz`), parquet.

    Args:
        path: the file.

    Returns:
        an array (`read_idx`, `read_npy`), a dict of arrays (`read_npz`) or a `Table` (`read_csv`, `read_parquet`).

    Raises:
        FileError: an unknown ending, or what the reader refuses.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.eye(3))
        >>> read(path).shape
        (3, 3)
    """
    called = f"read({os.fspath(path)!r})"
    name = checked(path, called).name.lower().removesuffix(".gz")
    readers: tuple[tuple[tuple[str, ...], Callable[[Any], Any]], ...] = (
        ((".idx", "-ubyte", ".ubyte"), read_idx),
        ((".npy",), read_npy),
        ((".npz",), read_npz),
        ((".csv",), read_csv),
        ((".tsv",), lambda p: read_csv(p, delimiter="\t")),
        ((".parquet",), read_parquet),
    )
    for endings, reader in readers:
        if name.endswith(endings):
            return reader(path)
    raise FileError(
        "the file's name does not say what is in it", called=called,
        expected="a name ending in " + " ".join(e for endings, _ in readers for e in endings) + ", or those and .gz",
        got=Path(path).name,
        fix="read_csv(path), or read_idx(path), or read_npy(path), or read_npz(path), by what is in it",
    )  # fmt: skip


def read_parquet(
    path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, labels: Sequence[str] = (),
    dates: Dates = "refuse",
) -> Table:  # fmt: skip
    """Reads a table in parquet, by pandas and pyarrow, which have to be installed.

    Args:
        path: the file.
        columns, labels, dates: as in `Table.from_frame`.

    Raises:
        FileError: missing; damaged; no reader installed; a column that `Table.from_frame` refuses.
    """
    called = f"read_parquet({os.fspath(path)!r})"
    path, pandas = checked(path, called), pandas_with_parquet(called)
    with refusing(called, "a parquet file, whole"):
        frame = pandas.read_parquet(path, engine="pyarrow")
    try:
        reading = Reading(called, "read_parquet(path, {})", tuple(labels), dates)
        return Table.from_frame(frame, columns=columns, reading=reading)
    except DataError as error:
        raise FileError(
            error.message, called=called, expected=error.expected, got=error.got, fix=error.fix
        ) from None  # fmt: skip


def pandas_with_parquet(called: str) -> Any:
    """Return pandas, which can read and write parquet.

    Raises:
        FileError: it is not there, or pyarrow is not.
    """
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise FileError(
            "parquet is read and written by pandas and pyarrow", called=called, expected="both of them", got=str(error),
            fix="install them: pip install pandas pyarrow",
        ) from None  # fmt: skip
    return pandas


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads one array in the idx format of MNIST, plain or gzipped (told by its content, not by its name).

    Args:
        path: the file.

    Returns:
        the array in the file's own shape and one of the six idx types: uint8, int8, int16, int32, float32, float64.

    Raises:
        FileError: missing; not idx; cut short; bytes left over; damaged gzip.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.idx"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(path).tolist()
        [7, 8, 9]
    """
    called = f"read_idx({os.fspath(path)!r})"
    with opened(path, called, "an idx file, whole") as (stream, capacity):
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_DTYPES or not 1 <= head[3] <= _MAX_NDIM:
            raise FileError(
                "not an idx file", called=called, expected="first bytes 00 00, a type in 08 09 0b 0c 0d 0e, a rank",
                got=f"the first bytes {head.hex(' ') or '(none: the file is empty)'}", fix=_fix_for_bytes(head),
            )  # fmt: skip
        sizes = _take(stream, 4 * head[3], called)
        shape = tuple(int.from_bytes(sizes[i : i + 4].tobytes(), "big") for i in range(0, len(sizes), 4))
        return _take_array(stream, shape, np.dtype(_IDX_DTYPES[head[2]]), capacity, called)


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads one array written by `numpy.save`; never runs a pickle.

    Args:
        path: the file, plain or gzipped.

    Returns:
        the array, in native byte order.

    Raises:
        FileError: missing; not npy; object or structured arrays; cut short; bytes left over.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(4))
        >>> read_npy(path)
        array([0, 1, 2, 3])
    """
    called = f"read_npy({os.fspath(path)!r})"
    with opened(path, called, "a .npy file, whole") as (stream, capacity):
        return _take_npy(stream, capacity, called)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays written by `numpy.savez` or `numpy.savez_compressed`; never runs a pickle.

    Args:
        path: the file.

    Returns:
        the arrays by name.

    Raises:
        FileError: missing; not a zip file; a member that is no plain array; damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npz"
        >>> np.savez(path, a=np.zeros(2), b=np.ones((2, 3)))
        >>> {name: value.shape for name, value in read_npz(path).items()}
        {'a': (2,), 'b': (2, 3)}
    """
    called = f"read_npz({os.fspath(path)!r})"
    arrays: dict[str, np.ndarray] = {}
    with refusing(called, "a .npz file, whole"), zipfile.ZipFile(checked(path, called)) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            member = f"{called}[{name!r}]"
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            room = info.compress_size * (DEFLATE_RATIO if deflated else 1)
            if name == info.filename or name in arrays or not (deflated or info.compress_type == zipfile.ZIP_STORED):
                raise FileError(
                    "a member of the file is no array of numpy's", called=member,
                    fix="write it with savez of numpy",
                    expected="distinct names ending in .npy, stored or deflated", got=repr(info.filename),
                )  # fmt: skip
            with refusing(member, "a .npy file, whole"), archive.open(info) as stream:
                arrays[name] = _take_npy(cast(BinaryIO, stream), min(info.file_size, room), member)
    return arrays


def _fix_for_bytes(head: bytes) -> str:
    known = {b"\x93NUM": "read_npy(path): it is a .npy file", b"PK\x03\x04": "read_npz(path): it is a zip file"}
    return known.get(head, "download it again: a web page or an error message is often saved under such a name")


def _take(stream: BinaryIO, n_bytes: int, called: str) -> np.ndarray:
    data = memoryview(bytearray(n_bytes))
    filled = 0
    while filled < n_bytes:
        count = stream.readinto(data[filled:])  # type: ignore[attr-defined]
        if not count:
            raise FileError(
                "the file is cut short", called=called, expected=f"{n_bytes} bytes here", got=f"{filled} bytes",
                fix="get it again, or write it again",
            )  # fmt: skip
        filled += count
    return np.frombuffer(data, np.uint8)


def _take_array(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, capacity: int, called: str) -> np.ndarray:
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > capacity or len(shape) > _MAX_NDIM:  # before any memory is taken: the header may lie
        raise FileError(
            "the header promises more than the file can hold", called=called, expected=f"at most {capacity} bytes",
            got=f"shape {shape} of {dtype}: {n_bytes} bytes", fix="the file is cut short or damaged: get it again",
        )  # fmt: skip
    data = _take(stream, n_bytes, called)
    if stream.read(1):  # reading past the end also makes gzip and zip check their checksums
        raise FileError(
            "bytes are left over after the array", called=called, expected=f"the end after shape {shape} of {dtype}",
            got="more bytes", fix="write one array a file (np.savez holds several)",
        )  # fmt: skip
    values = data.view(dtype) if n_bytes else np.empty(0, dtype)
    return values.reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _take_npy(stream: BinaryIO, capacity: int, called: str) -> np.ndarray:
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in headers:
        raise FileError("an unknown version of npy", called=called, expected="1.0 or 2.0", got=str(version))
    shape, fortran, dtype = headers[version](stream)
    if dtype.hasobject or dtype.names is not None:
        raise FileError(
            "the file holds Python objects or records, not numbers", called=called, expected="a plain array",
            got=f"dtype {dtype}", fix="save plain arrays of numbers, one for each field",
        )  # fmt: skip
    values = _take_array(stream, shape[::-1] if fortran else shape, dtype, capacity, called)
    return values.T if fortran else values
