"""What a first call waits for: few programs, of which the rare paths are compiled where a step needs one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fits import KEY, compilations

import jaxgen as jg
from jaxgen.core import compiled
from jaxgen.core.compiled import compiled_once
from jaxgen.core.rare import rarely, rarely_kept, without_rare_paths
from jaxgen.fit.loop import Loop, Status

DRAW = np.random.default_rng(5)
X = np.concatenate([DRAW.normal(-3, 1, (37, 2)), DRAW.normal(3, 0.5, (36, 2))]).astype(np.float32)


@pytest.mark.parametrize(
    ("start", "x", "bound"),
    [
        # a start, the columns of the events, the first state, the steps; and the split of a key
        (lambda x: jg.Mixture.init(KEY, x, 2, jg.Gaussian.init), X, 5),
        # also the rows of the steps, and two shapes of probabilities, which go to the device and into logarithms
        (lambda x: jg.HMM.init(KEY, x, 2, jg.Gaussian.init), X[:72].reshape(4, 18, 2), 10),
    ],
    ids=["mixture", "HMM"],
)
def test_programs_of_a_first_fit_are_few(start, x, bound):
    compiled_once()(lambda x: x)(jnp.ones(1))  # which options this XLA refuses is found once a process
    jax.clear_caches()
    count, fitted = compilations(lambda: jg.fit(KEY, start(x), x, steps=3, tolerance=0.0))
    assert fitted.status == Status.FINISHED
    assert count <= bound


@pytest.mark.parametrize("options", [{}, {"restarts": 2}], ids=["one", "restarts"])
def test_a_step_is_traced_once(options, monkeypatch):
    """Its start asks which metrics a step reports, and the loop makes it: both by one trace."""
    traced, step = [], jg.EM.step
    monkeypatch.setattr(jg.EM, "step", lambda *args: traced.append(1) or step(*args))
    jax.clear_caches()
    start = lambda key: jg.Mixture.init(key, X, 2, jg.Gaussian.init)  # noqa: E731
    jg.fit(KEY, start if options else start(KEY), X, steps=3, tolerance=0.0, **options)
    assert len(traced) == 1


def dependent():
    """A column that is a multiple of another: after one step a covariance has to be raised to its floor."""
    x = np.column_stack([X, 2 * X[:, 0]])
    model = jg.Gaussian.from_values(np.zeros((1, 3), np.float32), np.eye(3, dtype=np.float32)[None], floor=1e-6)
    return jg.Mixture.from_components(model), x


def test_a_fit_takes_a_rare_path_where_a_step_needs_it():
    model, x = dependent()
    with pytest.warns(jg.JaxgenWarning, match="repaired"):
        fitted = jg.fit(KEY, model, x, steps=4, tolerance=0.0)
    whole = jg.scan_fit(KEY, model, x, steps=4)
    assert fitted.status == Status.FINISHED
    assert (fitted.history["repaired"] > 0).any()
    for name, values in whole.history.items():
        # the same operations in two programs, which a compiler may round in the last place
        np.testing.assert_allclose(fitted.history[name], values, rtol=2e-6, err_msg=name)


def test_a_program_without_rare_paths_stops_before_the_step_that_needs_one():
    model, x = dependent()
    loop = Loop(jg.EM(), None, KEY)
    batch = jg.core.inputs.as_batch(x, called="")

    @jax.jit
    def two(carry):
        return loop.steps(carry, lambda step, order: (batch, order), 2, 2)[0]

    begun = loop.start(model, batch, None)
    with without_rare_paths():
        stopped = two(begun)
    assert bool(stopped.rare)
    assert int(stopped.status) == Status.RUNNING
    made = int(stopped.step)
    np.testing.assert_array_equal(stopped.state.model.components.mean, begun.state.model.components.mean if made == 0
                                  else loop.steps(begun, lambda s, o: (batch, o), made)[0].state.model.components.mean)
    assert int(two(begun).step) == 2


@pytest.mark.parametrize("way", [rarely, rarely_kept])
def test_results_without_a_rare_path_are_no_numbers(way):
    @jax.jit
    def roots(x):
        usual = jnp.sqrt(x)
        return way(x < 0, lambda: jnp.sqrt(jnp.abs(x)), (lambda: usual) if way is rarely else usual)

    x = jnp.array([4.0, -9.0])
    assert jax.vmap(roots)(x).tolist() == [2.0, 3.0]
    with without_rare_paths():
        np.testing.assert_array_equal(jax.vmap(roots)(x), [2.0, np.nan])


def test_what_is_compiled_once_is_the_same_everywhere():
    shares = compiled_once(static_argnames=("k",))(lambda x, k: jax.nn.softmax(x[:k]) @ x[:k])
    x = jnp.arange(6.0).reshape(2, 3)
    expected = [float(np.exp(r) @ r / np.exp(r).sum()) for r in np.arange(6.0).reshape(2, 3)]
    inside = jax.jit(lambda x: jnp.stack([shares(row, k=3) for row in x]))(x)
    # roundings of float32, a few of them
    for found in (jnp.stack([shares(row, k=3) for row in x]), jax.vmap(lambda row: shares(row, k=3))(x), inside):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    scaled = lambda s: compiled_once()(lambda x: s * x.sum())(x)  # noqa: E731
    assert float(jax.grad(scaled)(2.0)) == 15.0, "and what closes over a differentiated value"


def test_an_option_that_xla_does_not_know_is_asked_for_once(monkeypatch):
    """Later versions have other options: what is left is used, and no call pays for a refusal again."""
    monkeypatch.setattr(compiled, "_UNKNOWN", set())
    monkeypatch.setitem(compiled.AS_IT_STANDS, "xla_no_such_option", True)
    double = compiled_once()(lambda x: 2 * x)
    assert double(jnp.ones(3)).tolist() == [2.0] * 3
    assert "xla_no_such_option" in compiled._UNKNOWN
    assert compilations(lambda: double(jnp.zeros(3)))[0] == 0
