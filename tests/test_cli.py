"""The command line: fit, score and sample as a round trip; errors are a message and status 2."""

import re
import shlex
import sys

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
    (b"a,b\n1,2\n2,3\nn.a.,5\n3,1\n", ["--missing", "--missing-as=n.a."]),
    (b"a;b\n1,5;2,5\n2,5;3,25\n3,5;5\n", ["--decimal", ",", "--delimiter", ";"]),
    (b"day,b\nMon,2\nTue,3\nWed,5\n", ["take"]),
    (b"2019,b\n1,2\n2,3\n3,5\n", ["--header"]),
])  # fmt: skip
def test_fixes_are_flags(folder, capsys, content, fix):
    (folder / "odd.csv").write_bytes(content)
    arguments = ["fit", "gaussian-mixture", str(folder / "odd.csv"), "-o", str(folder / "f"), "-k", "1", "--steps", "2"]
    assert cli.main(arguments) == 2
    said = shlex.split(re.search("fix: +(.*)", capsys.readouterr().err)[1])
    assert [word.rstrip(",") if len(word) > 1 else word for word in said][: len(fix)] == fix
    again = ["fit", "mixture", *arguments[2:]] if fix == ["take"] else [*arguments, *fix]  # labels: another family
    assert cli.main(again) == 0


PEOPLE = pd.DataFrame({
    "age": np.random.default_rng(0).normal(40.0, 9.0, 60), "port": ["S", "C", "S"] * 20, "alone": [True, False] * 30,
    "kids": [0, 1, 4] * 20, "year": np.arange(60) + 1990,
})  # fmt: skip


@pytest.fixture(scope="module")
def people(folder):
    """A mixture of a table of mixed columns, fitted on the command line."""
    PEOPLE.assign(age=PEOPLE["age"].where(PEOPLE.index % 9 > 0)).to_csv(folder / "people.csv", index=False)
    out = str(folder / "people")
    assert cli.main(["fit", "mixture", str(folder / "people.csv"), "-o", out, "-k", "2", "--steps", "3", "--missing",
                     "--restarts", "2", "--plot", str(folder / "people.png")]) == 0  # fmt: skip
    return out


def test_samples_have_the_columns_names_and_types(folder, people, capsys):
    capsys.readouterr()
    assert cli.main(["sample", people, "-n", "40", "-o", str(folder / "made.csv")]) == 0
    made = pd.read_csv(folder / "made.csv")
    assert made.dtypes.equals(PEOPLE.dtypes) and set(made["port"]) == {"S", "C"}
    assert (folder / "people.png").read_bytes()[:4] == b"\x89PNG"


def test_scores_of_other_files_go_by_names_and_levels(folder, people, capsys):
    model, table = jg.load(people), jg.data.Table.from_frame(PEOPLE)
    # one level alone, other columns and another order: the codes of this file are not the model's
    some = PEOPLE[PEOPLE["port"] == "S"].assign(name=[f"n{i}" for i in range(40)])[::-1]
    some.iloc[:, ::-1].to_csv(folder / "some.csv", index=False)
    expected = model.log_prob(table.values[PEOPLE["port"] == "S"]).mean()
    capsys.readouterr()
    assert cli.main(["score", people, str(folder / "some.csv")]) == 0
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(float(expected), abs=1e-4)
    some.assign(port="X").to_csv(folder / "other.csv", index=False)
    assert cli.main(["score", people, str(folder / "other.csv")]) == 2
    assert "'port' holds what is none of its levels" in capsys.readouterr().err


