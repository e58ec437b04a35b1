"""Fits on the devices of one CPU, in a process of their own: `test_mesh.py` runs parts of it, by their names."""

import re
import sys
import traceback

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import (  # noqa: E402
    AxisType,
    NamedSharding,
    PartitionSpec as P,  # noqa: E402
)

import jaxgen as jg  # noqa: E402
from jaxgen.fit import feeds  # noqa: E402
from jaxgen.fit.gate import Gate  # noqa: E402
from jaxgen.fit.mesh import shards_of  # noqa: E402
from jaxgen.nn.mlp import MLP  # noqa: E402

KEY = jax.random.key(0)
R = np.random.default_rng(0)
X = np.concatenate([R.normal(size=(100, 2)), 5 + R.normal(size=(101, 2))]).astype(np.float32)
BITS = (R.random((48, 6)) < 0.3).astype(np.int32)
START = jg.Mixture.init(KEY, X, 3, jg.Gaussian.init)
FITS = {
    "em": (START, X, jg.EM(), {"tolerance": 0.0}, 1),
    "stepwise": (START, X, jg.StepwiseEM(), {"batch_size": 40}, 1),
    "gradient": (jg.DiagonalGaussian.from_values(np.zeros(2), np.ones(2)), X, jg.Gradient(jg.losses.nll,
                 optax.adam(0.01)), {"batch_size": 40}, 1),
    "energy": (jg.RBM.init(KEY, BITS, 3), BITS, jg.ContrastiveDivergence(chains=24), {"batch_size": 24}, 1),
    # the critic's update comes before the generator's
    "game": (jg.Generator.init(KEY, X, jg.StandardNormal((2,)), hidden=(4,)), X, jg.Adversarial(MLP((4, 1))),
             {"batch_size": 40}, 2),
}  # fmt: skip
ADVANCE = feeds.advance_chunk


def mesh(n, kind=AxisType.Auto, names=("data",)):
    return jax.make_mesh((n,) + (1,) * (len(names) - 1), names, devices=jax.devices()[:n],
                         axis_types=(kind,) * len(names))  # fmt: skip


def printed(fitted):
    """The digits that a table would show."""
    values = [fitted.history[name][-1] for name in sorted(fitted.history) if name != "repaired"]
    values += [jnp.sum(leaf) for leaf in jax.tree.leaves(fitted.model)]
    return np.round(np.asarray([float(v) for v in values]), 3) + 0.0


def collectives(text):
    """Kinds of what is sent between devices in the body of the loop of steps."""
    body = [line for line in text.splitlines() if "while/body" in line]
    return re.findall(r" = .*?\b(all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\(",
                      "\n".join(body))  # fmt: skip


def method(name):
    advance, texts = ADVANCE, []

    def spy(*args):
        if not texts:
            texts.append(advance.lower(*args).compile().as_text())
        return advance(*args)

    model, data, how, options, count = FITS[name]
    alone = printed(jg.fit(KEY, model, data, how, steps=6, **options))
    for n in (2, 4):
        texts.clear()
        feeds.advance_chunk = spy if n == 4 else advance
        fitted = jg.fit(KEY, model, data, how, steps=6, mesh=mesh(n), **options)
        np.testing.assert_allclose(printed(fitted), alone, atol=1.1e-3, err_msg=f"{name} on {n}")
    assert collectives(texts[0]) == ["all-reduce"] * count, (name, collectives(texts[0]))


def places():
    alone = printed(jg.fit(KEY, START, X, steps=6, tolerance=0))
    same = lambda fitted: np.testing.assert_allclose(printed(fitted), alone, atol=1.1e-3)  # noqa: E731
    explicit = mesh(2, AxisType.Explicit, ("rows", "other"))
    with jax.set_mesh(explicit):
        fitted = jg.fit(KEY, START, X, steps=6, tolerance=0)
        assert jax.tree.leaves(fitted.model)[0].sharding == NamedSharding(explicit, P()), "on the mesh of the program"
    same(fitted)
    given = jg.fit(KEY, START, X, steps=6, tolerance=0, mesh=explicit)
    same(given)
    assert given.model.sample(KEY, (2,)).shape == (2, *X.shape[1:]), "a model of a mesh is like any other"
    assert jax.sharding.get_mesh().empty
    # data that lie on devices stay there: half on each
    there = NamedSharding(mesh(2), P("data"))
    data = jax.device_put(X[:200], there)
    before = printed(jg.fit(KEY, START, X[:200], steps=6, tolerance=0))
    np.testing.assert_allclose(printed(jg.fit(KEY, START, data, steps=6, tolerance=0)), before, atol=1.1e-3)
    feed = feeds.Arrays(data, Gate(START, jg.EM()), None, shards_of(None, data))
    assert feed.batch.x.sharding == there and feed.batch.weight is None
    model, _, how, options, _ = FITS["gradient"]
    cut = jg.fit(KEY, model, data, how, steps=6, **options)
    np.testing.assert_allclose(printed(cut), printed(jg.fit(KEY, model, X[:200], how, steps=6, **options)), atol=1.1e-3)
    # streams, restarts, validation, stepwise EM, and the pure form
    two = mesh(2)
    same(jg.fit(KEY, START, jg.data.Stream(X, chunk=70), steps=6, tolerance=0, mesh=two))
    begin = lambda key: jg.Mixture.init(key, X, 2, jg.StudentT.init)  # noqa: E731
    both = [jg.fit(KEY, begin, X, restarts=2, validation=X[:51], steps=4, mesh=m) for m in (None, two)]
    np.testing.assert_allclose(both[0].scores, both[1].scores, rtol=1e-4)
    both = [jg.fit(KEY, START, X, jg.StepwiseEM(), steps=2, batch_size=50, mesh=m) for m in (None, two)]
    np.testing.assert_allclose(printed(both[0]), printed(both[1]), atol=1.1e-3)
    with jax.set_mesh(two):
        scanned = jax.jit(lambda: jg.scan_fit(KEY, START, X, steps=6))()
    np.testing.assert_allclose(scanned.history["log_likelihood"][-1], alone[0], atol=1.1e-3)


def second():
    """The second fit compiles nothing."""
    model, data, how, options, _ = FITS["gradient"]
    fit = lambda: [jg.fit(KEY, START, X, steps=300, tolerance=0, mesh=mesh(2)),  # noqa: E731
                   jg.fit(KEY, model, data, how, steps=300, mesh=mesh(2), **options)]  # fmt: skip
    fit()
    count = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: count.append(name))
    fit()
    assert not [name for name in count if "backend_compile" in name], count


for part in sys.argv[1:]:
    try:
        method(part) if part in FITS else {"places": places, "second": second}[part]()
        print(f"{part} is fine")
    except Exception:
        print(f"in {part}:", traceback.format_exc(), file=sys.stderr)
    finally:
        feeds.advance_chunk = ADVANCE
