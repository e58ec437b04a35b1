"""Readers of files: right files come back as they were written, anything else is refused with one clear error."""

import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest

from jaxgen.core.errors import FileError, JaxgenWarning
from jaxgen.data import as_array, read, read_csv, read_idx, read_npy, read_npz

# ---- readers: what is right ---------------------------------------------------------------------------------------


def idx_bytes(values, code):
    head = bytes([0, 0, code, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("dtype", "code"),
    [("uint8", 0x08), ("int8", 0x09), ("int16", 0x0B), ("int32", 0x0C), ("float32", 0x0D), ("float64", 0x0E)],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_round_trip(tmp_path, dtype, code, zipped):
    values = (np.random.default_rng(0).normal(size=(3, 4, 5)) * 50).astype(dtype)
    path = tmp_path / ("x-idx3-ubyte.gz" if zipped else "x.idx")
    path.write_bytes(gzip.compress(idx_bytes(values, code)) if zipped else idx_bytes(values, code))
    for back in (read_idx(path), read(str(path))):
        assert back.dtype == np.dtype(dtype) and back.dtype.isnative and back.flags.writeable
        np.testing.assert_array_equal(back, values)


def test_idx_gzip_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "x-idx1-ubyte.gz").write_bytes(idx_bytes(np.arange(4, dtype="u1"), 8))  # browsers unzip, keep the name
    assert read(tmp_path / "x-idx1-ubyte.gz").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "values",
    [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3, ">f4"), np.zeros((0, 4)),
     np.array(["a", "bc"]), np.array([True, False])],
)  # fmt: skip
def test_npy_and_npz_round_trip(tmp_path, values):
    np.save(tmp_path / "x.npy", values)
    np.savez_compressed(tmp_path / "x.npz", a=values, b=values[None])
    np.savez(tmp_path / "y.npz", a=values)
    (tmp_path / "z.npy.gz").write_bytes(gzip.compress((tmp_path / "x.npy").read_bytes()))
    for back in (read(tmp_path / "x.npy"), read(tmp_path / "z.npy.gz"), read(tmp_path / "x.npz")["a"],
                 read_npz(tmp_path / "y.npz")["a"]):  # fmt: skip
        assert back.shape == values.shape and back.dtype.kind == values.dtype.kind and back.dtype.isnative
        np.testing.assert_array_equal(back, values)
    assert list(read_npz(tmp_path / "x.npz")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "options", "columns", "values"),
    [
        ("a,b\n1,2\n3,4\n", {}, ("a", "b"), [[1, 2], [3, 4]]),
        ("1,2\n3,4", {}, ("x0", "x1"), [[1, 2], [3, 4]]),
        ('\ufeff"a, cm","say ""b"""\r\n1e-3,-2.5\r\n\r\n', {}, ("a, cm", 'say "b"'), [[1e-3, -2.5]]),
        ("a;b\n1; 2\n", {"delimiter": ";"}, ("a", "b"), [[1, 2]]),
        ("2019,2020\n1,2\n", {"header": True}, ("2019", "2020"), [[1, 2]]),
        (",a\n0,5\n", {"index": False}, ("x0", "a"), [[0, 5]]),
        ("day,a\nMon,5\nTue,6\n", {"index": True}, ("a",), [[5], [6]]),
        (",0,1\n3,1.5,2\n", {"index": True}, ("0", "1"), [[1.5, 2]]),  # pandas without names
        ("0,1\n1,1\n", {}, ("x0", "x1"), [[0, 1], [1, 1]]),
        ("id,a\n1,2\n1,3\n", {}, ("id", "a"), [[1, 2], [1, 3]]),  # numbers no rows: twice the same
        ("a\n1\n2\n", {}, ("a",), [[1], [2]]),
        ("a,b\n1,\nNA,2\n", {"missing": True}, ("a", "b"), [[1, np.nan], [np.nan, 2]]),
        ("a,b\n1,-999\nx,2\n", {"missing_as": ["-999", "x"]}, ("a", "b"), [[1, np.nan], [np.nan, 2]]),
        ("a,b\n1.5,-999.0\n-1000,2\n", {"missing_as": ["-999", "-1e3"]}, ("a", "b"), [[1.5, np.nan], [np.nan, 2]]),
        ("a,b\n01,1\n1,2\n", {"labels": ["a"], "missing_as": ["1"]}, ("a", "b"), [[0, np.nan], [np.nan, 2]]),
        ("a;b\n1,5;2\n-,5;3\n", {"delimiter": ";", "decimal": ","}, ("a", "b"), [[1.5, 2], [-0.5, 3]]),
        ("a,b,c\nx,z,True\ny,y,false\n", {"columns": ["c", "a"]}, ("c", "a"), [[1, 0], [0, 1]]),
        ("a,b\n10,u\n9,v\n", {"labels": ["a"]}, ("a", "b"), [[1, 0], [0, 1]]),  # 9 is before 10
        ("a\n1970-01-02T12:00\n1970-02-01\n", {"dates": "features"}, ("a day", "a weekday", "a month"),
         [[0.5, 4, 0], [30, 6, 1]]),
    ],
)
def test_csv(tmp_path, content, options, columns, values):
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode())
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(content.encode()))
    for table in (read_csv(path, **options), read_csv(tmp_path / "x.csv.gz", **options)):
        assert table.columns == columns and table.values.dtype == np.float64
        np.testing.assert_array_equal(table.values, values)


