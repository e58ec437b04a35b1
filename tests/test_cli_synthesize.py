"""The command that makes tables: a round trip of csv and parquet, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from jaxgen.cli import main as cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    group = rng.random(120) < 0.5
    frame = pd.DataFrame({
        "sex": np.where(group, "M", "F"), "height": np.where(group, 1.8, 1.65).round(2) + rng.normal(size=120).round(2),
        "kids": rng.integers(0, 30, 120),
    })  # fmt: skip
    frame.to_csv(folder / "x.csv", index=False)
    frame.to_parquet(folder / "x.parquet")
    (folder / "one.csv").write_text("a,b\n1,2\n")
    (folder / "empty.csv").write_text("")
    (folder / "names.csv").write_text("a,b\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    (folder / "bytes.parquet").write_bytes(b"PAR1 no")
    (folder / "holes.csv").write_text("a,b\n1,2\n,4\n5,6\n")
    np.save(folder / "x.npy", np.zeros((4, 2)))
    return folder


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_of_files(folder, capsys, kind):
    out = folder / f"made.{kind}"
    command = ["synthesize", str(folder / f"x.{kind}"), "-k", "2", "-n", "50", "-o", str(out), "--given", "sex=M"]
    assert cli.main(command) == 0
    made = pd.read_csv(out) if kind == "csv" else pd.read_parquet(out)
    assert list(made.columns) == ["sex", "height", "kids"]
    assert len(made) == 50
    assert set(made["sex"]) == {"M"}
    assert made["kids"].dtype == np.int64


@pytest.mark.parametrize("arguments", [
    ["nowhere.csv"], ["empty.csv"], ["names.csv"], ["one.csv"], ["twice.csv"], ["bytes.parquet"], ["holes.csv"],
    ["x.npy"], ["x.csv", "-n", "0"], ["x.csv", "-n", "-3"], ["x.csv", "-o", "nowhere/made.csv"],
    ["x.csv", "--model", "nowhere/model"], ["x.csv", "--columns", "gone"], ["x.csv", "--labels", "gone"],
    ["x.csv", "--delimiter", ";;"], ["x.csv", "--encoding", "klingon"], ["x.csv", "-k", "2", "--given", "sex"],
    ["x.csv", "-k", "2", "--given", "gone=3"], ["x.csv", "-k", "2", "--given", "sex=X"],
    ["x.csv", "-k", "2", "--given", "height=tall"], ["x.csv", "-k", "2", "--given", "height=99"], ["."],
])  # fmt: skip
def test_errors_are_messages(folder, capsys, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    assert cli.main(["synthesize", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("jaxgen synthesize: ")
    assert "Traceback" not in out + err
