"""Events shared between devices: two of one CPU, in a process of their own."""

import subprocess
import sys

import jax
import pytest

import jaxgen as jg
from jaxgen.core.errors import FitError

SCRIPT = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp, numpy as np, jaxgen as jg

rng = np.random.default_rng(0)
x = np.concatenate([rng.normal(size=(500, 2)), 5 + rng.normal(size=(501, 2))]).astype(np.float32)
weight = rng.integers(0, 3, len(x)).astype(np.float32)
key, shared = jax.random.key(0), jg.EM(devices=jax.devices())


def same(one, two, tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


# columns, components without them, weights, labels, restarts; the same numbers up to rounding
told = dict(x=x, weight=weight, label=np.where(x[:, 0] > 5, 1, -1))
for leaf, data in ((jg.StudentT.init, x), (jg.Gaussian.init, told)):
    start = jg.Mixture.init(key, x, 3, leaf)
    alone, both = (jg.fit(key, start, data, one, steps=8, tolerance=0.0) for one in (jg.EM(), shared))
    same(alone.history["log_likelihood"], both.history["log_likelihood"], 1e-5)
    same(alone.model, both.model, 1e-3)
begin = lambda key: jg.Mixture.init(key, x, 2, jg.Gaussian.init)
alone, both = (jg.fit(key, begin, x, one, restarts=3, validation=x[:101], steps=8) for one in (jg.EM(), shared))
same(alone.scores, both.scores, 1e-5)
assert both.model.log_prob(x).shape == (1001,)

# half of the events on each, and a second fit compiles nothing
columns = jax.jit(lambda m, x: shared.prepare(m, jg.Batch(x)).x.columns)(start, x)
assert sorted(shard.data.shape for shard in columns.addressable_shards) == [(5, 501), (5, 501)]
fit = lambda: jg.fit(key, start, x, shared, steps=300, tolerance=0.0)
fit()
count = []
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: count.append(name))
fit()
assert not [name for name in count if "compile" in name], count
print("fine")
"""


def test_two_devices_sum_as_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout.strip() == "fine", done.stderr[-3000:]


@pytest.mark.parametrize("devices", [2, (), (1, 2), jax.devices() * 2])
def test_what_are_no_devices(devices):
    model = jg.Mixture.init(jax.random.key(0), [[0.0], [1.0]], 1, jg.Gaussian.init)
    with pytest.raises(FitError, match="devices"):
        jg.fit(jax.random.key(0), model, [[0.0], [1.0]], jg.EM(devices=devices), steps=1)
