"""Checkpoints: a fit that was cut goes on bit for bit, and never from another fit's folder."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.errors import FileError
from jaxgen.core.methods import per_event, per_sample
from jaxgen.core.pytree import fixed, model, static
from jaxgen.fit import checkpoint as files

KEY = jax.random.key(5)
X = np.random.default_rng(1).normal(1.0, 2.0, (48, 2)).astype(np.float32)


@model
class Curved:
    """A density with a function among its fields, whose address differs from process to process."""

    mean: jax.Array
    center: jax.Array = fixed()
    curve: object = static(default=jax.nn.softplus)
    event_shape = (2,)

    @per_event
    def log_prob(self, x):
        return -jnp.sum(self.curve((x - self.center - self.mean) ** 2))

    @per_sample
    def sample(self, key):
        return self.center + self.mean + jax.random.normal(key, (2,))


def noisy(key, model, batch, step):
    return jg.losses.nll(key, model, batch) + 0.1 * jax.random.normal(key) * model.mean.sum()


def curved():
    return Curved(jnp.float32([3.0, -3.0]), jnp.float32([0.1, 0.2]))


def how(rate=0.01):
    schedule = optax.exponential_decay(rate, 100, 0.5)
    return jg.Gradient(noisy, optax.chain(optax.clip(1.0), optax.adam(schedule)), average=jg.Average(0.9))


OPTIONS = {"batch_size": 8, "validation": X[:5] + 1, "every": 25}
STEPS = 1500


def run(folder=None, steps=200, every=1000, **options):
    """The fit of this file; a process of its own calls it too."""
    options = OPTIONS | {"checkpoint": folder, "checkpoint_every": every} | options
    return jg.fit(KEY, curved(), X, how(), steps=steps, **options)


def same(a, b):
    assert a.status is b.status
    assert a.steps == b.steps
    for x, y in ((a.model, b.model), (a.state, b.state), (a.history, b.history), (a.scores, b.scores)):
        assert jax.tree.structure(x) == jax.tree.structure(y)
        for u, v in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            np.testing.assert_array_equal(u, v)
            assert u.dtype == v.dtype


def mixture():
    means = np.float32([[-1.0, 0.0], [1.0, 0.0]])
    return jg.Mixture.from_components(jg.DiagonalGaussian.from_values(means, np.ones((2, 2), np.float32)))


def restart(key):
    return Curved(jax.random.normal(key, (2,)), jnp.zeros(2))


AT_START = np.float32([[3.1, -2.8]] * 5)  # the start is best on these, and every step leads away from them

WAYS = {
    "em": lambda folder, steps: jg.fit(KEY, mixture(), X, steps=steps, tolerance=0, checkpoint=folder),
    "gradient": run,
    "the best before the cut": lambda folder, steps: run(folder, steps, validation=AT_START),
    "restarts": lambda folder, steps: jg.fit(
        KEY, restart, X, how(), steps=steps, restarts=3, checkpoint=folder, checkpoint_every=30, **OPTIONS
    ),
    "stream": lambda folder, steps: jg.fit(
        KEY, curved(), (X[i % 40 : i % 40 + 8] for i in range(10**6)), how(), steps=steps, checkpoint=folder
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_200_steps_are_100_and_100_more(name, tmp_path):
    way = WAYS[name]
    straight = way(None, 200)
    first = way(tmp_path, 100)
    assert first.steps == 100
    assert os.listdir(tmp_path) == [files.FILE]
    same(way(tmp_path, 200), straight)


def test_saving_changes_nothing(tmp_path):
    straight = run()
    same(run(tmp_path / "a" / "new" / "folder", every=7), straight)
    same(run(tmp_path / "a" / "new" / "folder", every=30), straight)  # resumed at the end


def test_a_fit_that_ended_for_a_reason_stays_ended(tmp_path):
    def fit(steps, folder):
        return jg.fit(KEY, mixture(), X, steps=steps, tolerance=1e-2, checkpoint=folder)

    first = fit(50, tmp_path)
    assert first.status is jg.Status.CONVERGED
    again = fit(500, tmp_path)
    same(first, again)
    options = {"validation": AT_START, "patience": 1, "steps": STEPS}
    patient = run(tmp_path / "patience", **options)
    assert patient.status is jg.Status.PATIENCE
    same(run(tmp_path / "patience", **options), patient)


def test_a_schedule_that_was_called_is_the_schedule(tmp_path):
    """optax's cosine makes a float of its number of steps when it is first called, which a second fit does not do."""
    adam = jg.Gradient(jg.losses.nll, optax.adam(optax.cosine_decay_schedule(1e-2, 40)))
    first = jg.fit(KEY, curved(), X, adam, steps=20, checkpoint=tmp_path)
    again = jg.fit(KEY, curved(), X, adam, steps=40, checkpoint=tmp_path)
    assert (first.steps, again.steps) == (20, 40)
    other = jg.Gradient(jg.losses.nll, optax.adam(optax.cosine_decay_schedule(1e-2, 41)))
    refused(lambda: jg.fit(KEY, curved(), X, other, steps=40, checkpoint=tmp_path), "algorithm's functions differs")


def test_fewer_steps_than_were_made(tmp_path):
    first = run(tmp_path)
    assert run(tmp_path, steps=50).steps == first.steps


