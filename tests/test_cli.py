"""The command line: fit, score and sample as a round trip; errors are a message and status 2."""

import re
import shlex

import jax
import numpy as np
import pandas as pd
import pytest

import jaxgen as jg
from jaxgen.cli import main as cli
from jaxgen.tour import PARTS


def write(path, x, fmt="%.7g"):
    np.savetxt(path, x, delimiter=",", fmt=fmt, header=",".join(f"c{i}" for i in range(x.shape[1])), comments="")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    write(folder / "x.csv", np.concatenate([rng.normal(size=(80, 2)), 6 + rng.normal(size=(80, 2))]))
    write(folder / "bits.csv", (rng.random((60, 5)) < [0.1, 0.9, 0.5, 0.5, 0.2]).astype(int), "%d")
    return folder


FITS = [
    ("gaussian-mixture", "x.csv", ["-k", "2"]),
    ("hmm", "x.csv", ["-k", "2", "--steps", "5"]),
    ("rbm", "bits.csv", ["-k", "3", "--steps", "20"]),
    ("realnvp", "x.csv", ["-k", "2", "--steps", "5"]),
    ("vae", "bits.csv", ["-k", "2", "--steps", "5"]),
]


@pytest.mark.parametrize(("family", "data", "options"), FITS, ids=[f[0] for f in FITS])
def test_fit_score_sample(folder, capsys, family, data, options):
    model, data = str(folder / f"{family}.jaxgen"), str(folder / data)
    assert cli.main(["fit", family, data, "-o", model, *options]) == 0
    shown = capsys.readouterr().out
    # one series is one event, whose likelihood has no standard error
    number = r"-?\d+\.\d+" if family == "hmm" else r"-?\d+\.\d+ ± \d+\.\d+"
    one, of = ("step", "1 series of 160 steps") if family == "hmm" else ("event", r"\d+ events")
    assert re.search(rf"training: {number} nats per {one}", shown)
    assert cli.main(["score", model, data, "--samples", "4"]) == 0
    kind = "lower bound" if family == "vae" else "exact"
    said = rf"{number} nats per {one} \({kind}, {of}\)"
    assert re.fullmatch(said, capsys.readouterr().out.strip())
    if family == "rbm":
        return  # its sampler compiles 1000 sweeps; the path is the same
    assert cli.main(["sample", model, "-n", "7", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ",".join(jg.data.read(data).columns)
    assert len(lines) == 8
    assert np.isfinite(np.array([line.split(",") for line in lines[1:]], float)).all()


def test_the_score_is_the_librarys(folder, capsys):
    path, data = str(folder / "one.jaxgen"), str(folder / "x.csv")
    x = jg.data.read(data).values.astype(np.float32)
    model, _ = jg.recipes.gaussian_mixture(jax.random.key(0), x, 2)
    jg.save(model, path)
    assert cli.main(["score", path, data]) == 0
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(float(model.log_prob(x).mean()), abs=1e-4)


def test_samples_to_a_file_are_read_back(folder, capsys):
    path, out = str(folder / "two.jaxgen"), folder / "drawn.csv"
    jg.save(jg.DiagonalGaussian.from_values([1.0, 2.0], [0.1, 0.1]), path)
    assert cli.main(["sample", path, "-n", "50", "-o", str(out), "--seed", "4"]) == 0
    table = jg.data.read(out)
    assert table.columns == ("x0", "x1")
    drawn = jg.load(path).sample(jax.random.key(4), (50,))
    np.testing.assert_allclose(table.values, np.asarray(drawn), rtol=1e-7)  # nine digits hold a float32


def test_an_index_is_not_modelled(folder, capsys):
    x = pd.DataFrame(np.random.default_rng(1).normal(size=(60, 2)), columns=["a", "b"])
    shown = []
    for name, options in (("plain", {"index": False}), ("index", {}), ("some", {"sep": ";"})):
        x.sample(frac=1, random_state=0).to_csv(folder / f"{name}.csv", **options)
        arguments = ["fit", "gaussian-mixture", str(folder / f"{name}.csv"), "-o", str(folder / "i"), "-k", "1"]
        assert cli.main([*arguments, "--delimiter", options.get("sep", ",")]) == 0
        out, err = capsys.readouterr()
        shown.append(re.search("training: .*", out)[0])
        assert ("numbers the rows and is left out; --no-index keeps it" in err) == (name != "plain")
    assert len(set(shown)) == 1


@pytest.mark.parametrize(("content", "fix"), [
    ("größe,b\n1,2\n2,3\n3,5\n".encode("latin-1"), ["--encoding", "latin-1"]),
    ("a,b\n1,2\n2,3\n3,5\n".encode("utf-16"), ["--encoding", "utf-16"]),
    (b"a;b\n1;2\n2;3\n3;5\n", ["--delimiter", ";"]),
    (b"a,b\n1,2\n2,3\n,5\n3,1\n", ["--missing"]),
    (b"day,b\nMon,2\nTue,3\nWed,5\n", ["--index"]),
    (b"2019,b\n1,2\n2,3\n3,5\n", ["--header"]),
])  # fmt: skip
def test_fixes_are_flags(folder, capsys, content, fix):
    (folder / "odd.csv").write_bytes(content)
    arguments = ["fit", "gaussian-mixture", str(folder / "odd.csv"), "-o", str(folder / "f"), "-k", "1", "--steps", "2"]
    assert cli.main(arguments) == 2
    assert shlex.split(re.search("fix: +(.*)", capsys.readouterr().err)[1])[: len(fix)] == fix
    assert cli.main([*arguments, *fix]) == 0


def test_no_fix_is_in_python(folder, capsys):
    for data, family in (("x.csv", "rbm"), ("several.npz", "hmm")):
        np.savez(folder / "several.npz", a=np.zeros(3), b=np.ones(3))
        assert cli.main(["fit", family, str(folder / data), "-o", str(folder / "n")]) == 2
        fix = re.search("fix: +(.*)", capsys.readouterr().err)
        assert fix is None or "(" not in fix[1]


def test_validation_fraction(folder, capsys):
    arguments = ["fit", "gaussian-mixture", str(folder / "x.csv"), "-o", str(folder / "v"), "-k", "1", "--steps", "2"]
    assert cli.main([*arguments, "--validation-fraction", "0.25"]) == 0
    shown = capsys.readouterr().out
    assert "120 events" in shown
    assert "held out: " in shown
    assert "40 events" in shown


@pytest.mark.parametrize("arguments", [
    ["score", "nowhere.jaxgen", "x.csv"],
    ["score", "x.csv", "x.csv"],
    ["fit", "gaussian-mixture", "nowhere.csv", "-o", "m"],
    ["fit", "gaussian-mixture", "x.csv", "-o", "no/such/folder/m"],
    ["fit", "gaussian-mixture", "x.csv", "-o", "m", "-k", "0"],
    ["fit", "gaussian-mixture", "x.csv", "-o", "m", "--validation-fraction", "1.5"],
    ["fit", "hmm", "x.csv", "-o", "m", "--validation-fraction", "0.5"],
    ["fit", "rbm", "x.csv", "-o", "m"],
    ["fit", "gaussian-mixture", "several.npz", "-o", "m"],
])  # fmt: skip
def test_errors_are_messages(folder, capsys, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    np.savez(folder / "several.npz", a=np.zeros(3), b=np.ones(3))
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"jaxgen {arguments[0]}: ")
    assert "Traceback" not in out + err
    assert not (folder / "m").exists()


def test_usage(capsys):
    for arguments, status in ((["--version"], 0), ([], 2), (["fit", "oracle", "x", "-o", "m"], 2)):
        with pytest.raises(SystemExit) as raised:
            cli.main(arguments)
        assert raised.value.code == status
    assert f"jaxgen {jg.__version__}" in capsys.readouterr().out


def test_tour_exit_status(tmp_path, capsys, monkeypatch):
    def broken(key, quick):
        raise ValueError("no")

    for parts, status in (({"a": broken}, 1), ({}, 0)):
        for name in list(PARTS):
            monkeypatch.delitem(PARTS, name)
        for name, part in parts.items():
            monkeypatch.setitem(PARTS, name, part)
        assert cli.main(["tour", "--out", str(tmp_path), "--quick"]) == status
        assert "index.html" in capsys.readouterr().out
