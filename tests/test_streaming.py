"""Data in chunks: exact EM over a stream, and what a source may be."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from streams import KEY, LABELS, WEIGHT, N, X, close, labels_mixture, mixture, pieces, random_start, refused, same

import jaxgen as jg
from jaxgen.data import Stream
from jaxgen.fit import checkpoint as files, driver, feeds
from jaxgen.fit.loop import STARTS

RNG = np.random.default_rng(0)


class Lazy:
    """Slices, as an HDF5 array does, and remembers what was asked for."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.asked = x, x.shape, x.dtype, []

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.x[rows]


# exact EM


SOURCES = {
    "a file": lambda x, folder: (np.save(folder / "x.npy", x), str(folder / "x.npy"))[1],
    "a map": lambda x, folder: (np.save(folder / "x.npy", x), np.load(folder / "x.npy", mmap_mode="r"))[1],
    "what slices": lambda x, folder: Lazy(x),
    "a jax array": lambda x, folder: jnp.asarray(x),
    "pieces": lambda x, folder: pieces(x, 70),
}


@pytest.mark.parametrize("name", SOURCES)
def test_em_over_a_stream_is_em(name, tmp_path):
    source = SOURCES[name](X, tmp_path)
    whole = jg.fit(KEY, mixture(), X, jg.EM(), steps=8, tolerance=0)
    streamed = jg.fit(KEY, mixture(), Stream(source, chunk=88), jg.EM(), steps=8, tolerance=0)
    # one rounding of a mean of some nats is 5e-7; the start is at -9
    np.testing.assert_allclose(streamed.history["log_likelihood"][1:], whole.history["log_likelihood"][1:], atol=1e-6)
    assert set(streamed.history) == set(whole.history)
    assert streamed.history["log_likelihood"].dtype == np.float32
    close(streamed.model, whole.model, rtol=2e-5, atol=2e-6)  # sums in another order, eight times over
    assert jax.tree.structure(streamed.state) == jax.tree.structure(whole.state)


def test_in_float64_all_but_the_last_digits_agree():
    with jax.enable_x64(True):
        x = X.astype(np.float64)
        whole = jg.fit(KEY, mixture(np.float64), x, steps=30, tolerance=1e-9)
        for source in (x, pieces(x, 70)):
            streamed = jg.fit(KEY, mixture(np.float64), Stream(source, chunk=88), steps=30, tolerance=1e-9)
            assert streamed.status is whole.status is jg.Status.CONVERGED
            assert streamed.steps == whole.steps
            close(streamed.history, whole.history, rtol=1e-13, atol=1e-13)
            close(streamed.model, whole.model, rtol=1e-12, atol=1e-12)


def test_weights_and_labels_in_chunks():
    data = {"x": X, "weight": WEIGHT}
    whole = jg.fit(KEY, mixture(), data, steps=5, tolerance=0)
    for source in ((X, None, WEIGHT), data, lambda: ({"x": X[i : i + 9], "weight": WEIGHT[i : i + 9]}
                                                     for i in range(0, N, 9))):  # fmt: skip
        streamed = jg.fit(KEY, mixture(), Stream(source, chunk=88), steps=5, tolerance=0)
        close(streamed.history, whole.history, rtol=1e-6)
        close(streamed.model, whole.model, rtol=2e-5, atol=2e-6)
    label = np.where(np.arange(N) % 3 == 0, X[:, 0] > 0, -1).astype(np.int32)
    whole = jg.fit(KEY, mixture(), {"x": X, "label": label}, steps=5, tolerance=0)
    streamed = jg.fit(KEY, mixture(), Stream({"x": X, "label": label}, chunk=88), steps=5, tolerance=0)
    close(streamed.model, whole.model, rtol=2e-5, atol=2e-6)
    with pytest.raises(jg.JaxgenError, match="label"):
        jg.fit(KEY, mixture(), Stream({"x": X, "label": label + 7}, chunk=88))


def test_events_of_whole_numbers():
    whole = jg.fit(KEY, labels_mixture(), LABELS, steps=5, tolerance=0)
    streamed = jg.fit(KEY, labels_mixture(), Stream(LABELS, chunk=88), steps=5, tolerance=0)
    close(streamed.history, whole.history, rtol=1e-6)


