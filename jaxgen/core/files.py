"""One file per model, without pickle: arrays in safetensors, and a description that is checked on load.

The description names classes, fields, shapes and static values. Loading builds only classes that `@model` or
`loadable` registered, resolves only public functions of `jax.nn`, `jax.numpy` and this package's networks, and
compares every array with what the description says of it: a hostile file can at worst be refused. A checksum over all
of it finds a flipped bit.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import FileError, JaxgenError
from jaxgen.core.protocols import Conditional, Implicit, has
from jaxgen.core.pytree import NAMESPACES, REGISTRY, dtype_of, is_model, is_named_tuple, model_fields, public_name

FORMAT = "jaxgen-2"
#: functions that a file may name: activations and dtypes. All of `jax.nn` are; of `jax.numpy`, which has functions that
#: write files, few
_FUNCTION_MODULES: dict[str, frozenset[str] | None] = {
    "jax.nn": None,
    "jax.numpy": frozenset(
        {"tanh", "sin", "cos", "exp", "abs", "square", "arctan", "arcsinh", "log1p"}
        | {"bfloat16", "float16", "float32", "float64"}
    ),
}
_LOADABLE: dict[str, type] = {}
_FUNCTIONS: dict[str, Callable[..., Any]] = {}
_MAX_DEPTH = 64


def loadable(value: Any) -> Any:
    """Registers a static class (a hashable dataclass, such as a linen module) or function that a file may name.

    Example:
        >>> @loadable
        ... @dataclasses.dataclass(frozen=True)
        ... class Options:
        ...     width: int = 8
    """
    if isinstance(value, type):
        _LOADABLE[public_name(value)] = value
    else:
        _FUNCTIONS[public_name(value)] = value
    return value


def checksum(arrays: dict[str, np.ndarray], text: str = "") -> str:
    """A checksum over names, dtypes, shapes and bytes of arrays, and over a text.

    Example:
        >>> checksum({"a": np.zeros(3)}) == checksum({"a": np.zeros(3)}), checksum({"a": np.zeros(3)}) == checksum({})
        (True, False)
    """
    total = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total = zlib.crc32(f"{name} {array.dtype} {np.shape(arrays[name])}".encode(), total)
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return f"{total:08x}"


def write_arrays(path: str | os.PathLike[str], arrays: dict[str, Any], description: dict[str, Any]) -> None:
    """Writes arrays and a JSON description to one file, whole or not at all (a rename ends the writing)."""
    from safetensors.numpy import save

    path = Path(path)
    called = f"save({str(path)!r})"
    host = {name: np.ascontiguousarray(np.asarray(a)).reshape(np.shape(a)) for name, a in arrays.items()}
    text = json.dumps(description)
    payload = save(host, metadata={"format": FORMAT, "description": text, "checksum": checksum(host, text)})
    if not path.parent.is_dir():
        raise FileError(
            "the folder to save into is not there", called=called, expected="an existing folder",
            got=str(path.parent), fix=f"os.makedirs({str(path.parent)!r})",
        )  # fmt: skip
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(
            "the file cannot be written", called=called, expected="a writable path", got=str(error)
        ) from None  # fmt: skip
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description of a file of `write_arrays`.

    Raises:
        FileError: missing, cut short, damaged, or not such a file.
    """
    from safetensors import safe_open

    called = f"load({str(path)!r})"
    if not os.path.isfile(path):
        got = "a folder" if os.path.isdir(path) else "nothing there"
        raise FileError("no file to load", called=called, expected="a file that jaxgen.save wrote", got=got)
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise FileError(
                    "not a jaxgen file", called=called, expected=f"format {FORMAT}",
                    got=f"format {metadata.get('format')!r}", fix="jaxgen.save(model, path) writes one",
                )  # fmt: skip
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checksum(arrays, metadata["description"]) != metadata["checksum"]:
            raise ValueError("the checksum does not match the contents")
        return arrays, json.loads(metadata["description"])
    except JaxgenError:
        raise
    except Exception as error:  # whatever bytes provoke is a refusal
        raise FileError(
            "the file is damaged or foreign", called=called, expected="a file that jaxgen.save wrote",
            got=f"{type(error).__name__}: {str(error)[:200]}", fix="save it again, or take an older copy",
        ) from None  # fmt: skip