@pytest.mark.timeout(120)
def test_killed_at_any_moment(tmp_path):
    folder, draw = tmp_path / "fit", random.Random(0)
    code = f"import test_checkpoint as t; t.run({str(folder)!r}, steps=t.STEPS, every=1); print('done')"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path])
    made = 0
    for _ in range(2):
        before = os.stat(folder / files.FILE).st_mtime_ns if made else 0
        process = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
        )
        while process.poll() is None and (
            not (folder / files.FILE).exists() or os.stat(folder / files.FILE).st_mtime_ns == before
        ):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert "done" not in process.communicate()[0], "killed before its end"
        arrays, _ = files.files.read_arrays(folder / files.FILE)  # whole, whatever the moment
        assert (steps := int(arrays["000000"])) > made
        made = steps
    same(run(folder, steps=STEPS), run(steps=STEPS))


# refusals


def refused(call, *says):
    with pytest.raises(FileError) as caught:
        call()
    text = str(caught.value)
    for part in ("called:", "expected:", "got:", *says):
        assert part in text, text


FOREIGN = {
    "key": lambda folder: jg.fit(jax.random.key(6), curved(), X, how(), checkpoint=folder, **OPTIONS),
    "start": lambda folder: jg.fit(
        KEY, Curved(jnp.zeros(2), curved().center), X, how(), checkpoint=folder, **OPTIONS
    ),
    "model": lambda folder: jg.fit(KEY, mixture(), X, jg.Gradient(), checkpoint=folder, **OPTIONS),
    "data": lambda folder: jg.fit(KEY, curved(), X + 1, how(), checkpoint=folder, **OPTIONS),
    "validation": lambda folder: run(folder, validation=X[:6]),
    "batch_size": lambda folder: run(folder, batch_size=4),
    "average": lambda folder: jg.fit(
        KEY, curved(), X, jg.Gradient(noisy, how().optimizer, average=jg.Average(0.8)), checkpoint=folder, **OPTIONS
    ),
    "restarts": lambda folder: jg.fit(
        KEY, lambda key: curved(), X, how(), restarts=2, checkpoint=folder, **OPTIONS
    ),
    "algorithm's functions": lambda folder: jg.fit(
        KEY, curved(), X, how(rate=0.02), checkpoint=folder, **OPTIONS
    ),
}


def test_the_folder_of_another_fit(tmp_path):
    run(tmp_path, steps=3)
    before = (tmp_path / files.FILE).read_bytes()
    for name, fit in FOREIGN.items():
        says = {"restarts": [], "average": ["its algorithm's functions differs"]}.get(name, [f"its {name} differs"])
        refused(lambda fit=fit: fit(tmp_path), "a folder of its own", str(tmp_path), *says)
    another = jg.Gradient(jg.losses.nll, how().optimizer, average=jg.Average(0.9))
    refused(lambda: jg.fit(KEY, curved(), X, another, checkpoint=tmp_path, **OPTIONS), "algorithm's functions differs")
    refused(lambda: jg.fit(KEY, curved(), iter([X]), how(), checkpoint=tmp_path), "its data differs")
    assert (tmp_path / files.FILE).read_bytes() == before, "and it is left as it was"
    run(tmp_path, steps=3)


def test_another_static_option_is_another_model(tmp_path):
    run(tmp_path, steps=3)
    other = Curved(curved().mean, curved().center, jax.nn.relu)
    refused(lambda: jg.fit(KEY, other, X, how(), checkpoint=tmp_path, **OPTIONS))


def test_damaged_checkpoints(tmp_path):
    run(tmp_path, steps=3)
    file = tmp_path / files.FILE
    whole = file.read_bytes()
    draw = random.Random(0)
    for cut in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        refused(lambda: run(tmp_path), "damaged or foreign")
    for place in draw.sample(range(len(whole) // 2, len(whole)), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        refused(lambda: run(tmp_path))
    file.unlink()
    jg.save(mixture(), file)
    refused(lambda: run(tmp_path), "another fit")
    file.unlink()
    file.mkdir()
    refused(lambda: run(tmp_path), "a folder")


def test_hostile_checkpoints(tmp_path):
    """The arrays and the mark of this fit, in another form."""
    run(tmp_path, steps=3)
    file = tmp_path / files.FILE
    arrays, description = files.files.read_arrays(file)
    changes = [lambda a, d: a.popitem(), lambda a, d: a.update(extra=np.ones(1)), lambda a, d: d.pop("tree"),
               lambda a, d: d.pop("fit"), lambda a, d: d.update(fit=[]), lambda a, d: d.update(tree="*")]  # fmt: skip
    changes += [lambda a, d, name=name: a.update({name: np.ones((7, 7), np.float32)}) for name in arrays]
    for change in changes:
        ours, theirs = dict(arrays), dict(description)
        change(ours, theirs)
        files.files.write_arrays(file, ours, theirs)
        refused(lambda: run(tmp_path))
    files.files.write_arrays(file, arrays, [description])
    refused(lambda: run(tmp_path))


def test_a_folder_that_cannot_be_is_told_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    seen = []

    def loss(key, model, batch, step):
        jax.debug.callback(lambda: seen.append(1))
        return jg.losses.nll(key, model, batch)

    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        refused(lambda folder=folder: jg.fit(KEY, curved(), X, jg.Gradient(loss), steps=3, checkpoint=folder), "file")
    assert not seen


def test_describing_a_model_leaves_addresses_out():
    text = files._structure(curved()) + str(files.fingerprint(KEY, curved(), X, None, how(), None, None))
    assert "0x" not in text.replace("0x0", "")
