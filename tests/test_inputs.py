"""Inputs: what may pass as data, and a clear error for everything else."""

import re
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxgen.core.errors import DataError, JaxgenError, JaxgenWarning, ShapeError
from jaxgen.core.inputs import Batch, as_array, as_batch, concrete

nan, inf = float("nan"), float("inf")
frame = pd.DataFrame


def refused(kind, function, *says):
    """The call raises `kind`, and the text names what was called, expected, got, and says the given things."""
    with pytest.raises(kind) as caught:
        function()
    text = str(caught.value)
    assert isinstance(caught.value, JaxgenError)
    assert isinstance(caught.value, ValueError)
    for row in ("called", "expected", "got"):
        assert re.search(rf"^  {row}: +\S", text, re.M), text
    for part in says:
        assert part in text, text
    return text


GOOD = {
    "list": ([[1, 2], [3, 4]], (2, 2)),
    "tuple": (((1.0, 2.0),), (1, 2)),
    "number": (3, ()),
    "bools": ([True, False], (2,)),
    "list of arrays": ([np.ones(2), np.zeros(2)], (2, 2)),
    "list of jax arrays": ([jnp.ones(2), jnp.zeros(2)], (2, 2)),
    "numpy": (np.ones((2, 3), np.float32), (2, 3)),
    "jax": (jnp.ones((2, 3), jnp.float32), (2, 3)),
    "uint8": (np.zeros((2, 28, 28), np.uint8), (2, 28, 28)),
    "not contiguous": (np.ones((4, 6))[::2, ::-1], (2, 6)),
    "series": (pd.Series([1, 2, 3]), (3,)),
    "index": (pd.Index([1, 2]), (2,)),
    "frame": (frame({"a": [1.0, 2.0], "b": [3, 4]}), (2, 2)),
    "frame with bools": (frame({"a": [1.0, 2.0], "b": [True, False]}), (2, 2)),
    "nullable integers": (frame({"a": pd.array([1, 2], dtype="Int64"), "b": [1.0, 2.0]}), (2, 2)),
    "masked, nothing hidden": (np.ma.array([1.0, 2.0], mask=[False, False]), (2,)),
}


@pytest.mark.parametrize("name", GOOD)
def test_numbers_pass(name):
    data, shape = GOOD[name]
    array = as_array(data)
    assert array.shape == shape
    assert type(array) in (np.ndarray, type(jnp.ones(1)))
    assert jnp.asarray(array).shape == shape  # JAX takes it
    if isinstance(data, (np.ndarray, jax.Array)) and not isinstance(data, np.ma.MaskedArray):
        assert array is data, "nothing is copied without need"


