"""Every fix of every error: code works on the input that raised the error, and what is no code is words."""

import ast
import functools
import re
import traceback
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest
from refusals import CASES, KEY, NAMES

import jaxgen
from jaxgen.core.errors import JaxgenError

ROOT = Path(jaxgen.__file__).parent


# ---- where fixes are written -----------------------------------------------------------------------------------------


def texts(node, constants):
    """What a fix may say, x standing for what is filled in; None where only the call can tell."""
    match node:
        case ast.Name():
            return constants.get(node.id)
        case ast.Constant():
            return [node.value]
        case ast.JoinedStr():
            return ["".join(v.value if isinstance(v, ast.Constant) else "x" for v in node.values)]
        case ast.Lambda():
            return texts(node.body, constants)
        case ast.IfExp():
            both = texts(node.body, constants), texts(node.orelse, constants)
            return None if None in both else both[0] + both[1]
    return None


def sites():
    """`(file, first line, last line, texts)` of every fix that is written down, not only handed on."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent.name == "cli":  # flags of the command line, which tests/test_cli.py tries
            continue
        tree = ast.parse(path.read_text())
        constants = {node.targets[0].id: [node.value.value] for node in tree.body if isinstance(node, ast.Assign)
                     and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)}  # fmt: skip
        takers = {}  # functions that hand a fix on, and its place among their arguments
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and "fix" in (names := [a.arg for a in node.args.args]):
                takers[node.name] = names.index("fix")
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") == "JaxgenError":
                continue
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            place = takers.get(name, 5 if name == "refuse" else len(call.args))
            given = [k.value for k in call.keywords if k.arg == "fix"] + call.args[place : place + 1]
            names = [getattr(node, "id", getattr(node, "attr", "")) for node in given[:1]]
            names += [getattr(getattr(node, "func", None), "id", "") for node in given[:1]]
            if given and not {"fix", "hint"} & set(names):
                yield path.relative_to(ROOT).as_posix(), call.lineno, call.end_lineno, texts(given[0], constants)


def is_code(text):
    return bool(JaxgenError("", fix=text).code)


SITES = list(sites())
CODE = [site for site in SITES if site[3] is None or any(map(is_code, site[3]))]


def test_fixes_without_code_are_words():
    for file, line, _, said in SITES:
        for text in said or []:
            if not is_code(text):
                assert not re.search(r"[`\[{]|\w\(|\w=\S", text), f"{file}:{line} code comes first: {text!r}"


# ---- the laws of fixes -----------------------------------------------------------------------------------------------


def made(value, tmp):
    if type(value) is not type(made):
        return value
    return value(tmp) if value.__code__.co_argcount else value()


@functools.cache
def refused(number, tmp):
    """The error of a case, where it was raised, and the names it was raised with."""
    call, _, given = CASES[number]
    names = NAMES | {"key": KEY} | {name: made(value, tmp) for name, value in given.items()}
    try:
        eval(call, names)
    except JaxgenError as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        where = {(Path(f).relative_to(ROOT).as_posix(), n) for f, n in frames if Path(f).is_relative_to(ROOT)}
        return error, where, names
    raise AssertionError(f"not refused: {call}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each case, the same at every call."""
    return functools.cache(lambda number: tmp_path_factory.mktemp(f"case{number}"))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: re.sub(r"[^\w.]+", "-", CASES[n][0])[:50])
def test_fixes_work(number, folders):
    error, _, names = refused(number, folders(number))
    call, into, _ = CASES[number]
    if into == "words":
        assert error.fix and not error.code
        return
    assert error.code, f"no code in the fix of\n{error}"
    codes = error.code[:1] if call == "read(path)" else error.code
    for place, code in enumerate(codes):
        scope, target = dict(names), into
        if place:
            target = "model" if code.startswith("dataclasses.replace(model") else None
        try:
            statement = ast.parse(code).body[0]
            if isinstance(statement, ast.Expr):
                value = eval(code, scope)
                if target is None:
                    continue
                scope[target] = value
            else:
                exec(code, scope)
            with jax.enable_x64(True) if "x64" in code else jax.enable_x64(False):
                eval(call, scope)
        finally:
            jax.config.update("jax_enable_x64", False)
            plt.close("all")


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: re.sub(r"[^\w.]+", "-", CASES[n][0])[:50])
def test_errors_say_a_thing_once(number, folders):
    error, _, _ = refused(number, folders(number))
    assert len(error.called) < 8 or error.called not in error.message, str(error)
    said = [error.message, error.expected, error.got] + [error.fix] * (not error.code)
    assert not any("\n" in text for text in said), str(error)
    for i, text in enumerate(said):
        assert not any(len(text) > 20 and text in other for other in said[:i] + said[i + 1 :]), str(error)


def test_every_fix_that_is_code_is_run(folders):
    seen = set().union(*(refused(number, folders(number))[1] for number in range(len(CASES))))
    missed = [
        f"{file}:{first} {said or ''}"
        for file, first, last, said in CODE
        if not any((file, line) in seen for line in range(first, last + 1))
    ]
    assert not missed, "fixes that no case runs:\n" + "\n".join(missed)