def test_series_by_a_column_are_scored_by_step(folder, capsys):
    pulse = np.random.default_rng(0).normal(60.0, 5.0, 90)
    visits = pd.DataFrame({"who": np.repeat(["b", "a"], [60, 30]), "pulse": pulse})
    visits.to_csv(folder / "visits.csv", index=False)
    data, out = [str(folder / "visits.csv"), "--group", "who"], str(folder / "v")
    assert cli.main(["fit", "hmm", *data, "-o", out, "-k", "1", "--steps", "2"]) == 0
    capsys.readouterr()
    assert cli.main(["score", out, *data]) == 0
    said = re.fullmatch(r"(\S+) ± \S+ nats per step \(exact, 2 series of 90 steps\)", capsys.readouterr().out.strip())
    # one state: a Gaussian of all steps
    assert float(said[1]) == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * pulse.var()), abs=1e-4)
    assert cli.main(["sample", out, "-n", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "pulse"


def test_bic_chooses_how_many(folder, capsys):
    arguments = ["fit", "gaussian-mixture", str(folder / "x.csv"), "-o", str(folder / "b"), "-k", "1..2"]
    assert cli.main([*arguments, "--restarts", "1", "--steps", "20"]) == 0
    assert "best by BIC: gaussian-mixture, K = 2" in capsys.readouterr().out
    assert jg.load(folder / "b").logits.shape == (2,)
    for wrong in (["fit", "rbm", str(folder / "bits.csv"), "-o", "m", "-k", "1..2"], [*arguments, "--group", "c0"]):
        assert cli.main(wrong) == 2


def test_dates_and_codes_of_another_file_are_read_as_the_models(folder, capsys):
    days = pd.DataFrame({
        "when": pd.date_range("2020-01-01", periods=40, freq="37h"), "zip": ["01234", "1234", "1234", "10115"] * 10,
    })  # fmt: skip
    for name, part in (("days", days), ("some", days[20:])):
        part.to_csv(folder / f"{name}.csv", index=False)
    arguments = ["fit", "mixture", str(folder / "days.csv"), "-o", str(folder / "d"), "-k", "1", "--steps", "2"]
    assert cli.main([*arguments, "--dates", "--labels", "zip"]) == 0
    capsys.readouterr()
    assert cli.main(["score", str(folder / "d"), str(folder / "some.csv")]) == 0
    model = jg.load(folder / "d")
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(float(model.log_prob(days[20:]).mean()), abs=1e-3)


def test_parquet_without_its_reader(folder, people, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "people.parquet").write_bytes(b"PAR1")
    assert cli.main(["score", people, str(folder / "people.parquet")]) == 2
    assert "pip install pandas pyarrow" in capsys.readouterr().err


def test_parquet(folder, people, capsys):
    pytest.importorskip("pyarrow")  # of the test extra, as polars
    capsys.readouterr()
    PEOPLE.to_csv(folder / "whole.csv", index=False)
    PEOPLE.to_parquet(folder / "people.parquet")
    for name in ("people.parquet", "whole.csv"):
        assert cli.main(["score", people, str(folder / name)]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1
    (folder / "bad.parquet").write_bytes((folder / "people.parquet").read_bytes()[:100])
    assert cli.main(["score", people, str(folder / "bad.parquet")]) == 2
    assert "could not be read" in capsys.readouterr().err


def test_samples_are_written_as_the_file_is_called(folder, people, capsys):
    pytest.importorskip("pyarrow")
    for name in ("made.csv", "made.parquet"):
        assert cli.main(["sample", people, "-n", "5", "-o", str(folder / name)]) == 0
    made, whole = pd.read_csv(folder / "made.csv"), pd.read_parquet(folder / "made.parquet")
    assert len(whole) == 5
    pd.testing.assert_frame_equal(made, whole, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("command", [["sample", "people"], ["anomaly", "x.csv", "--reference", "y.csv"]])
def test_a_folder_to_write_into_is_looked_for_first(command, capsys):
    assert cli.main([*command, "-o", "nowhere/made.csv"]) == 2
    assert "the folder to write into is not there" in capsys.readouterr().err


GARBAGE = {
    "empty": b"", "no rows": b"a,b\n", "two columns": b"a,a\n1,2\n", "holds dates": b"a\n2020-01-01\n2020-01-02\n",
    "too large for float32": b"a\n1e300\n1\n", "not in utf-8": bytes(range(256)), "not a number": b"a\n1\nx\n",
    "is missing": b"a,b\n1,NaN\n", "does not fit the data": b"a\n1.5\n", "squares are no numbers": b"a\n1e30\n2e30\n",
    "another in most rows": b"a\n" + b"".join(b"name %d\n" % i for i in range(30)), "blank line": b"a\n1\n\n2\n",
}  # fmt: skip


@pytest.mark.parametrize("said", GARBAGE)
def test_garbage_is_refused_in_a_paragraph(folder, capsys, said):
    (folder / "garbage.csv").write_bytes(GARBAGE[said])
    assert cli.main(["fit", "mixture", str(folder / "garbage.csv"), "-o", str(folder / "g"), "-k", "2"]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) <= 5 and "read_csv(path" not in err and "np." not in err


def test_only_files_that_look_alike_are_meant(folder, capsys):
    for name, meant in (("poeple.csv", "people.csv"), ("nowhere.csv", "")):
        (folder / "people.csv").touch()
        assert cli.main(["fit", "mixture", str(folder / name), "-o", str(folder / "g")]) == 2
        assert ("did you mean" in capsys.readouterr().err) == bool(meant)


def test_help_has_a_line_for_every_option(capsys):
    for command in ("tour", "fit", "score", "sample"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        for option in cli._parser()._subparsers._group_actions[0].choices[command]._actions:
            assert option.help


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
    *(["fit", "gaussian-mixture", "x.csv", "-o", "m", "-k", k, flag, "0"]
      for k in ("2", "1..2") for flag in ("--restarts", "--steps")),
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