def save(model: Any, path: str | os.PathLike[str], *, schema: Any = None) -> None:
    """Saves a model to one file.

    Args:
        model: any `@model` instance, whatever it is made of.
        path: where; an existing file is replaced in one move.
        schema: the columns of the table that its events are rows of, to be kept beside it, for models that do not keep
            it themselves as a `Product` does; `load_schema` reads it.

    Raises:
        FileError: the folder is missing, or a static field cannot be described (use `load(path, like=model)` for
            networks of your own: their static parts are then compared by name only).

    Example:
        >>> import tempfile, os, jaxgen as jg
        >>> path = os.path.join(tempfile.mkdtemp(), "model.jaxgen")
        >>> jg.save(jg.StandardNormal((2,)), path)
        >>> jg.load(path)
        StandardNormal(event_shape=(2,))
    """
    if not is_model(model):
        raise FileError(
            "only models are saved", called="save(model, path)", expected="an @model instance",
            got=type(model).__name__, fix="jaxgen.save(fitted.model, path) saves the model of a fit",
        )  # fmt: skip
    arrays, description = taken_apart(model)
    if schema is not None:
        description["schema"] = _encode_static(schema, "schema")
    write_arrays(path, arrays, description)


def taken_apart(model: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a model as arrays by name, and a description that JSON can hold; `put_together` is the way back.

    Example:
        >>> import jaxgen as jg
        >>> arrays, description = taken_apart(jg.Poisson.from_values([2.0]))
        >>> list(arrays), put_together(arrays, description).rate.round(4).tolist()
        (['log_rate'], [2.0])
    """
    arrays: dict[str, Any] = {}
    description = _encode(model, "", arrays)
    # a plain number is kept in the precision in which it is computed with
    return {name: np.asarray(value, dtype=jnp.result_type(value)) for name, value in arrays.items()}, description


def put_together(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> Any:
    """Return the model that `taken_apart` took apart.

    Raises:
        FileError: arrays and description that do not belong together.
    """
    arrays = dict(arrays)
    loaded = _decode(description, arrays, 0)
    if arrays:
        raise FileError("the file has arrays that its description does not name", got=", ".join(sorted(arrays)[:5]))
    if not is_model(loaded):
        raise FileError("the file describes no model", got=type(loaded).__name__)
    return loaded


def load(path: str | os.PathLike[str], *, like: Any = None) -> Any:
    """Loads a model that `save` wrote.

    Args:
        path: the file.
        like: a model of the same structure, or its `jax.eval_shape`. Needed where the file names networks or functions
            of your own, which no file may bring into being; its structure, shapes and dtypes are required of the file.

    Raises:
        FileError: missing, damaged, foreign or hostile file; a model other than `like`.
    """
    arrays, description = read_arrays(path)
    if isinstance(description, dict):
        description.pop("schema", None)
    called = f"load({str(path)!r})"
    if like is not None:
        return _fill(like, arrays, description, called)
    try:
        loaded = put_together(arrays, description)
        _try_out(loaded)
    except JaxgenError as error:
        raise FileError(
            f"refused: {error.message}", called=called, expected=error.expected or "a model that jaxgen.save wrote",
            got=error.got, fix=error.fix,
        ) from None  # fmt: skip
    except Exception as error:  # whatever a hostile description provokes is a refusal
        raise FileError(
            "refused: the description does not fit together", called=called, expected="a model that jaxgen.save wrote",
            got=f"{type(error).__name__}: {str(error)[:200]}",
        ) from None  # fmt: skip
    return loaded


def load_schema(path: str | os.PathLike[str]) -> Any:
    """Loads the schema that a model was saved with; None where it was saved without.

    Raises:
        FileError: missing, damaged, foreign or hostile file.
    """
    _, description = read_arrays(path)
    try:
        return _decode_static(description.get("schema"), 0)
    except Exception as error:  # whatever a hostile description provokes is a refusal
        raise FileError(
            "refused: the columns do not fit together", called=f"load_schema({str(path)!r})", got=str(error)[:200],
            expected="a file that jaxgen.save wrote",
        ) from None  # fmt: skip


def _try_out(model: Any) -> None:
    """Traces a sample, without computing it: shapes that do not fit each other are found here, not in use."""
    if not has(model, Implicit):
        return

    def draw(model: Any, key: Any) -> Any:
        event = tuple(model.event_shape)
        length = {"length": 1} if None in event else {}
        shape = model.context_shape if has(model, Conditional) else None
        context = None if shape is None else jnp.zeros(tuple(1 if e is None else e for e in shape))
        sample = model.sample(key, **length, **({} if context is None else {"context": context}))
        if sample.shape != tuple(1 if e is None else e for e in event) or min(sample.shape, default=0) < 0:
            raise FileError("the arrays do not fit together", expected=f"samples {event}", got=f"{sample.shape}")
        return sample

    first: Exception | None = None
    for _ in range(3):  # a model, a batch of models, a batch of batches
        try:
            jax.eval_shape(draw, model, jax.random.key(0))
            return
        except Exception as error:
            first = first or error
            draw = jax.vmap(draw, in_axes=(0, None))
    raise first or AssertionError


def _encode(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    if is_model(value):
        fields = model_fields(value)
        return {
            "model": public_name(type(value)),
            "fields": {n: _encode(v, f"{path}.{n}" if path else n, arrays) for n, k, v in fields if k != "static"},
            "static": {n: _encode_static(v, f"{path}.{n}") for n, k, v in fields if k == "static"},
        }
    if value is None:
        return {"none": True}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise FileError(f"field {path} cannot be saved", expected="dict keys that are str", got=str([*value])[:80])
        # in the order in which a pytree lists its leaves
        return {"dict": {k: _encode(value[k], f"{path}.{k}", arrays) for k in sorted(value)}}
    if isinstance(value, (tuple, list)) and not is_named_tuple(value):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]}
    if _is_numeric(value):
        if path in arrays:
            raise FileError(f"two leaves are called {path}", fix="rename the dict keys that hold dots")
        arrays[path] = value
        return {"array": path, "shape": list(np.shape(value)), "dtype": str(jnp.result_type(value))}
    raise FileError(
        f"field {path} cannot be saved", expected="models, and arrays of bool, int or float",
        got=f"{type(value).__name__} {dtype_of(value) or ''}".strip(),
    )


def _is_numeric(value: Any) -> bool:
    if isinstance(value, (bool, int, float)):
        return True
    dtype = dtype_of(value)
    # four-bit numbers and their kin have no place in the file format, nor has a foreign byte order in JAX
    return isinstance(dtype, np.dtype) and dtype.isnative and (dtype.kind in "biuf" or dtype == jnp.bfloat16)


def _encode_static(value: Any, path: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_encode_static(v, path) for v in value]}
    name = public_name(type(value))
    if dataclasses.is_dataclass(value):
        shown = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if _is_written(f, value)}
        return {"object": name, "fields": {k: _encode_static(v, path) for k, v in shown.items() if v is not None}}
    public = getattr(value, "__name__", "")
    for module in _FUNCTION_MODULES:
        if _activation(module, public) is value:
            return {"function": f"{module}:{public}"}
    if callable(value):
        return {"function": public_name(value if hasattr(value, "__qualname__") else type(value))}
    raise FileError(f"static field {path} cannot be saved", expected="a plain value or function", got=repr(value)[:80])


def _is_written(field: Any, value: Any) -> bool:
    """True if a file holds a field of a static value: not where another describes it, or linen's own default does."""
    if not field.init or field.name == "parent" or field.metadata.get("described"):
        return False
    own = type(value).__module__.startswith("flax.linen.")
    return not (own and callable(field.default) and getattr(value, field.name) is field.default)


def _import_own(name: str) -> None:
    """Imports what has a public name of this package, so that its class is registered; other names are left alone."""
    where, _, qualified = name.partition(":")
    package, *rooms = where.split(".")
    if package == __name__.partition(".")[0] and all(room in NAMESPACES for room in rooms):
        found: Any = importlib.import_module(package)
        for part in (*rooms, *qualified.split(".")):
            found = getattr(found, part, None)


def _layer(name: str) -> Any:
    """The public layer of flax linen of that name: options and a pure function of arrays."""
    module, _, public = name.partition(":")
    if not module.startswith("flax.linen."):
        return None
    linen = importlib.import_module("flax.linen")
    found = getattr(linen, public, None)
    return found if isinstance(found, type) and issubclass(found, linen.Module) and public_name(found) == name else None


def _activation(module: str, name: str) -> Callable[..., Any] | None:
    """The public function of that name, where a file may name it."""
    allowed = _FUNCTION_MODULES.get(module, frozenset())
    if name.startswith("_") or (allowed is not None and name not in allowed):
        return None
    function = getattr(importlib.import_module(module), name, None)
    return function if callable(function) else None


def _decode_static(node: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise FileError("nested too deep")
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    if "tuple" in node:
        return tuple(_decode_static(v, depth + 1) for v in node["tuple"])
    if "object" in node:
        _import_own(node["object"])
        cls = _LOADABLE.get(node["object"]) or _layer(str(node["object"]))
        if cls is None:
            raise FileError(
                "it names a class that is not registered", got=str(node["object"])[:80],
                fix="load it with a model to be like, or register the class with jaxgen.core.files.loadable",
            )  # fmt: skip
        return cls(**{k: _decode_static(v, depth + 1) for k, v in node["fields"].items()})
    name = str(node["function"])
    _import_own(name)
    module, _, public = name.partition(":")
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if (function := _activation(module, public)) is not None:
        return function
    raise FileError(
        "it names a function that is not registered", got=name[:80],
        fix="load it with a model to be like, or register the function with jaxgen.core.files.loadable",
    )  # fmt: skip


def _decode(node: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise FileError("nested too deep")
    if "array" in node:
        array = arrays.pop(node["array"], None)
        if array is None or list(array.shape) != node["shape"] or str(array.dtype) != node["dtype"]:
            got = "no such array" if array is None else f"{array.dtype}{list(array.shape)}"
            raise FileError(
                f"array {node['array']!r} is not what the description says",
                expected=f"{node['dtype']}{node['shape']}", got=got,
            )  # fmt: skip
        return _to_device(array)
    if "none" in node:
        return None
    if "dict" in node:
        return {k: _decode(v, arrays, depth + 1) for k, v in node["dict"].items()}
    for kind, build in (("tuple", tuple), ("list", list)):
        if kind in node:
            return build(_decode(v, arrays, depth + 1) for v in node[kind])
    name = node["model"]
    _import_own(name)
    cls = REGISTRY.get(name)
    if cls is None:
        raise FileError(
            "it holds a model class that is not known here", got=str(name)[:80], fix="import the module that defines it"
        )
    expected = {f.name: "static" in f.metadata for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {**dict.fromkeys(node["fields"], False), **dict.fromkeys(node["static"], True)}
    if expected != given:
        raise FileError(f"the fields of {name} do not match", expected=str(sorted(expected)), got=str(sorted(given)))
    fields = {k: _decode(v, arrays, depth + 1) for k, v in node["fields"].items()}
    return cls(**fields, **{k: _decode_static(v, depth + 1) for k, v in node["static"].items()})


def _to_device(array: np.ndarray) -> jax.Array:
    if array.dtype.itemsize > 4 and array.dtype.kind in "fiu" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise FileError(
            "the model is in 64 bits and this process is in 32", expected="matching precision", got=str(array.dtype),
            fix="switch jax_enable_x64 on before loading",
        )  # fmt: skip
    return jnp.asarray(array)


def _fill(like: Any, arrays: dict[str, np.ndarray], description: Any, called: str) -> Any:
    wanted: dict[str, Any] = {}
    structure = _encode(like, "", wanted)
    if structure != description:
        raise FileError(
            "the file holds another model than `like`", called=called, expected=repr(like)[:300],
            got=str(description.get("model") if isinstance(description, dict) else description)[:300],
            fix="a model of the same classes, shapes and static options as the saved one",
        )  # fmt: skip
    for name in wanted.keys() | arrays.keys():
        mine, got = wanted.get(name), arrays.get(name)
        if got is None or mine is None or got.shape != np.shape(mine) or got.dtype != jnp.result_type(mine):
            raise FileError(f"array {name!r} is not what the description says", called=called)
    names = iter(list(wanted))
    return jax.tree.map(lambda leaf: _to_device(arrays[next(names)]), like)
