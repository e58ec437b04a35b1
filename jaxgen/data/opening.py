"""Opening files that somebody else wrote: missing, damaged or hostile, they end in one `FileError`."""

from __future__ import annotations

import difflib
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from jaxgen.core.errors import FileError, JaxgenError, JaxgenWarning

DEFLATE_RATIO = 1032  # the most that deflate can expand: 258 bytes from 2 bits


def checked(path: str | os.PathLike[str], called: str) -> Path:
    """The path of an existing file, or an error that names the nearest one."""
    path = Path(path)
    if path.is_file():
        return path
    advice = "check the path and the working directory"
    near = _alike(path)
    raise FileError(
        "no such file" if not path.exists() else "not a file", called=called, expected="the path of a file",
        got=f"{os.path.abspath(path)}" + (" (a folder)" if path.is_dir() else ""),
        fix=f"did you mean {near!r}?" if near else advice,
    )  # fmt: skip


def _alike(path: Path) -> str:
    """The file beside a path that is called nearly as it, or as it but for the ending; empty where none is."""
    files = [p for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
    stems = difflib.get_close_matches(path.stem, [p.stem for p in files], n=1, cutoff=0.75)
    return next((p.name for p in files if p.stem in stems), "")


@contextmanager
def refusing(called: str, expected: str) -> Iterator[None]:
    """Any failure inside becomes a `FileError`."""
    try:
        yield
    except (JaxgenError, JaxgenWarning):
        raise
    except Exception as error:  # zip, gzip, numpy and csv fail on hostile bytes in a dozen ways: all mean one thing
        raise FileError(
            "the file could not be read", called=called, expected=expected, got=f"{type(error).__name__}: {error}",
            fix="it may be cut short or of another kind: make or download it again",
        ) from error  # fmt: skip


@contextmanager
def opened(path: str | os.PathLike[str], called: str, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file as bytes, gunzipped if it is gzip, and the most bytes that it can hold."""
    path = checked(path, called)
    with refusing(called, expected), path.open("rb") as raw:
        size = path.stat().st_size
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw as stream:
            yield stream, size * DEFLATE_RATIO if zipped else size
