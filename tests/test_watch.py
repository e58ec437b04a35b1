"""Watchers: what they see, that they end a fit, and that nothing they do reaches its numbers."""

import csv
import json
import sys
import time

import jax
import numpy as np
import pytest
from fits import KEY, X, adam, compilations, gaussian, mixture, same

import jaxgen as jg
from jaxgen import watch
from jaxgen.fit import clock, driver, progress
from jaxgen.fit.watch import Closing, Progress, Watcher

OPTIONS = {"batch_size": 8, "validation": X[:5], "every": 7}


def run(watchers=(), steps=30, **options):
    return jg.fit(KEY, gaussian(), X, adam(), steps=steps, watch=watchers, **(OPTIONS | options))


@pytest.fixture(scope="module")
def plain():
    return run()


def test_what_a_watcher_sees(plain):
    seen = []
    fitted = run([seen.append])
    assert [p.step for p in seen] == [7, 14, 21, 28, 30]
    assert [p.status for p in seen] == [jg.Status.RUNNING] * 4 + [jg.Status.FINISHED]
    for p in seen:
        np.testing.assert_array_equal(p.history["loss"], fitted.history["loss"][: p.step])
        assert p.metrics["loss"] == fitted.history["loss"][p.step - 1]
        assert p.metrics["validation"] == p.history["validation"][-1], "scores come first"
        assert p.steps == 30 and p.monitor == "loss" and p.restarts is None
        assert type(p.metrics["loss"]) is float
    np.testing.assert_array_equal(seen[0].model.offset, run(steps=7).state.model.offset)
    assert int(seen[0].state.steps) == 7
    assert (np.diff([p.elapsed for p in seen]) > 0).all()
    assert str(seen[1]).startswith("step 14 of 30, loss ") or "loss" in str(seen[1])
    for a in (fitted, plain):
        same((a.model, a.state), (plain.model, plain.state))


def test_results_do_not_depend_on_watchers(plain, tmp_path):
    busy = [watch.Every(1, lambda p: None), watch.CSV(tmp_path / "a.csv"), watch.JSONL(tmp_path / "a.jsonl"),
            watch.Samples(KEY, lambda p, x: None, every=3)]  # fmt: skip
    fitted = run(busy, progress=True)
    same((fitted.model, fitted.state, fitted.history), (plain.model, plain.state, plain.history))


@pytest.mark.parametrize("stops", [14, 30])
def test_true_ends_a_fit(stops, plain):
    fitted = run([lambda p: None, lambda p: np.bool_(p.step >= stops), lambda p: 0])
    assert fitted.status is jg.Status.STOPPED and fitted.steps == stops == len(fitted.history["loss"])
    np.testing.assert_array_equal(fitted.history["loss"], plain.history["loss"][:stops])


def test_one_watcher_needs_no_list(plain):
    assert run(lambda p: p.step >= 14).steps == 14
    with pytest.raises(jg.FitError, match="watcher is a function"):
        run(["a"])


def test_a_fit_that_was_stopped_stays_stopped(tmp_path):
    until = watch.Every(4, lambda p: p.step >= 8)
    first = run([until], checkpoint=tmp_path, checkpoint_every=100)
    assert first.status is jg.Status.STOPPED and first.steps == 8
    again = run([until], checkpoint=tmp_path)
    assert again.status is jg.Status.STOPPED and again.steps == 8
    same((first.model, first.history), (again.model, again.history))


def test_each_is_called_as_often_as_it_says_and_once_a_step():
    seen = {2: [], 5: [], 11: []}
    run([watch.Every(n, lambda p, n=n: seen[n].append(p.step)) for n in seen], steps=11)
    assert seen == {2: [2, 4, 6, 8, 10, 11], 5: [5, 10, 11], 11: [11]}


def test_restarts_streams_and_passes_are_watched():
    seen = []
    start = lambda key: mixture(jax.random.normal(key))  # noqa: E731
    fitted = jg.fit(KEY, start, X, restarts=2, steps=4, tolerance=0, every=2, watch=[seen.append])
    assert seen[0].history["objective"].shape == (2, 2) and seen[0].metrics["objective"].shape == (2,)
    assert seen[0].model.logits.shape == (2, 2)
    samples = []
    look = watch.Samples(KEY, lambda p, x: samples.append(x.shape), n=3, every=2)
    jg.fit(KEY, start, X, restarts=2, steps=2, tolerance=0, watch=[look])
    assert samples == [(2, 3, 2)]
    for data, how in ((jg.data.Stream(X, chunk=20), jg.EM()), (iter([X] * 9), adam())):
        steps = []
        jg.fit(KEY, mixture(), data, how, steps=4, watch=[watch.Every(2, lambda p, s=steps: s.append(p.step))])
        assert steps == [2, 4]
    assert fitted.steps == 4


def test_a_table_has_every_step(tmp_path, plain):
    path = tmp_path / "fit.csv"
    table = watch.CSV(path)
    for _ in range(2):  # the second fit begins a new one
        run([table])
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert [int(r["step"]) for r in rows] == [*range(1, 31)]
        np.testing.assert_array_equal([np.float32(r["loss"]) for r in rows], plain.history["loss"])
        scored = {int(r["step"]): float(r["validation"]) for r in rows if r["validation"]}
        assert scored == dict(zip([7, 14, 21, 28, 30], plain.history["validation"].tolist(), strict=True))
    run([watch.CSV(path, every=10)], validation=None, every=3)
    with path.open() as file:
        assert [r["step"] for r in csv.DictReader(file)] == ["10", "20", "30"]