def test_values_survive():
    np.testing.assert_array_equal(as_array(GOOD["frame with bools"][0]), [[1.0, 1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(as_array(np.array([1.5, 2.5], ">f8")), [1.5, 2.5])
    assert as_array(np.array([1, 2], ">i4")).dtype == np.int32  # JAX knows one byte order
    assert as_array(pd.Series([1, 2], dtype="category").astype(int)).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, jnp.float8_e4m3fn])
def test_floats_of_few_bits_are_widened(dtype):
    for data in (np.ones(2, dtype), jnp.ones(2, dtype), [jnp.ones((), dtype)] * 2, pd.Series(np.ones(2, np.float16))):
        array = as_array(data)
        assert array.dtype == np.float32 and array.tolist() == [1.0, 1.0]
    assert jax.jit(as_array)(jnp.ones(2, dtype)).dtype == np.float32
    batch = as_batch({"x": X, "context": np.ones(3, dtype), "weight": np.ones(3, dtype), "label": np.ones(3, dtype)})
    assert [a.dtype.name for a in batch[1:]] == ["float32", "float32", "int32"]


def test_traced_values_pass_unseen():
    assert jax.jit(as_array)(jnp.array([nan])).shape == (1,)
    assert jax.jit(lambda a: as_array([a, a]))(1.0).shape == (2,)
    assert jax.vmap(lambda a: as_array(a))(jnp.ones((3, 2))).shape == (3, 2)


BAD = {
    "none": (None, "NoneType"),
    "text": ("hello", "<U5"),
    "bytes": (b"hello", "S5"),
    "list of text": ([["a"], ["b"]], "<U1"),
    "text among numbers": ([1.0, "a"], "<U"),
    "none among numbers": ([1.0, None], "NoneType"),
    "objects": ([object()], "object"),
    "an array of objects": (np.array([1, None], object), "dtype object"),
    "decimals": ([Decimal(1)], "Decimal"),
    "a dict": ({"a": 1}, "dict"),
    "a set": ({1, 2}, "set"),
    "a generator": ((i for i in range(3)), "generator"),
    "a class": (int, "type"),
    "ragged": ([[1, 2], [3]], "ragged"),
    "ragged deeper": ([[1, 2], 3], "ragged"),
    "complex": ([1j], "complex128", "np.real"),
    "complex in jax": (jnp.ones(2, jnp.complex64), "complex64"),
    "structured": (np.zeros(2, [("a", "f4")]), "dtype"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), "datetime64[D]", "np.timedelta64(1, 's')"),
    "durations": (np.array([1], "m8[s]"), "timedelta64[s]", "np.timedelta64(1, 's')"),
    "a key": (jax.random.key(0), "PRNG key", "key first, model second, data third"),
    "keys": (jax.random.split(jax.random.key(0)), "PRNG key"),
    "a list of keys": ([jax.random.key(0)], "PRNGKey"),
    "empty list": ([], "empty"),
    "no rows": (np.zeros((0, 3)), "shape (0, 3)"),
    "no columns": (jnp.zeros((3, 0)), "shape (3, 0)"),
    "empty frame": (frame(), "shape (0, 0)"),
    "masked": (np.ma.array([1.0, 2.0], mask=[False, True]), "1 of 2 values masked", "~np.ma.getmaskarray(data)"),
    "text column": (frame({"a": [1.0], "b": ["x"], "c": ["y"]}), "'b'", "'c'", "select_dtypes"),
    "object column": (frame({"a": [1.0], "b": [[1]]}), "{'b': 'object'}"),
    "date column": (frame({"a": [1.0], "b": pd.to_datetime(["2020"])}), "{'b': 'datetime64"),
    "category column": (frame({"a": [1.0], "b": pd.Categorical(["u"])}), "{'b': 'category'}"),
    "text series": (pd.Series(["a", "b"]), "np.unique"),
    "mixed series": (pd.Series([1, "a"]), "object"),
    "series with time zone": (pd.Series(pd.to_datetime(["2020"]).tz_localize("UTC")), "UTC"),
    "missing in integers": (frame({"a": pd.array([1, None], dtype="Int64"), "b": [1.0, 2.0]}), "NaN", "row 1 of"),
    "nan": ([[1.0, 2.0], [nan, 4.0]], "1 of 4 values NaN", "index (1, 0)", ".all(axis=1)"),
    "inf": ([1.0, -inf, inf], "2 of 3 values infinite", "index (1,)"),
    "nan in jax": (jnp.array([nan, nan]), "2 of 2 values NaN"),
    "nan in bfloat16": (jnp.array([nan], jnp.bfloat16), "NaN"),
    "beyond float32": ([1.0, 1e39], "too large for float32", "index (1,)", "/ np.abs"),
    "beyond int32": ([2**31], "overflows int32", "jax_enable_x64"),
    "below int32": ([-(2**31) - 1], "overflows int32"),
    "beyond uint32": (np.array([2**32], np.uint64), "overflows uint32"),
    "beyond int64": ([2**70], "int"),
}


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused(name):
    data, *says = BAD[name]
    refused(DataError, lambda: as_array(data), "as_array(data)", *says)


@pytest.mark.parametrize("name", [n for n in BAD if n not in ("objects", "beyond int64")])
def test_every_refusal_says_what_to_do(name):
    text = refused(DataError, lambda: as_array(BAD[name][0], name="my table"), "my table")
    # an empty table has no remedy
    assert ("fix:" in text) != ("is empty" in text), text


def test_wide_numbers_pass_in_64_bits():
    with jax.enable_x64(True):
        assert as_array([1e300]).dtype == np.float64
        assert as_array([2**40]).dtype == np.int64
        refused(DataError, lambda: as_array([1.0, inf]), "infinite")


def test_the_edges_of_32_bits_pass():
    as_array([2**31 - 1, -(2**31)])
    as_array(np.array([2**32 - 1], np.uint64))
    as_array([3.4e38, -3.4e38])


def test_columns_that_lose_their_digits_are_warned_of():
    when, small = 1.7e9 + 10.0 * np.arange(1000), np.random.default_rng(0).normal(size=1000)
    table = np.stack([when, small], axis=1)
    for data in (table, table.astype(np.int64), when.astype(np.int32), {"x": small, "context": when[:, None]}):
        with pytest.warns(JaxgenWarning, match=r"loses 0.4 % of its own spread"):
            as_batch(data)
    for data in (
        table - np.median(table, axis=0),  # the fix
        np.where(np.arange(2000).reshape(1000, 2) == 7, 1e12, small[:, None]),  # one far value is not the column
        np.full((9, 1), 0.1), table.astype(np.float32), when[:1, None], np.arange(2**24)[-9:],
    ):  # fmt: skip
        as_batch(data)
    with jax.enable_x64(True):
        as_batch(table)