def test_half_precision_can_count():
    x = RNG.normal(size=(70_000, 1)).astype(np.float16)
    model = jg.DiagonalGaussian.from_values(np.float32([0.5]), np.float32([1.0]))
    fitted = jg.fit(KEY, model, Stream(x, chunk=70_000), jg.EM(), steps=1)
    np.testing.assert_allclose(fitted.model.mean, x.astype(np.float64).mean(0), atol=1e-5)


def test_the_total_loses_nothing_in_float32():
    """200 chunks of a hundred events of -1000 nats: added plainly in float32, each addition rounds by up to 1 nat."""
    x = (RNG.normal(size=(20_000, 1)) + np.float32([45.0])).astype(np.float32)
    model = jg.DiagonalGaussian.from_values(np.float32([0.0]), np.float32([1.0]))
    fitted = jg.fit(KEY, model, Stream(x, chunk=100), jg.EM(), steps=1)
    exact = -0.5 * np.mean(x.astype(np.float64) ** 2) - 0.5 * np.log(2 * np.pi)
    # the last digit of 1000 in float32 is 6e-5
    np.testing.assert_allclose(fitted.history["log_likelihood"][0], exact, atol=1e-4)


def test_it_reads_chunks_only():
    source = Lazy(X)
    jg.fit(KEY, mixture(), Stream(source, chunk=88), steps=3, tolerance=0)
    assert max(rows.stop - rows.start for rows in source.asked) <= 100
    assert len(source.asked) == 1 + 3 * 7, "one chunk to look at, then three passes"


def test_tolerance_validation_and_patience():
    stream = Stream(X, chunk=88)
    whole = jg.fit(KEY, mixture(), X, steps=50, tolerance=1e-4)
    streamed = jg.fit(KEY, mixture(), stream, steps=50, tolerance=1e-4)
    assert streamed.status is whole.status is jg.Status.CONVERGED
    assert streamed.steps == whole.steps == len(streamed.history["log_likelihood"]) < 50
    options = {"steps": 12, "tolerance": 0, "validation": X[:5], "patience": 1, "every": 2}
    whole = jg.fit(KEY, mixture(), X, **options)
    for validation in (X[:5], Stream(X[:5], chunk=2)):
        streamed = jg.fit(KEY, mixture(), stream, **(options | {"validation": validation}))
        np.testing.assert_array_equal(streamed.history["validation_step"][:2], [2, 4])
        np.testing.assert_allclose(streamed.history["validation"][0], whole.history["validation"][0], rtol=1e-5)
        np.testing.assert_allclose(streamed.model.log_prob(X[:5]).mean(), streamed.history["validation"].max(), 1e-6)


def test_restarts_over_a_stream():
    streamed = jg.fit(KEY, random_start, Stream(X, chunk=88), restarts=3, steps=5, tolerance=0)
    assert streamed.history["log_likelihood"].shape == (3, 5)
    for i, key in enumerate(jax.random.split(jax.random.fold_in(KEY, STARTS), 3)):
        one = jg.fit(KEY, random_start(key), Stream(X, chunk=88), steps=5, tolerance=0)
        # the mapped program rounds in its own places, five times over
        np.testing.assert_allclose(streamed.history["log_likelihood"][i], one.history["log_likelihood"], rtol=1e-5)
        np.testing.assert_allclose(streamed.scores[i], one.model.log_prob(X).mean(), rtol=1e-5)
    batches = jg.fit(KEY, random_start, Stream(X, chunk=88), jg.StepwiseEM(), restarts=2, steps=5)
    each = [jax.tree.map(lambda a, i=i: a[i], batches.models).log_prob(X).mean() for i in range(2)]
    np.testing.assert_allclose(batches.scores, each, rtol=1e-6)  # of all chunks, not of the last


def test_a_step_that_fails_leaves_the_last_model():
    start = mixture()
    start = dataclasses.replace(start, logits=start.logits + np.float32([np.nan, 0]))
    with pytest.warns(jg.JaxgenWarning, match="step 1"):
        fitted = jg.fit(KEY, start, Stream(X, chunk=88), steps=5)
    assert fitted.status is jg.Status.NON_FINITE
    close(fitted.model, start)


