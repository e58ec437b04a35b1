"""Events on a mesh: four devices of one CPU, in processes of their own, and what cannot be shared."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from fits import KEY, X, adam, gaussian

import jaxgen as jg
from jaxgen.core import mesh as shares
from jaxgen.fit.mesh import Shards, check_shares

SCRIPT = pathlib.Path(__file__).parent / "mesh_script.py"


#: the parts of the script, some in one process: imports and data take a process longer than most parts do
PROCESSES = (("em", "stepwise", "second"), ("gradient", "energy", "game"), ("places",))


@functools.cache
def ran(parts):
    path = os.pathsep.join([str(SCRIPT.parent.parent), *sys.path])
    return subprocess.run([sys.executable, str(SCRIPT), *parts], capture_output=True, text=True, timeout=110,
                          check=False, env={**os.environ, "PYTHONPATH": path})  # fmt: skip


@pytest.mark.parametrize(("part", "parts"), [(part, parts) for parts in PROCESSES for part in parts])
def test_many_devices_are_as_one(part, parts):
    done = ran(parts)
    assert f"{part} is fine" in done.stdout.splitlines(), done.stderr[-3000:]


def test_what_is_no_mesh():
    for wrong in (2, (), jax.devices()):
        with pytest.raises(jg.FitError, match="no mesh") as caught:
            jg.fit(KEY, gaussian(), X, adam(), steps=1, mesh=wrong)
        assert "jax.make_mesh" in str(caught.value)


def test_a_mesh_of_one_device_is_none():
    one = jax.make_mesh((1,), ("data",))
    fitted = jg.fit(KEY, gaussian(), X, adam(), steps=3, mesh=one)
    np.testing.assert_array_equal(fitted.model.offset, jg.fit(KEY, gaussian(), X, adam(), steps=3).model.offset)


class Three(Shards):
    @property
    def count(self):
        return 3


def test_events_that_cannot_be_shared():
    with pytest.raises(jg.FitError, match="cannot be shared evenly by 3 devices") as caught:
        check_shares(100, Three(), "the events of a step", "batch_size=99")
    assert caught.value.fix == "batch_size=99"
    batch = jg.Batch(X[:7], None, None, np.arange(7))
    full = shares.filled(batch, 3)
    assert full.events == 9 and full.weight.tolist() == [1.0] * 7 + [0.0] * 2
    np.testing.assert_array_equal(full.x[7:], X[[6, 6]])
    weighted = shares.filled(batch._replace(weight=np.full(7, 2.0)), 3)
    assert weighted.weight.tolist() == [2.0] * 7 + [0.0] * 2
    assert shares.filled(batch, 7) is batch