def test_codes_with_leading_zeros_are_text(tmp_path):
    path = tmp_path / "x.csv"
    for zips, levels in ((["01234", "1234", "10115"], ("01234", "10115", "1234")), (["9", "10", "-3"], (-3, 9, 10))):
        path.write_text("zip\n" + "\n".join(zips))
        table = read_csv(path, labels=["zip"])
        assert table.schema.columns[0].levels == levels
        assert [str(cell) for cell in table.schema.decode(table.values)["zip"]] == zips
    path.write_text("zip\n01234\n10115\n")
    text = read_csv(path, labels=["zip"])
    np.testing.assert_array_equal(text.like({"zip": [10115, 10115]}).values, [[1], [1]])  # as its text is


def test_tsv_and_numpys_own_text(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.savetxt(tmp_path / "x.tsv", x, delimiter="\t")
    np.testing.assert_array_equal(read(tmp_path / "x.tsv").values, x)  # savetxt writes every digit
    assert as_array(read(tmp_path / "x.tsv").values).shape == (5, 3)


# ---- readers: what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "matches"),
    [
        ("", ["empty"]),
        ("\n\n", ["empty"]),
        ("a,b\n", ["no rows", "add rows"]),
        ("a,b\n1,2\n3,x\n", ["line 3, column 2 \\('b'\\)", "'x'", r"missing_as=\['x'\].*labels=\['b'\]"]),
        ("a,b\n1,\n", ["line 2, column 2", "missing", "missing=True"]),
        ("a,b\n1,inf\n", ["line 2, column 2", "finite"]),
        ("a,b\n1,1e999\n", ["line 2, column 2"]),
        ("a,b\n1,1_000\n", ["line 2, column 2"]),
        ("a,b\n1,2\n3\n", ["line 3", "2 cells", "1 cells"]),
        ("1,2\n3,4,5\n", ["line 2", "3 cells"]),
        ("a\n1\n\n2\n", ["line 3", "blank"]),
        ("1,b\n1,2\n", ["line 1 holds names and numbers", "'b' in column 2", "header=True"]),
        ("a;b\n1;2\n", ["line 2, column 1", "delimiter=';'"]),
        ('a,b\n1,"2\n', ["could not be read"]),
        ("a,b\n1,2\0\n", ["read"]),
        ("a\n" + "1" * 200_000 + "\n", ["could not be read"]),
        (b"a,b\n1,\xff\n", ["not in utf-8", "encoding='latin-1'"]),
        (b"\xff\xfea\0,\0b\0", ["not in utf-8", "encoding='utf-16'"]),
        (b"\xfe\xff\0a", ["encoding='utf-16'"]),
        (b"a\0,\0b\0", ["encoding='utf-16-le'"]),
        (b"\0a\0,\0b", ["encoding='utf-16-be'"]),
        ("day,b\n" + "".join(f"day {i},2\n" for i in range(30)), ["another in most rows", r"columns=\['b'\]"]),
        ("a,b\nMon,\n", ["line 2, column 2", "missing=True"]),
        ("a,a\n1,2\n", ["two columns are called 'a'"]),
        ("a,b\n2020-01-01,2\n", ["dates", "dates='features'"]),
        ("a;b\n1,5;2,5\n", ["line 2", r"decimal=',', delimiter=';'"]),
    ],
)
def test_csv_refuses_with_line_and_column(tmp_path, content, matches):
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileError) as caught:
        read_csv(path)
    assert "bad.csv" in str(caught.value)
    for match in matches:
        caught.match(match)


