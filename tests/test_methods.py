"""Checked methods: shapes, contexts, keys, lengths, and one compilation per shape."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen as jg
from jaxgen.core.errors import DataError, FitError, JaxgenError, ShapeError
from jaxgen.core.methods import batch_axes, per_batch, per_event, per_latent, per_sample, weighted_events
from jaxgen.core.pytree import model, static

TRACES = []


@model
class Plain:
    """Events `[2]`, no context."""

    mean: jax.Array
    power: int = static(default=2)
    event_shape = (2,)

    @per_event
    def log_prob(self, x):
        TRACES.append("log_prob")
        return -jnp.sum((x - self.mean) ** self.power)

    @per_event
    def encode(self, x, *, scale=1, negate=False):
        TRACES.append("encode")
        return {"code": x * scale * (-1 if negate else 1), "norm": jnp.sum(x)}

    @per_event
    def elbo(self, key, x, *, draws=1):
        return jnp.sum(jax.random.normal(key, (draws,)))

    @per_sample
    def sample(self, key):
        TRACES.append("sample")
        return self.mean + jax.random.normal(key, (2,))

    @per_batch
    def rank(self, x, context):
        assert context is None
        return jnp.argsort(jnp.argsort(x[:, 0]))

    @weighted_events
    def e_step(self, x, weight):
        return {"sum": weight @ x}, -jnp.sum(x, axis=1)


@model
class Conditional:
    """Events are numbers, a context is `[3]`."""

    weight: jax.Array
    event_shape = ()
    context_shape = (3,)

    @per_event
    def log_prob(self, x, context):
        return x + self.weight @ context

    @per_event
    def ignore(self, x):
        return x

    @per_sample
    def sample(self, key, context):
        return jax.random.normal(key) + self.weight @ context

    @per_batch
    def total(self, x, context):
        return x + jnp.sum(context, axis=-1)


@model
class Sequence:
    """Events `[length, 2]` of free length."""

    mean: jax.Array
    event_shape = (None, 2)

    @per_event
    def log_prob(self, x):
        return jnp.sum(x - self.mean)

    @per_sample
    def sample(self, key, length):
        return self.mean + jax.random.normal(key, (length, 2))


plain, conditional, sequence = Plain(jnp.ones(2)), Conditional(jnp.arange(3.0)), Sequence(jnp.zeros(2))
KEY = jax.random.key(7)
X = jnp.arange(24.0).reshape(4, 3, 2)
CONTEXT = jnp.arange(12.0).reshape(4, 3)


def refused(kind, function, *says):
    with pytest.raises(kind) as caught:
        function()
    text = str(caught.value)
    assert isinstance(caught.value, JaxgenError)
    for row in ("called", "expected", "got"):
        assert re.search(rf"^  {row}: +\S", text, re.M), text
    for part in says:
        assert part in text, text


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 3), (2, 1, 2)])
def test_leading_axes_are_a_batch(shape):
    x = jnp.arange(2.0 * np.prod(shape, dtype=int)).reshape(*shape, 2)
    got = plain.log_prob(x)
    assert got.shape == shape
    np.testing.assert_allclose(got, -np.sum((np.asarray(x) - 1) ** 2, axis=-1))
    code = plain.encode(x)
    assert code["code"].shape == (*shape, 2)
    assert code["norm"].shape == shape
    assert plain.rank(x).shape == shape
    assert plain.sample(KEY, shape).shape == (*shape, 2)
    assert plain.elbo(KEY, x).shape == shape


@pytest.mark.parametrize("shape", [(), (2,), (4, 3), (1, 2, 3), (2, 0), (2, 2, 2, 1)])
def test_wrong_events_are_refused(shape):
    if shape == (2,) or shape[-1:] == (2,):
        return
    x = np.ones(shape)
    kind = DataError if x.size == 0 else ShapeError
    for method in (plain.log_prob, plain.rank, plain.e_step):
        refused(kind, lambda method=method: method(x), "Plain." if x.size else "empty")
        refused(kind, lambda method=method: method(jnp.asarray(x)))


def test_errors_name_the_method_and_the_shapes():
    says = ("Plain.log_prob", "[*batch, 2]", "[4, 3]", "reshape x")
    refused(ShapeError, lambda: plain.log_prob(jnp.ones((4, 3))), *says)
    refused(ShapeError, lambda: Scalar1().log_prob(jnp.ones(4)), "Scalar1.log_prob", "np.asarray(x)[..., None]")


@model
class Scalar1:
    event_shape = (1,)

    @per_event
    def log_prob(self, x):
        return x[0]


@pytest.mark.parametrize(
    ("x", "says"),
    [("ab", "not numeric"), ([[1.0, np.inf]], "infinite"), ([[1, 2], [3]], "ragged"), (None, "NoneType"),
     (jnp.ones((3, 2), jnp.complex64), "complex"), (KEY, "PRNG key"), (jnp.ones((0, 2)), "empty"), ([], "empty")],
)  # fmt: skip
def test_what_is_not_data_is_refused(x, says):
    for method in (plain.log_prob, plain.rank, plain.e_step, lambda x: plain.elbo(KEY, x)):
        refused(DataError, lambda method=method: method(x), says, "called:   Plain.")


def test_nan_in_gives_nan_out():
    got = jax.jit(plain.log_prob)(jnp.array([[np.nan, 0.0], [1.0, 1.0]]))
    assert np.isnan(got[0])
    assert got[1] == 0


def test_lists_numpy_and_integers_are_events():
    rows = [[1, 2], [3, 4]]
    for x in (rows, np.array(rows), np.array(rows, np.uint8), jnp.array(rows), jnp.array(rows, jnp.bfloat16)):
        np.testing.assert_allclose(plain.log_prob(x), [-1.0, -13.0])


def test_free_length():
    assert sequence.log_prob(jnp.ones((5, 7, 2))).shape == (5,)
    assert sequence.log_prob(jnp.ones((7, 2))).shape == ()
    assert sequence.sample(KEY, (4,), length=5).shape == (4, 5, 2)
    assert sequence.sample(KEY, length=np.int64(5)).shape == (5, 2)
    refused(ShapeError, lambda: sequence.log_prob(jnp.ones(2)), "[*batch, length, 2]")
    refused(DataError, lambda: sequence.log_prob(jnp.ones((5, 0, 2))), "empty")
    for length in (None, 0, -1, 1.5, "5"):
        refused(ShapeError, lambda length=length: sequence.sample(KEY, length=length), "length=, a positive int")
    refused(ShapeError, lambda: plain.sample(KEY, length=3), "no length", "length=3")


@pytest.mark.parametrize("shape", [-1, 1.5, (2, -1), (2, None), "3", None, (2.0,), [[2]]])
def test_sample_shapes_are_counts(shape):
    refused(ShapeError, lambda: plain.sample(KEY, shape), "Plain.sample", "number of events")


@pytest.mark.parametrize("shape", [0, (0,), (2, 0)])
def test_no_samples_are_no_error(shape):
    assert plain.sample(KEY, shape).shape == (*np.atleast_1d(shape), 2)


def test_sample_takes_a_number_a_list_or_a_tuple():
    one = plain.sample(KEY, 3)
    for shape in ((3,), [3], np.int32(3), (np.int64(3),)):
        np.testing.assert_array_equal(plain.sample(KEY, shape), one)
    assert len(np.unique(one)) == 6, "samples are independent"


def test_context_per_event_or_shared():
    x = jnp.arange(4.0)
    expected = x + CONTEXT @ jnp.arange(3.0)
    np.testing.assert_allclose(conditional.log_prob(x, context=CONTEXT), expected)
    np.testing.assert_allclose(conditional.log_prob(x, context=CONTEXT[1]), x + expected[1] - x[1])
    np.testing.assert_allclose(conditional.log_prob(2.0, context=CONTEXT[1]), 2.0 + expected[1] - x[1])
    np.testing.assert_allclose(
        conditional.log_prob(x.reshape(2, 2), context=CONTEXT.reshape(2, 2, 3)), expected.reshape(2, 2)
    )
    np.testing.assert_allclose(conditional.total(x, context=CONTEXT), x + CONTEXT.sum(1))
    np.testing.assert_allclose(conditional.total(x, context=[1.0, 2.0, 3.0]), x + 6)
    np.testing.assert_allclose(conditional.ignore(x, context=CONTEXT), x)
    assert conditional.sample(KEY, 4, context=CONTEXT).shape == (4,)
    assert conditional.sample(KEY, (2, 5), context=CONTEXT[0]).shape == (2, 5)
    noise = conditional.sample(KEY, 4, context=jnp.zeros(3))
    np.testing.assert_allclose(conditional.sample(KEY, 4, context=CONTEXT) - noise, expected - x, rtol=1e-5)


def test_contexts_that_do_not_fit():
    x = jnp.ones(4)
    for method in (conditional.log_prob, conditional.total, conditional.ignore):
        refused(ShapeError, lambda method=method: method(x), "context=[*batch, 3]", "none")
        refused(ShapeError, lambda method=method: method(x, context=CONTEXT[:3]), "[4] or none", "[3]")
        refused(ShapeError, lambda method=method: method(x, context=CONTEXT[:1]), "[4] or none", "[1]")
        refused(ShapeError, lambda method=method: method(x, context=jnp.ones((4, 2))), "context", "[*batch, 3]")
        refused(ShapeError, lambda method=method: method(1.0, context=CONTEXT), "[] or none", "[4]")
        refused(DataError, lambda method=method: method(x, context=[np.nan] * 3), "context", "NaN")
    refused(ShapeError, lambda: conditional.sample(KEY, 4), "context=[*batch, 3]")
    refused(ShapeError, lambda: conditional.sample(KEY, 5, context=CONTEXT), "[5] or none")
    refused(ShapeError, lambda: plain.log_prob(X, context=CONTEXT), "no context", "[4, 3]")
    refused(ShapeError, lambda: plain.sample(KEY, context=CONTEXT[0]), "no context")


@pytest.mark.parametrize(
    "key", [jax.random.PRNGKey(0), jax.random.key_data(KEY), 0, None, jax.random.split(KEY), np.zeros(2, np.uint32)]
)
def test_keys_are_typed_and_single(key):
    refused(DataError, lambda: plain.sample(key), "Plain.sample", "jax.random.key(seed)", "jax.random.key(0)")
    refused(DataError, lambda: plain.elbo(key, X), "Plain.elbo")


def test_each_event_has_a_key_of_its_own():
    values = plain.elbo(KEY, X)
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(plain.elbo(KEY, X), values)
    assert not np.isin(values, plain.elbo(jax.random.key(8), X)).any()


def test_swapped_arguments_are_told():
    refused(DataError, lambda: plain.elbo(X, KEY), "one typed random key is needed")
    refused(DataError, lambda: plain.sample(X), "typed random key")


def test_weights():
    x = X.reshape(12, 2)
    for weight in (None, np.ones(12), [1] * 12, np.ones(12, bool)):
        statistics, log_prob = plain.e_step(x, weight)
        np.testing.assert_allclose(statistics["sum"], x.sum(0))
        assert statistics["sum"].dtype == jnp.float32
        assert log_prob.shape == (12,)
    np.testing.assert_allclose(plain.e_step(x.astype(int), [2] * 12)[0]["sum"], 2 * x.sum(0))
    refused(ShapeError, lambda: plain.e_step(x, np.ones(11)), "one weight per event", "weight [11]")
    refused(ShapeError, lambda: plain.e_step(X, np.ones((4, 3))), "[N, *event]", "np.reshape(x")
    refused(ShapeError, lambda: plain.e_step(x[0]), "[N, *event]")
    refused(DataError, lambda: plain.e_step(x, [np.nan] * 12), "weight", "NaN")


def test_static_options():
    np.testing.assert_allclose(plain.encode(X, scale=3, negate=True)["code"], -3 * X)
    assert plain.elbo(KEY, X, draws=2).shape == (4, 3)
    for wrong in ({"nope": 1}, {"axes": 1}):
        with pytest.raises(TypeError):
            plain.encode(X, **wrong)
    with pytest.raises(TypeError):
        plain.log_prob(X, CONTEXT)  # a context is named


def test_a_second_call_compiles_nothing():
    x = np.ones((6, 5, 2), np.float32)
    for call in (plain.log_prob, lambda x: plain.encode(x, scale=2), lambda x: plain.sample(KEY, (6, 5))):
        call(x)
        before = len(TRACES)
        call(2 * x)
        call(jnp.asarray(x))
        dataclasses.replace(plain, mean=jnp.zeros(2)).log_prob(x)
        assert len(TRACES) == before
    Plain(jnp.ones(2), 4).log_prob(x)
    assert len(TRACES) == before + 1, "another structure is another program"


def test_jit_vmap_and_grad_go_through():
    np.testing.assert_allclose(jax.jit(lambda m, x: m.log_prob(x))(plain, X), plain.log_prob(X))
    np.testing.assert_allclose(jax.vmap(plain.log_prob)(X), plain.log_prob(X))
    np.testing.assert_allclose(
        jax.vmap(lambda x, c: conditional.log_prob(x, context=c))(jnp.ones(4), CONTEXT),
        conditional.log_prob(jnp.ones(4), context=CONTEXT),
    )
    many = Plain(jnp.arange(6.0).reshape(3, 2))
    each = jnp.stack([Plain(m).log_prob(X) for m in many.mean])
    np.testing.assert_allclose(jax.vmap(lambda m: m.log_prob(X))(many), each)
    slope = jax.grad(lambda m: m.log_prob(X).sum())(plain).mean
    np.testing.assert_allclose(slope, 2 * (X - 1).sum((0, 1)))
    assert jax.vmap(lambda k: plain.sample(k, 3))(jax.random.split(KEY, 5)).shape == (5, 3, 2)
    assert jax.hessian(lambda m: plain.log_prob(m))(jnp.zeros(2)).shape == (2, 2)


def test_shape_errors_are_the_same_under_jit():
    with pytest.raises(ShapeError, match="Plain.log_prob"):
        jax.jit(plain.log_prob)(jnp.ones((4, 3)))


def test_documentation_passes_through():
    assert Plain.log_prob.__name__ == "log_prob"
    assert "static" not in (Plain.sample.__doc__ or "")


def test_batch_axes():
    assert batch_axes((5, 2), (2,), "f") == (5,)
    assert batch_axes((), (), "f") == ()
    assert batch_axes((5, 9, 2), (None, 2), "f") == (5,)
    refused(ShapeError, lambda: batch_axes((2,), (None, 2), "f", "context"), "context does not end")
    refused(ShapeError, lambda: batch_axes((0, 2), (None, 2), "f"), "[*batch, length, 2]")


def _lines(name):
    """Methods that are none, each under its decorator: made when called."""
    cases = {
        "condition": lambda: per_event(lambda self, x, condition: x),
        "condition by keyword": lambda: per_batch(lambda self, x, *, condition=None: x),
        "labels": lambda: weighted_events(lambda self, x, weight, labels: x),
        "rng": lambda: per_sample(lambda self, rng: rng),
        "unknown": lambda: per_event(lambda self, x, other: x),
        "stars": lambda: per_event(lambda self, x, **options: x),
        "no events": lambda: per_event(lambda self: self),
        "order": lambda: per_event(lambda self, x, key: x),
        "observed of samples": lambda: per_sample(lambda self, key, observed: key),
        "x of a latent": lambda: per_latent(lambda self, x: x),
    }
    return cases if name is None else cases[name]


@pytest.mark.parametrize("name", _lines(None))
def test_parameters_that_are_none_are_refused_when_the_class_is_made(name):
    with pytest.raises(TypeError, match="@(per|weighted)_") as caught:
        _lines(name)()
    if name.startswith("condition"):
        assert "`condition` there is called `context` here" in str(caught.value)


def test_calls_that_do_not_fit_name_the_method():
    for call in (lambda: plain.log_prob(), lambda: plain.log_prob(X, X), lambda: plain.log_prob(X, x=X),
                 lambda: plain.sample(KEY, shap=3), lambda: conditional.log_prob(X, condition=CONTEXT)):  # fmt: skip
        with pytest.raises(TypeError, match=r"^(Plain|Conditional)\.(log_prob|sample)\(self, "):
            call()


def test_events_may_be_named():
    np.testing.assert_array_equal(plain.log_prob(x=X), plain.log_prob(X))
    np.testing.assert_array_equal(plain.sample(shape=(2,), key=KEY), plain.sample(KEY, 2))


@model
class Optional:
    """A density that may lack its context, and takes labels: the sum of what is there."""

    weight: jax.Array
    event_shape = ()
    context_shape = (3,)
    context_optional = True

    def _shift(self, context):
        absent = jnp.isnan(context).all(axis=-1)
        return jnp.where(absent, 100.0, jnp.nan_to_num(context) @ self.weight)

    @per_event
    def log_prob(self, x, *, context=None, label=None):
        return x + self._shift(context) + (0.0 if label is None else 1000.0 * label)

    @per_batch
    def energy(self, x, *, context=None, label=None):
        return x + self._shift(context) + (0.0 if label is None else 1000.0 * label)

    @per_event
    def elbo(self, key, x, *, context=None):
        return x + self._shift(context)

    @per_sample
    def sample(self, key, shape=(), *, context=None):
        return self._shift(context)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        shifted = x + self._shift(context)
        return weight @ shifted, shifted


optional = Optional(jnp.arange(3.0))


def test_an_absent_context_is_none_or_a_row_of_nan():
    x, shift = jnp.arange(4.0), CONTEXT @ jnp.arange(3.0)
    holes = CONTEXT.at[1].set(np.nan)
    mixed = jnp.where(jnp.arange(4) == 1, 100.0, shift)
    calls = {
        "log_prob": lambda **given: optional.log_prob(x, **given) - x,
        "energy": lambda **given: optional.energy(x, **given) - x,
        "elbo": lambda **given: optional.elbo(KEY, x, **given) - x,
        "sample": lambda **given: optional.sample(KEY, 4, **given),
        "e_step": lambda **given: optional.e_step(x, **given)[1] - x,
    }
    for name, call in calls.items():
        np.testing.assert_array_equal(call(), jnp.full(4, 100.0), name)
        np.testing.assert_array_equal(call(context=None), jnp.full(4, 100.0), name)
        np.testing.assert_array_equal(call(context=CONTEXT), shift, name)
        np.testing.assert_array_equal(call(context=holes), mixed, name)
        np.testing.assert_array_equal(call(context=CONTEXT.astype(int)), shift, name)
        np.testing.assert_array_equal(call(context=jnp.full(3, np.nan)), jnp.full(4, 100.0), name)
        refused(DataError, lambda call=call: call(context=CONTEXT.at[2, 0].set(np.nan)), "1 of 4 rows", "a part is NaN")
    assert jax.jit(lambda c: optional.log_prob(x, context=c))(holes).shape == (4,)


def test_labels_reach_methods_that_take_them():
    x, label = jnp.zeros((2, 2)), np.array([[0, 1], [2, np.nan]])
    expected = 100 + 1000 * np.array([[0.0, 1], [2, -1]])  # NaN, as tables write it, is -1 too
    for method in (optional.log_prob, optional.energy):
        np.testing.assert_array_equal(method(x, label=label), expected)
        np.testing.assert_array_equal(method(x, label=2), jnp.full((2, 2), 2100.0))
        refused(ShapeError, lambda method=method: method(x, label=[0, 1, 2]), "[*batch, ...]", "[3]")
        refused(DataError, lambda method=method: method(x, label=[[0.5, 1], [1, 1]]), "whole numbers")
    refused(ShapeError, lambda: plain.log_prob(X, label=0), "there is no label to take")
    assert plain.log_prob(X, label=None).shape == (4, 3)


@model
class Shifted:
    """A normal density around its context, or around a point of its own where there is none."""

    rest: jax.Array
    event_shape = ()
    context_shape = ()
    context_optional = True

    def _mean(self, context):
        return jnp.where(jnp.isnan(context), self.rest, jnp.nan_to_num(context))

    @per_event
    def log_prob(self, x, *, context=None):
        return -0.5 * (x - self._mean(context)) ** 2

    @per_sample
    def sample(self, key, shape=(), *, context=None):
        return self._mean(context) + jax.random.normal(key)

    @weighted_events
    def e_step(self, x, weight=None, *, context=None):
        alone = weight * jnp.isnan(context)
        return (alone.sum(), alone @ x), self.log_prob(x, context=context)

    def m_step(self, statistics):
        return Shifted(statistics[1] / statistics[0])


def test_fits_where_some_contexts_are_absent():
    x, start = jnp.array([5.0, 7.0, -1.0]), Shifted(jnp.zeros(()))
    some = dict(x=x, context=[np.nan, np.nan, -1.0])
    by_gradient = jg.Gradient(jg.losses.nll, optax.sgd(1.0))
    for data, best in ((some, 6.0), (x, 11 / 3), (dict(x=x, context=[np.nan] * 3), 11 / 3)):
        for algorithm, steps in ((jg.EM(), 1), (by_gradient, 40)):  # a share of the way in each step, or all in one
            fitted = jg.fit(KEY, start, data, algorithm, steps=steps, progress=False)
            np.testing.assert_allclose(fitted.model.rest, best, rtol=1e-5)
        np.testing.assert_allclose(jg.scan_fit(KEY, start, data, jg.EM(), steps=1).model.rest, best, rtol=1e-6)
    mixture = jg.Mixture.from_components([start, Shifted(jnp.ones(()))])
    two = [Shifted(jnp.float32(v)).log_prob(x, context=some["context"]) for v in (0, 1)]
    got, wanted = mixture.log_prob(x, context=some["context"]), np.logaddexp(*two) - np.log(2)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)  # one of them is exactly zero
    assert jg.score(KEY, mixture, some).events == 3
    assert mixture.sample(KEY, 2).shape == (2,)
    refused(DataError, lambda: jg.fit(KEY, conditional, dict(x=x, context=np.full((3, 3), np.nan))), "context")
    refused(FitError, lambda: jg.fit(KEY, conditional, x), "context [N, 3]", "none")