def test_an_interrupt_in_a_pass_leaves_the_pass_before(monkeypatch):
    add, calls = feeds.add_chunk, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1 + 3 * 7 + 4:
            raise KeyboardInterrupt
        return add(*args)

    monkeypatch.setattr(driver, "_interrupted", -driver.TWICE)
    monkeypatch.setattr(feeds, "add_chunk", interrupted)
    fitted = jg.fit(KEY, mixture(), Stream(X, chunk=88), steps=10, tolerance=0)
    assert fitted.status is jg.Status.INTERRUPTED
    monkeypatch.undo()
    close(fitted.model, jg.fit(KEY, mixture(), Stream(X, chunk=88), steps=3, tolerance=0).model)


def test_a_second_fit_compiles_nothing():
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: seen.append(event) if event.endswith("backend_compile_duration") else None
    )

    def fit(steps, shift):
        jg.fit(KEY, mixture(shift=shift), Stream(X + shift, chunk=88), jg.EM(), steps=steps, tolerance=steps * 1e-6)

    fit(2, 0)
    seen.clear()
    fit(4, 1)
    assert not seen
    jax.jit(lambda x: x * 3.125)(1.0)
    assert seen, "and they are counted"


STREAMS = {
    "EM": (lambda: mixture(), jg.EM(), {"tolerance": 0}, lambda: Stream(X, chunk=88)),
    "gradient": (lambda: mixture(), jg.Gradient(jg.losses.nll, optax.adam(0.01)), {}, lambda: Stream(X, chunk=88)),
    "stepwise": (lambda: mixture(), jg.StepwiseEM(), {}, lambda: Stream(pieces(X, 70), chunk=88)),
    "stepwise on an array": (lambda: mixture(), jg.StepwiseEM(), {"batch_size": 88}, lambda: X),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_checkpoints_resume_bit_for_bit(name, tmp_path):
    make, how, options, data = STREAMS[name]
    run = functools.partial(jg.fit, KEY, make(), algorithm=how, **options)
    straight = run(data=data(), steps=17)
    first = run(data=data(), steps=8, checkpoint=tmp_path, checkpoint_every=3)
    assert first.steps == 8
    same(run(data=data(), steps=17, checkpoint=tmp_path), straight)


def test_the_checkpoint_of_another_stream(tmp_path):
    run = functools.partial(jg.fit, KEY, mixture(), algorithm=jg.EM(), steps=2, checkpoint=tmp_path)
    run(data=Stream(X, chunk=88))
    for other in (Stream(X, chunk=50), Stream(X + 1, chunk=88), X):
        with pytest.raises(jg.FileError, match="its data differs"):
            run(data=other)
    with pytest.raises(jg.FileError, match="its validation differs"):
        run(data=Stream(X, chunk=88), validation=Stream(X, chunk=88))
    assert (tmp_path / files.FILE).exists()


def test_chunks_are_the_batches_of_other_algorithms():
    how = jg.Gradient(jg.losses.nll, optax.adam(0.05))
    chunks = list(Stream(X, chunk=88))
    streamed = jg.fit(KEY, mixture(), Stream(X, chunk=88), how, steps=9)
    by_hand = jg.fit(KEY, mixture(), itertools.cycle(chunks), how, steps=9)
    np.testing.assert_array_equal(streamed.history["loss"], by_hand.history["loss"])
    assert streamed.status is jg.Status.FINISHED
    fitted = jg.fit(KEY, mixture(), Stream(X, chunk=88), how, steps=12, validation=X[:50])
    assert fitted.history["validation_step"].tolist() == [7, 12], "an epoch is a pass"


# what a stream is


def test_a_stream_has_the_score_of_its_events():
    x, weight = np.arange(22.0).reshape(11, 2) / 10, np.arange(11.0)
    model = jg.DiagonalGaussian.from_values([1.0, 0.5], [1.0, 2.0])
    whole = jg.score(KEY, model, (x, None, weight))
    for source in ((x, None, weight), lambda: iter([(x[:7], None, weight[:7]), (x[7:], None, weight[7:])])):
        in_chunks = jg.score(KEY, model, jg.data.Stream(source, chunk=4))
        assert in_chunks.events == whole.events == 10
        np.testing.assert_allclose(in_chunks[:2], whole[:2], rtol=1e-12)  # both are sums of the same numbers in float64


def test_chunks_are_equal_and_the_last_is_filled_with_weight_0():
    batches = list(Stream(X, chunk=88))
    assert [b.x.shape for b in batches] == [(88, 2)] * 7, "of 611"
    x, weight = (np.concatenate([b[i] for b in batches]) for i in (0, 2))
    np.testing.assert_array_equal(x[weight > 0], X)
    assert weight.sum() == N and np.isfinite(x).all()
    assert next(iter(Stream(X[:5]))).x.shape == (5, 2), "no larger than the data"
    assert len(list(Stream(X, chunk=100))) == 7
    batches = list(Stream(pieces(X, 70), chunk=88))
    assert [b.x.shape for b in batches] == [(88, 2)] * 7
    np.testing.assert_array_equal(np.concatenate([b.x[b.weight > 0] for b in batches]), X)


def test_chunks_without_weight_are_left_out():
    weight = np.ones(N, np.float32)
    weight[88:176] = 0
    assert len(list(Stream((X, None, weight), chunk=88))) == 6
    close(
        jg.fit(KEY, mixture(), Stream((X, None, weight), chunk=88), steps=3, tolerance=0).model,
        jg.fit(KEY, mixture(), (X, None, weight), steps=3, tolerance=0).model, rtol=2e-5, atol=2e-6,
    )  # fmt: skip
    with pytest.raises(jg.DataError, match="all weights are 0"):
        list(Stream((X, None, 0 * weight)))


def test_head():
    for source in (X, pieces(X, 70)):
        stream = Stream(source, chunk=88)
        np.testing.assert_array_equal(stream.head(150).x, X[:150])
        np.testing.assert_array_equal(stream.head(10 * N).x, X)
        assert stream.head(3).weight is None


@pytest.mark.parametrize("source", [np.arange(50.0), pieces(np.arange(50.0), 7)])
def test_a_sample_is_fair_and_keyed(source):
    stream = Stream(source, chunk=8)
    draws = [stream.sample(key, 10).x for key in jax.random.split(KEY, 400)]
    assert all(len(set(x.tolist())) == 10 and (np.diff(x) > 0).all() for x in draws)
    times = np.bincount(np.concatenate(draws).astype(int), minlength=50)
    # each is in a fifth of 400 samples, 80 times with deviation 8; 4.5 of them are met once in 3000 suites
    assert abs(times - 80).max() < 36
    np.testing.assert_array_equal(stream.sample(KEY, 10).x, stream.sample(KEY, 10).x)
    assert len(stream.sample(KEY, 99).x) == 50


def test_a_sample_leaves_out_what_has_no_weight_and_reads_few_rows():
    def weighted():
        for i in range(0, N, 50):
            yield X[i : i + 50], None, WEIGHT[i : i + 50]

    for source in ((X, None, WEIGHT), weighted):
        drawn = Stream(source, chunk=88).sample(KEY, 10**6)
        np.testing.assert_array_equal(drawn.x, X[WEIGHT > 0])
        np.testing.assert_array_equal(drawn.weight, WEIGHT[WEIGHT > 0])
    start = jg.Mixture.init(KEY, Stream(X, chunk=88).sample(KEY, 200).x, 2, jg.DiagonalGaussian.init)
    np.testing.assert_allclose(np.sort(start.components.mean[:, 0]), [-3, 3], atol=0.3)


def test_a_maps_pages_are_given_back(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[0] = 7.0  # a change that only this process knows
    assert next(iter(Stream(mapped, chunk=88))).x[0].tolist() == [7.0, 7.0]
    assert mapped[0].tolist() == [7.0, 7.0]


# bad input



def test_sources_that_are_none(tmp_path):
    good = tmp_path / "good.npy"
    np.save(good, X)
    whole = good.read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    (tmp_path / "head.npy").write_bytes(whole[:20])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("1,2,3\n")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    refused(lambda: Stream(tmp_path / "god.npy"), "no such file", "did you mean 'good.npy'?", kind=jg.FileError)
    refused(lambda: Stream(tmp_path), "not a file", kind=jg.FileError)
    for name in ("cut", "head", "empty", "text", "objects"):
        refused(lambda name=name: Stream(tmp_path / f"{name}.npy"), "could not be read", kind=jg.FileError)
    for chunk in (0, -1, 2.5, True, None):
        refused(lambda chunk=chunk: Stream(X, chunk=chunk), "a chunk is a number of events", kind=jg.DataError)
    refused(lambda: Stream(X[:0]), "the source is empty", kind=jg.DataError)
    refused(lambda: Stream([]), "empty", kind=jg.DataError)
    refused(lambda: Stream(iter([X])), "read only once", "a function", kind=jg.DataError)
    refused(lambda: Stream(np.float32(3)), "leading axis", kind=jg.ShapeError)
    refused(lambda: Stream((X, None, WEIGHT[:5])), "one number of events", kind=jg.ShapeError)
    refused(lambda: Stream({"x": X, "y": X}), "y", kind=jg.DataError)
    refused(lambda: Stream(None), "no x", kind=jg.DataError)
    refused(lambda: Stream("x.txt"), "no such file", kind=jg.FileError)
    for n in (0, 2.5, True):
        refused(lambda n=n: Stream(X).head(n), "n is a number of events", kind=jg.DataError)
        refused(lambda n=n: Stream(X).sample(KEY, n), "n is a number of events", kind=jg.DataError)
    refused(lambda: Stream(X).sample(0, 3), "typed random key", kind=jg.DataError)


def test_functions_that_are_no_source():
    def changing():
        yield X
        yield X[:, :1]

    def parts():
        yield X
        yield X, None, WEIGHT

    spent = iter([X, X])
    fit = functools.partial(jg.fit, KEY, mixture())
    refused(lambda: fit(Stream(changing)), "piece 1", "x [1]", "another shape", kind=jg.ShapeError)
    refused(lambda: list(Stream(lambda: iter([X, X.astype(str)]))), "not numeric", kind=jg.DataError)
    refused(lambda: list(Stream(parts)), "piece 1", "weight", kind=jg.ShapeError)
    refused(lambda: fit(Stream(lambda: iter([]))), "the source is empty", kind=jg.DataError)
    refused(lambda: fit(Stream(lambda: 3)), "returns no iterator", kind=jg.DataError)
    refused(lambda: Stream(lambda: iter([])).head(3), "the source is empty", kind=jg.DataError)
    refused(lambda: Stream(lambda: iter([])).sample(KEY, 3), "the source is empty", kind=jg.DataError)
    refused(lambda: fit(Stream(lambda: spent)), "the same iterator again", kind=jg.DataError)


def test_every_chunk_passes_the_gate():
    x = X.copy()
    x[500] = np.nan
    fit = functools.partial(jg.fit, KEY, mixture())
    error = refused(lambda: fit(Stream(x, chunk=88)), "not finite", "NaN", kind=jg.DataError)
    assert "in chunk 5 (from 0)" in error.__notes__[0]
    refused(lambda: fit(Stream(x, chunk=88), jg.Gradient(), steps=9), "NaN", kind=jg.DataError)
    refused(lambda: fit(X, validation=Stream(x, chunk=88)), "NaN", kind=jg.DataError)
    refused(lambda: fit(Stream(X[:, :1])), "[*batch, 2]", kind=jg.ShapeError)
    refused(lambda: fit(Stream((X, None, -WEIGHT), chunk=88)), "non-negative", kind=jg.DataError)
    refused(lambda: fit(Stream((X, X), chunk=88)), "context", kind=jg.FitError)
    labels = LABELS.copy()
    labels[500] = 3
    refused(lambda: jg.fit(KEY, labels_mixture(), Stream(labels, chunk=88)), "from 0 to 2", kind=jg.DataError)


def test_missing_entries_stream_too():
    x = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X).astype(np.float32)
    means = np.float32([[-1.0, 0.0], [1.0, 0.0]])
    leaf = jg.DiagonalGaussian.from_values(means, np.ones((2, 2), np.float32), missing=True)
    start = jg.Mixture.from_components(leaf)
    whole = jg.fit(KEY, start, x, steps=5, tolerance=0)
    streamed = jg.fit(KEY, start, Stream(x, chunk=88), steps=5, tolerance=0)
    close(streamed.history, whole.history, rtol=2e-6)


def test_options_that_do_not_go_with_a_stream():
    fit = functools.partial(jg.fit, KEY, mixture(), Stream(X, chunk=88))
    refused(lambda: fit(batch_size=50), "Stream(source, chunk=50)", kind=jg.FitError)
    refused(lambda: fit(jg.StepwiseEM(), batch_size=50), "Stream(source, chunk=50)", kind=jg.FitError)
    refused(lambda: fit(jg.StepwiseEM(), tolerance=1e-3), "a tolerance needs all events", kind=jg.FitError)