def test_lines_of_json_say_null_for_what_is_no_number(tmp_path):
    path = tmp_path / "fit.jsonl"
    start = lambda key: mixture(jax.random.normal(key))  # noqa: E731
    jg.fit(KEY, start, X, restarts=2, steps=3, tolerance=0, watch=[watch.JSONL(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3]
    assert {"objective[0]", "objective[1]"} <= set(rows[0])
    log = watch.JSONL(path)
    history = {"loss": np.array([1.0, np.nan])}
    log(Progress(2, 2, jg.Status.FINISHED, 0.0, history, None, None))
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, None]


def test_scalars_go_to_any_writer(plain):
    class Board:
        def __init__(self):
            self.seen = {}

        def add_scalar(self, tag, value, step):
            self.seen[tag, step] = value

    board, plot = Board(), {}
    run([watch.Scalars(board, every=10), watch.Scalars(lambda t, v, s: plot.update({(t, s): v}), every=10)])
    assert board.seen == plot
    assert {step for tag, step in plot if tag == "loss"} == {10, 20, 30}
    assert plot["loss", 20] == plain.history["loss"][19]
    assert plot["validation", 14] == plain.history["validation"][1]
    with pytest.raises(jg.FitError, match="writes no scalars"):
        watch.Scalars(3)


def test_samples_are_of_the_model_and_of_one_noise():
    seen = []
    look = watch.Samples(KEY, lambda p, x: seen.append((p.model, x)), n=4, every=10)
    run([look], steps=20)
    for model, x in seen:
        np.testing.assert_array_equal(x, model.sample(KEY, (4,)))
    assert len(seen) == 2


def test_protocols_and_refusals(tmp_path):
    assert isinstance(watch.Every(3, print), Watcher) and not isinstance(print, Watcher)
    assert isinstance(watch.CSV("a.csv"), Closing) and not isinstance(watch.Every(3, print), Closing)
    with pytest.raises(jg.FileError, match="cannot be written"):
        run([watch.CSV(tmp_path / "no" / "folder.csv")], steps=2)
    with pytest.raises(jg.FitError, match="number of steps"):
        watch.CSV("a.csv", every=0)
    with pytest.raises(ZeroDivisionError):  # what goes wrong in a watcher is not hidden
        run([lambda p: 1 / 0], steps=2)


def test_no_steps_score_the_start():
    fitted = jg.fit(KEY, gaussian(), X, adam(), steps=0)
    assert fitted.status is jg.Status.FINISHED and fitted.steps == 0
    assert fitted.history["loss"].shape == (0,)
    same(fitted.model, gaussian())
    assert "after 0 steps" in repr(fitted)
    scored = jg.fit(KEY, gaussian(), X, adam(), steps=0, validation=X[:5])
    np.testing.assert_allclose(scored.history["validation"], [gaussian().log_prob(X[:5]).mean()], rtol=1e-6)
    assert scored.history["validation_step"].tolist() == [0]
    start = lambda key: mixture(jax.random.normal(key))  # noqa: E731
    several = jg.fit(KEY, start, X, steps=0, restarts=3)
    np.testing.assert_allclose(several.scores.max(), several.model.log_prob(X).mean(), rtol=1e-6)


# interrupts


def interrupting(p):
    raise KeyboardInterrupt


def test_a_second_interrupt_within_a_second_goes_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(driver.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(driver, "_interrupted", -9.0)
    fitted = run([watch.Every(7, interrupting)])
    assert fitted.status is jg.Status.INTERRUPTED and fitted.steps == 7
    now[0] = 0.9
    with pytest.raises(KeyboardInterrupt):
        run([watch.Every(7, interrupting)])
    now[0] = 2.0
    assert run([watch.Every(7, interrupting)]).status is jg.Status.INTERRUPTED


def test_a_log_is_whole_after_an_interrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "_interrupted", -9.0)
    run([watch.CSV(tmp_path / "a.csv"), watch.Every(10, interrupting)], every=1000)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 11


# the bar


class Terminal:
    """Standard error of somebody who watches."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self): ...

    def isatty(self):
        return True


def test_the_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in ("CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    run(steps=20)
    first, last = terminal.text.split("\r")[1], terminal.text.rstrip().split("\r")[-1]
    assert "compiling: 0/20" in first and "<" not in first and "?" not in first, "no time is left that nobody knows"
    assert "finished" in last and "20/20" in last and "loss" in last and "validation" in last
    assert terminal.text.endswith("\n"), "it stays"
    terminal.text = ""
    monkeypatch.setenv("CI", "true")
    run(steps=20)
    assert terminal.text == "", "a log is no terminal"


def test_notebooks_are_watched(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    assert progress.watched(None) and not progress.watched(False)


# time


def test_compiling_is_no_time_of_steps(monkeypatch):
    batches = [X[:n] for n in (8, 8, 9, 10, 11)]
    count, fitted = compilations(lambda: jg.fit(KEY, gaussian(), iter(batches), adam(0.01234), steps=9))
    assert count >= 4 and fitted.compile_seconds > 0
    spans = clock._Compiled()
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    spans.add(2.0)  # 8 to 10
    now[0] = 13.0
    spans.add(1.0)  # 12 to 13
    now[0] = 14.0
    spans.add(7.0)  # 7 to 14 holds both: tracing that compiled on its way
    now[0] = 20.0
    spans.add(1.0)
    assert spans.total() == 8.0
    spans.settle()
    assert spans.total() == 8.0 and spans.spans == []
