"""Model files: exact round trips, and refusals of everything that `save` did not write."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxgen as jg
from jaxgen.core import algebra, files
from jaxgen.core.errors import FileError
from jaxgen.core.pytree import fixed, model, static


@model
class Bag:
    """Anything at all in its fields."""

    content: object
    rest: object = fixed(default=None)
    option: object = static(default=None)


def diagonal(d=2):
    return jg.DiagonalGaussian.from_values(np.arange(d, dtype=np.float32), np.ones(d, np.float32))


def mixture():
    leaf = jg.Gaussian.from_values(np.zeros((3, 2), np.float32), np.stack([np.eye(2, dtype=np.float32)] * 3))
    return jg.Mixture.from_components(leaf)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.result_type(x) == jnp.result_type(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes() or np.array_equal(x, y)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.jaxgen"


MODELS = {
    "gaussian": diagonal,
    "mixture": mixture,
    "mixture of mixtures": lambda: jg.Mixture.from_components([mixture(), mixture()]),
    "no arrays": lambda: jg.StandardNormal((2, 3)),
    "a batch of models": lambda: mixture().components,
    "a batch of mixtures": lambda: algebra.stack([mixture()] * 4),
    "a batch of batches": lambda: algebra.stack([algebra.stack([mixture()] * 4)] * 2),
    "containers": lambda: Bag((jnp.ones(1), [jnp.ones(2), None], {"b": {}, "a": (diagonal(),)}), {"x": jnp.arange(3)}),
    "one-tuples": lambda: Bag((jnp.ones(1),), ((),)),
    "plain numbers": lambda: Bag([1, 2.5, True, np.float64(3.5), np.int64(4), np.ones(2)]),
    "no numbers": lambda: Bag(jnp.zeros((0, 3))),
    "special values": lambda: Bag(jnp.array([jnp.inf, -jnp.inf, -0.0, 1e-45])),
    "statics": lambda: Bag(1.0, option=(1, "é\n\x00", 2.5, None, True, (), ("nested", (float("inf"),)))),
    "functions": lambda: Bag(1.0, option=(jnp.tanh, jax.nn.relu, jax.nn.gelu, jnp.float32)),
    "dotted names": lambda: Bag({"a.b": jnp.ones(1), "": jnp.zeros(2), "ключ": jnp.ones(3)}),
}


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, path):
    before = MODELS[name]()
    jg.save(before, path)
    same(jg.load(path), before)
    same(jg.load(str(path), like=before), before)
    same(jg.load(path, like=jax.eval_shape(lambda: before)), before)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool"]
)
@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
def test_every_dtype_and_shape(dtype, shape, path):
    before = Bag((jnp.ones(shape, dtype) * 3).astype(dtype))
    jg.save(before, path)
    same(jg.load(path), before)


def test_64_bits(path):
    with jax.enable_x64(True):
        before = Bag([jnp.full(2, 1 / 3), jnp.array(2**40), jnp.float32(1.0)])
        assert before.content[0].dtype == jnp.float64
        jg.save(before, path)
        same(jg.load(path), before)
    refused(lambda: jg.load(path), "64 bits", "jax_enable_x64")


def test_scores_are_the_same_after_loading(path):
    jg.save(mixture(), path)
    np.testing.assert_array_equal(jg.load(path).log_prob(np.ones((5, 2))), mixture().log_prob(np.ones((5, 2))))


def refused(function, *says):
    with pytest.raises(FileError) as caught:
        function()
    text = str(caught.value)
    assert "called:" in text
    for part in says:
        assert part in text, text
    return text


def test_what_cannot_be_saved(path):
    key = jax.random.key(0)
    for content in ("text", 1j, key, [key], {1: jnp.ones(1)}, object(), algebra.count, jnp.ones(2, jnp.int4),
                    np.ones(2, ">f4"), np.array(["a"]), np.ones(2, np.complex64)):  # fmt: skip
        with pytest.raises(FileError, match="cannot be saved"):
            jg.save(Bag(content), path)
    for option in (np.int64(3), [1], {"a": 1}, frozenset(), object(), b"bytes"):
        with pytest.raises(FileError, match="static field .option cannot be saved"):
            jg.save(Bag(1.0, option=option), path)
    with pytest.raises(FileError, match="two leaves are called"):
        jg.save(Bag({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}), path)
    for other in (3, None, jnp.ones(2), {"a": diagonal()}, jg.Gaussian):
        with pytest.raises(FileError, match="only models are saved"):
            jg.save(other, path)
    assert not path.exists()


def test_own_functions_need_like(path):
    jg.save(Bag(1.0, option=refused), path)
    refused(lambda: jg.load(path), "not registered", "load it with a model to be like")
    assert jg.load(path, like=Bag(2.0, option=refused)).option is refused
    refused(lambda: jg.load(path, like=Bag(2.0, option=same)), "another model than `like`")


def test_like_must_fit(path):
    jg.save(diagonal(), path)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), diagonal())
    for like in (diagonal(3), mixture(), 3, {"a": 1}, Bag(1.0), half):
        refused(lambda like=like: jg.load(path, like=like), "another model than `like`")


def test_paths_that_hold_no_model(tmp_path):
    refused(lambda: jg.load(tmp_path), "a folder")
    refused(lambda: jg.load(tmp_path / "missing"), "nothing there")
    refused(lambda: jg.load(tmp_path / "no" / "folder"), "nothing there")
    refused(lambda: jg.save(diagonal(), tmp_path / "no" / "model"), "makedirs")
    refused(lambda: jg.save(diagonal(), tmp_path), "directory")
    (tmp_path / "file").write_text("")
    refused(lambda: jg.save(diagonal(), tmp_path / "file" / "model"), "folder")
    assert sorted(os.listdir(tmp_path)) == ["file"]


HUGE = b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'
FOREIGN = {
    "empty": b"",
    "text": b"hello, this is no model at all",
    "zeros": bytes(1000),
    "a huge header": (2**62).to_bytes(8, "little") + b"{}",
    "a header past the end": (1000).to_bytes(8, "little") + b"{}",
    "no metadata": safetensors.numpy.save({"a": np.ones(2)}),
    "another format": safetensors.numpy.save({"a": np.ones(2)}, {"format": "pt"}),
    "no description": safetensors.numpy.save({"a": np.ones(2)}, {"format": files.FORMAT}),
    "no checksum": safetensors.numpy.save({}, {"format": files.FORMAT, "description": "{}"}),
    "pickle": b"\x80\x04\x95\x12\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "a huge array": len(HUGE).to_bytes(8, "little") + HUGE + bytes(8),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(name, path):
    path.write_bytes(FOREIGN[name])
    refused(lambda: jg.load(path))
    refused(lambda: jg.load(path, like=diagonal()))


def test_truncated_anywhere(path):
    jg.save(mixture(), path)
    whole = path.read_bytes()
    for cut in sorted({*np.linspace(0, len(whole) - 1, 50).astype(int), 7, 8, 9, len(whole) - 4}):
        path.write_bytes(whole[:cut])
        refused(lambda: jg.load(path))
    path.write_bytes(whole + b"\0")
    refused(lambda: jg.load(path))
    path.write_bytes(whole)
    jg.load(path)


def test_no_flipped_bit_goes_unseen(path):
    before = diagonal()
    jg.save(before, path)
    whole = path.read_bytes()
    draw = random.Random(0)
    unseen = 0
    for place in [*range(0, 80), *draw.sample(range(len(whole)), 200), *range(len(whole) - 24, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            same(jg.load(path), before)  # a space of the header's padding may change
            unseen += 1
        except FileError:
            pass
    assert unseen < 20


def described(change, of=diagonal, arrays=()):
    """A file whose description was changed, with a checksum that fits: hostile rather than damaged."""

    def write(path):
        leaves = {}
        description = files._encode(of(), "", leaves)
        description = change(description) or description
        files.write_arrays(path, {**{k: np.asarray(v) for k, v in leaves.items()}, **dict(arrays)}, description)

    return write


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(description):
        node = description
        for key in keys:
            node = node[key]
        node[last] = value

    return change


def drop(*keys):
    def change(description):
        node = description
        for key in keys[:-1]:
            node = node[key]
        del node[keys[-1]]

    return change


def nested(depth, leaf):
    for _ in range(depth):
        leaf = {"tuple": [leaf]}
    return leaf


NORMAL = lambda: jg.StandardNormal((2,))  # noqa: E731
BAG = lambda: Bag(jnp.ones(2), option=1)  # noqa: E731
ARRAY = {"array": "offset", "shape": [2], "dtype": "float32"}
HOSTILE = {
    "an unknown class": described(put("model", "jaxgen:Nothing")),
    "a class of os": described(put("model", "os:system")),
    "a builtin": described(put("model", "builtins:eval")),
    "a module to import": described(put("model", "evil_module:Model")),
    "a module inside the package": described(put("model", "jaxgen.evil_module:Model")),
    "a module above the package": described(put("model", "jaxgen...evil_module:Model")),
    "a class that is no name": described(put("model", 3)),
    "a class that is a list": described(put("model", ["jaxgen:DiagonalGaussian"])),
    "another class": described(put("model", "jaxgen:Mixture")),
    "no class": described(drop("model")),
    "no fields": described(drop("fields")),
    "a field less": described(drop("fields", "offset")),
    "a field more": described(put("fields", "extra", {"none": True})),
    "a static that is a field": described(put("static", "offset", 1)),
    "fields that are a list": described(put("fields", [])),
    "an array that is not there": described(put("fields", "offset", {**ARRAY, "array": "nowhere"})),
    "an array twice": described(put("fields", "offset", {"array": "log_scale", "shape": [2], "dtype": "float32"})),
    "another shape": described(put("fields", "offset", {**ARRAY, "shape": [3]})),
    "another dtype": described(put("fields", "offset", {**ARRAY, "dtype": "int32"})),
    "a huge shape": described(put("fields", "offset", {**ARRAY, "shape": [2**62]})),
    "a negative shape": described(put("fields", "offset", {**ARRAY, "shape": [-1]})),
    "surplus arrays": described(lambda d: None, arrays={"surplus": np.ones(2)}),
    "none for an array": described(put("fields", "offset", {"none": True})),
    "a model for an array": described(put("fields", "offset", files._encode(NORMAL(), "", {}))),
    "text for an array": described(put("fields", "offset", "text")),
    "null for an array": described(put("fields", "offset", None)),
    "nested too deep": described(put("fields", "content", nested(100, {"none": True})), of=BAG),
    "nested beyond json": described(put("fields", "content", nested(400, {"none": True})), of=BAG),
    "a list": described(lambda d: [d]),
    "a number": described(lambda d: 3),
    "no model": described(lambda d: {"tuple": [d]}),
    "an array alone": described(lambda d: d["fields"]["content"], of=BAG),
    "a null": described(lambda d: {"none": True}, of=NORMAL),
    "shapes that do not fit": lambda path: files.write_arrays(
        path, *_misfit({"offset": np.ones(2, np.float32), "log_scale": np.ones(3, np.float32)})
    ),
    "shapes that broadcast": lambda path: files.write_arrays(
        path, *_misfit({"offset": np.ones(1, np.float32), "log_scale": np.ones(3, np.float32)})
    ),
    "the function system": described(put("static", "option", {"function": "os:system"}), of=BAG),
    "the function eval": described(put("static", "option", {"function": "builtins:eval"}), of=BAG),
    "a function of a module": described(put("static", "option", {"function": "evil_module:function"}), of=BAG),
    "a hidden function": described(put("static", "option", {"function": "jax.numpy:__import__"}), of=BAG),
    "a dotted function": described(put("static", "option", {"function": "jax.numpy:np.load"}), of=BAG),
    "a module as function": described(put("static", "option", {"function": "jax.numpy:linalg"}), of=BAG),
    "jax.config": described(put("static", "option", {"function": "jax:config"}), of=BAG),
    "an own helper": described(put("static", "option", {"function": "jaxgen.core.files:save"}), of=BAG),
    "a linear algebra": described(put("static", "option", {"function": "jax.numpy.linalg:inv"}), of=BAG),
    "an object": described(put("static", "option", {"object": "subprocess:Popen", "fields": {"args": "true"}}), of=BAG),
    "an own object": described(put("static", "option", {"object": "jaxgen.fit.em:EM", "fields": {}}), of=BAG),
    "a bare dict": described(put("static", "option", {}), of=BAG),
    "a bare list": described(put("static", "option", [1, 2]), of=BAG),
    "a static nested too deep": described(put("static", "option", nested(100, 1)), of=BAG),
    "a shape of text": described(put("static", "event_shape", "ab"), of=NORMAL),
    "a shape of floats": described(put("static", "event_shape", {"tuple": [2.5]}), of=NORMAL),
    "a negative event": described(put("static", "event_shape", {"tuple": [-1]}), of=NORMAL),
    "a shape of none": described(put("static", "event_shape", None), of=NORMAL),
    "a shape of functions": described(put("static", "event_shape", {"function": "jax.nn:relu"}), of=NORMAL),
}


def _misfit(arrays):
    leaves = {}
    description = files._encode(diagonal(), "", leaves)
    for name, array in arrays.items():
        description["fields"][name]["shape"] = list(array.shape)
    return {**{k: np.asarray(v) for k, v in leaves.items()}, **arrays}, description


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, path, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('a file was executed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("a command was run"))
    HOSTILE[name](path)
    before = set(sys.modules)
    refused(lambda: jg.load(path), "refused" if name not in ("nested beyond json",) else "")
    for like in (diagonal(), NORMAL(), BAG()):
        with pytest.raises(FileError):
            jg.load(path, like=like)
    new = {m for m in set(sys.modules) - before if not m.startswith(("jaxgen.models", "jaxgen.nn"))}
    assert not {m for m in new if "evil" in m or m.startswith("jaxgen")}, new


def test_a_huge_event_is_not_allocated(path):
    described(put("static", "event_shape", {"tuple": [10**12]}), of=NORMAL)(path)
    assert jg.load(path).event_shape == (10**12,)


def test_surplus_arrays_are_refused_with_like_too(path):
    HOSTILE["surplus arrays"](path)
    refused(lambda: jg.load(path, like=diagonal()), "surplus")


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    jg.save(diagonal(), path)
    old = path.read_bytes()
    for broken, kind in ((OSError("disk full"), FileError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _, error=broken: (_ for _ in ()).throw(error))
            with pytest.raises(kind):
                jg.save(mixture(), path)
        assert path.read_bytes() == old
        assert os.listdir(path.parent) == [path.name], "and no rest of the new one"


def test_saved_files_have_ordinary_permissions(path):
    mask = os.umask(0)
    os.umask(mask)
    jg.save(diagonal(), path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_no_pickle_and_a_readable_description(path):
    jg.save(mixture(), path)
    with safetensors.safe_open(str(path), framework="numpy") as file:
        description = json.loads(file.metadata()["description"])
    assert description["model"] == "jaxgen:Mixture"
    assert description["fields"]["components"]["model"] == "jaxgen:Gaussian"


SAVER = """
    import sys, numpy as np
    from jaxgen.core.files import write_arrays
    arrays = [{"a": np.full(200_000, value, np.float32)} for value in (0, 1)]
    write_arrays(sys.argv[1], arrays[0], {})
    print("ready", flush=True)
    while True:
        for array in arrays:
            write_arrays(sys.argv[1], array, {})
"""


def test_a_kill_during_save_leaves_a_whole_file(path):
    draw = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVER), str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0.0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        arrays, _ = files.read_arrays(path)
        assert len(np.unique(arrays["a"])) == 1