@pytest.mark.parametrize(("content", "says", "columns", "values"), [
    (",a\n0,5\n1,6\n", "column 1 .without a name. numbers the rows", ("a",), [[5], [6]]),
    ('"","a"\n"1",5\n"2",6\n', "numbers the rows", ("a",), [[5], [6]]),  # R
    (",a\n7,5\n3,6\n", "numbers the rows", ("a",), [[5], [6]]),  # some rows of a larger table
    (",Unnamed: 0,a\n0,0,5\n1,1,6\n", "column 1 .*, column 2 .Unnamed: 0. numbers", ("a",), [[5], [6]]),
    ("ID,a\n1,5\n2,6\n", "column 1 .ID.", ("a",), [[5], [6]]),
    (",0,1\n0,5,6\n", "without a name", ("0", "1"), [[5, 6]]),
    ("0,1\n1.5,2\n", "line 1, 0 to 1, is taken as names", ("0", "1"), [[1.5, 2]]),
    (",a\n0.5,5\n1,6\n", "is taken as data; index=True", ("x0", "a"), [[0.5, 5], [1, 6]]),
    ("t,a\n" + "".join(f"{i},0\n" for i in range(12)), "counts the rows but is taken as data", ("t", "a"),
     [[i, 0] for i in range(12)]),
    ("".join(f"{i + 1},0.5\n" for i in range(12)), "counts the rows", ("x0", "x1"), [[i + 1, 0.5] for i in range(12)]),
])  # fmt: skip
def test_what_is_no_data_is_left_out_and_said(tmp_path, content, says, columns, values):
    (tmp_path / "x.csv").write_text(content)
    with pytest.warns(JaxgenWarning, match=says):
        table = read(tmp_path / "x.csv")
    assert table.columns == columns
    np.testing.assert_array_equal(table.values, values)


IDX = idx_bytes(np.arange(12, dtype="u1").reshape(3, 4), 8)


def zipped(content: bytes) -> bytes:
    """Without the time of day, which would be in the names of the cases."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"\0\0\x08", "not an idx file"),
        (b"<html>no such page</html>", "download it again"),
        (b"\x93NUMPY\x01\0", "read_npy"),
        (b"\0\0\x07\x01" + bytes(8), "not an idx file"),
        (b"\0\0\x08\0", "not an idx file"),
        (b"\0\0\x08\xff" + bytes(2000), "not an idx file"),
        (b"\0\0\x08\x03\0\0", "cut short"),
        (IDX[:-1], "cut short"),
        (IDX + b"\0", "left over"),
        (b"\0\0\x0e\x04" + b"\xff" * 16, "promises more"),  # 2^131 bytes
        (zipped(IDX)[:-9], "could not be read"),
        (zipped(IDX)[:-8] + bytes(8), "CRC"),
        (zipped(IDX[:-1]), "cut short"),
        (zipped(IDX + bytes(5)), "left over"),
        (zipped(b"\0\0\x0e\x04" + b"\xff" * 16), "promises more"),
    ],
)
def test_idx_refuses(tmp_path, content, match):
    path = tmp_path / "bad-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(FileError, match=match) as caught:
        read(path)
    assert "bad-idx3-ubyte" in str(caught.value)


class Bomb:
    """Pickles to something that leaves a trace when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def npy_bytes(values, **options):
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def npy_with_header(header: str) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