def test_nan_may_be_allowed_but_infinity_never():
    assert as_array([1.0, nan], allow_nan=True).shape == (2,)
    refused(DataError, lambda: as_array([nan, inf], allow_nan=True), "1 of 2 values infinite", "(1,)")


def test_concrete():
    assert concrete(1.0, np.ones(2), {"a": [jnp.ones(1)]})
    seen = []
    jax.jit(lambda a: seen.append(concrete(1, [a])) or a)(1.0)
    assert seen == [False]


X = [[1.0], [2.0], [3.0]]


def test_batches():
    assert as_batch(X)[1:] == (None, None, None)
    parts = {"weight": [1, 1, 0], "x": X, "context": [0, 1, 2]}
    for data in ((X, [0, 1, 2], [1, 1, 0]), parts, Batch(**parts)):
        batch = as_batch(data)
        assert batch.events == 3
        assert batch.x.shape == (3, 1)
        assert batch.context.shape == (3,)
        np.testing.assert_array_equal(batch.weight, np.float32([1, 1, 0]))
    assert as_batch((X, None, [1, 2, 3])).context is None
    assert as_batch({"x": frame({"a": [1.0]}), "weight": pd.Series([1])}).weight.dtype == np.float32


def test_unknown_labels_are_minus_one():
    for label in ([0, -1, 2], [0.0, nan, 2.0], np.array([0, -1, 2])):
        np.testing.assert_array_equal(as_batch({"x": X, "label": label}).label, np.int32([0, -1, 2]))


def test_a_batch_is_an_honest_tuple():
    batch = as_batch((X, [0, 1, 2]))
    x, context, weight, label = batch
    assert len(batch) == 4
    assert weight is None and label is None
    assert batch._replace(weight=1).weight == 1
    assert jax.tree.map(lambda a: a, batch).events == 3


@pytest.mark.parametrize(("weight", "dtype"), [([1, 2, 3], np.float32), ([True, False, True], np.float32),
                                               (np.ones(3, np.float16), np.float32)])  # fmt: skip
def test_weights_are_floats(weight, dtype):
    assert as_batch((X, None, weight)).weight.dtype == dtype
    traced = jax.jit(lambda w: as_batch((X, None, w)).weight)(jnp.asarray(weight))
    assert traced.dtype == dtype


BAD_BATCHES = {
    "one number": (3.0, ShapeError, "one number"),
    "no x": ({"weight": [1.0]}, DataError, "no x"),
    "x is none": ({"x": None}, DataError, "no x"),
    "empty dict": ({}, DataError, "no x", "dict(x=x, context=context, weight=weight, label=label)"),
    "empty tuple": ((), DataError, "no x"),
    "unknown name": ({"x": X, "y": X, "z": X}, DataError, "y, z"),
    "five parts": ((X, X, [1, 1, 1], [0, 0, 1], X), DataError, "fifth"),
    "label is a fraction": ({"x": X, "label": [0.5, 1, 1]}, DataError, "whole numbers", "0.5"),
    "label is too low": ({"x": X, "label": [-2, 1, 1]}, DataError, "-1 where not known", "-2"),
    "label is short": ({"x": X, "label": [1]}, ShapeError, "'label'"),
    "context is short": ((X, [[0.0]]), ShapeError, "'context'", "[3, ...]", "shape [1, 1]"),
    "context is a number": ((X, 1.0), ShapeError, "'context'"),
    "context is text": ((X, ["a", "b", "c"]), DataError, "data[1]"),
    "weight is short": ((X, None, [1.0]), ShapeError, "'weight'"),
    "weight is negative": ((X, None, [1.0, -1.0, 1.0]), DataError, "non-negative", "range [-1.0, 1.0]"),
    "weight is nan": ((X, None, [1.0, nan, 1.0]), DataError, "data[2]", "NaN"),
    "weight is all zero": ((X, None, [0, 0, 0]), DataError, "not all zero"),
    "weight has two axes": ((X, None, [[1.0], [1.0], [1.0]]), DataError, "[N]", "shape [3, 1]"),
    "a key": (jax.random.key(0), DataError, "PRNG key"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_batches_that_are_none(name):
    data, kind, *says = BAD_BATCHES[name]
    refused(kind, lambda: as_batch(data), *says)
