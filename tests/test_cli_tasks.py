"""The commands of what models are used for: anomalies and the number of components, on csv and parquet files."""

import re

import jax
import numpy as np
import pandas as pd
import pytest

import jaxgen as jg
from jaxgen.cli import main as cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    normal = pd.DataFrame(rng.normal(size=(160, 2)), columns=["a", "b"])
    new = pd.concat([normal[:20] + 0.1, pd.DataFrame({"a": [9.0, -9.0] * 5, "b": 9.0})])
    normal.to_csv(folder / "normal.csv", index=False)
    new[["b", "a"]].to_parquet(folder / "new.parquet")  # columns go by their names
    new.to_csv(folder / "new.csv", index=False)
    new.rename(columns={"b": "c"}).to_csv(folder / "other.csv", index=False)
    new.assign(b=np.where(np.arange(30) == 3, np.nan, new["b"])).to_csv(folder / "holes.csv", index=False)
    new.assign(b="x").to_csv(folder / "words.csv", index=False)
    return folder


def test_anomalies_of_a_detector(folder, capsys):
    tables = []
    for name in ("new.csv", "new.parquet"):
        out = folder / "found.csv"
        assert cli.main(["anomaly", str(folder / name), "--reference", str(folder / "normal.csv"), "-o", str(out)]) == 0
        assert re.search(r"anomalies +1\d of 30 events, at most 10% of them false", capsys.readouterr().out)
        tables.append(pd.read_csv(out))
        assert list(tables[-1]) == ["score", "p_value", "anomaly"]
        assert (tables[-1]["anomaly"][20:] == 1).all() and tables[-1]["anomaly"][:20].sum() < 5
    pd.testing.assert_frame_equal(*tables)


def test_a_label_that_never_goes_with_its_number_is_strange(folder, capsys):
    rng = np.random.default_rng(1)
    normal = pd.DataFrame({"kind": rng.choice(["low", "high"], 160), "size": rng.normal(size=160)})
    normal["size"] += np.where(normal["kind"] == "high", 8.0, 0.0)
    normal.to_csv(folder / "kinds.csv", index=False)
    strange = pd.DataFrame({"kind": ["low"] * 10, "size": 8.0})
    pd.concat([normal[:10], strange]).to_csv(folder / "asked.csv", index=False)
    out = folder / "kinds-found.csv"
    command = ["anomaly", str(folder / "asked.csv"), "--reference", str(folder / "kinds.csv"), "-o", str(out)]
    assert cli.main(command) == 0
    assert pd.read_csv(out)["anomaly"].tolist() == [0] * 10 + [1] * 10


def test_anomalies_of_a_model_are_the_librarys(folder, capsys):
    x, reference = (pd.read_csv(folder / f"{name}.csv").to_numpy(np.float32) for name in ("new", "normal"))
    model = jg.Gaussian.init(jax.random.key(0), reference[:80])
    jg.save(model, folder / "model")
    command = ["anomaly", str(folder / "new.csv"), "--reference", str(folder / "normal.csv"), "--level", "0.2"]
    assert cli.main([*command, "--model", str(folder / "model")]) == 0
    # the scores of a density need no key
    found = jg.tasks.anomaly(jax.random.key(5), model, x, reference=reference, level=0.2)
    assert capsys.readouterr().out.strip() == str(found)


def test_select_prints_the_table(folder, capsys):
    assert cli.main(["select", str(folder / "normal.csv"), "-k", "1,2", "--restarts", "1"]) == 0
    assert re.search("bic", capsys.readouterr().out, re.IGNORECASE)


@pytest.mark.parametrize(("name", "options", "said"), [
    ("other.csv", [], "b"),
    ("holes.csv", [], "--missing"),
    ("words.csv", [], "b"),
    ("new.csv", ["--level", "2"], "level"),
    ("none.csv", [], "none.csv"),
    ("new.csv", ["--model", "nothing"], "nothing"),
])  # fmt: skip
def test_garbage_is_one_paragraph(folder, capsys, name, options, said):
    command = ["anomaly", str(folder / name), "--reference", str(folder / "normal.csv"), *options]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxgen anomaly: ") and said in error and "Traceback" not in error
    assert "\n\n" not in error.strip()