def test_npy_and_npz_never_run_a_pickle(tmp_path):
    trace = tmp_path / "trace"
    hostile = np.array([Bomb(str(trace))], object)
    np.save(tmp_path / "x.npy", hostile, allow_pickle=True)
    np.savez(tmp_path / "x.npz", allow_pickle=True, a=hostile)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb(str(trace))))
    for name, match in (("x.npy", "Python objects"), ("x.npz", "Python objects"), ("raw.npy", "magic")):
        with pytest.raises(FileError, match=match) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        npy_bytes(np.arange(8))[:-1],
        npy_bytes(np.arange(8)) + npy_bytes(np.arange(8)),
        npy_bytes(np.arange(8))[:20],
        npy_bytes(np.zeros(2, [("a", "f4"), ("b", "i4")])),
        b"\x93NUMPY\x09\0" + bytes(80),
        npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"),
        npy_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-8,), }\n"),
        npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"),
        npy_with_header("{'descr': '<U0', 'fortran_order': False, 'shape': (9999999999999,), }\n"),
        npy_with_header("__import__('os').getcwd()\n"),
        npy_with_header("(" * 5000),
    ],
    ids=range(13),
)
def test_npy_refuses(tmp_path, content):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"bad\.npy"):
        read_npy(path)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(FileError, match=r"bad\.npz.*a"):
        read_npz(tmp_path / "bad.npz")


def test_npz_refuses_foreign_and_damaged_zips(tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, a=np.arange(1000))
    content = bytearray(good.read_bytes())
    flipped = content.copy()
    flipped[500] ^= 1  # one bit of one number: the checksum sees it
    for damaged in (b"", b"PK\x03\x04 no", content[: len(content) // 2], flipped):
        bad.write_bytes(damaged)
        with pytest.raises(FileError, match="bad"):
            read_npz(bad)
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match=r"readme\.txt"):
        read_npz(bad)
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy_bytes(np.arange(3)))
    with pytest.raises(FileError, match="stored or deflated"):
        read_npz(bad)


@pytest.mark.parametrize("reader", [read_idx, read_npy, read_npz, read_csv])
def test_any_damage_is_refused_or_harmless(tmp_path, reader):
    rng = np.random.default_rng(5)
    values = rng.normal(size=(6, 4))
    path = tmp_path / "x"
    if reader is read_npz:
        with open(path, "wb") as file:
            np.savez_compressed(file, a=values)
    else:
        csv = "a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in values)
        contents = {read_idx: idx_bytes(values, 0x0E), read_npy: npy_bytes(values), read_csv: csv.encode()}
        path.write_bytes(contents[reader])
    whole = path.read_bytes()
    for trial in range(300):
        damaged = bytearray(gzip.compress(whole) if trial % 5 == 0 and reader is not read_npz else whole)
        for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(damaged))] if trial % 3 == 0 else damaged)
        try:
            reader(path)  # a changed number in an intact frame is all that may pass
        except FileError as error:
            assert "expected:" in str(error)


def test_paths_that_are_no_files(tmp_path):
    np.save(tmp_path / "train.npy", np.arange(3))
    with pytest.raises(FileError, match=r"no such file(.|\n)*did you mean 'train\.npy'"):
        read(tmp_path / "trian.npy")
    with pytest.raises(FileError, match="working directory"):
        read_idx(tmp_path / "nowhere" / "x.idx")
    with pytest.raises(FileError, match="a folder"):
        read_npz(tmp_path)
    (tmp_path / "x.dat").write_bytes(b"1 2 3")
    with pytest.raises(FileError, match=r"(?s)x\.dat.*read_csv\(path"):
        read(tmp_path / "x.dat")
