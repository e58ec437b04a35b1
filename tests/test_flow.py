"""Flows: every bijection against its exact float64 inverse and Jacobian, densities against quadrature and distrax."""

import dataclasses
import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.bijections import (
    Affine,
    Chain,
    Coupling,
    DistraxBijector,
    Exp,
    Inverse,
    Permute,
    Scan,
    Standardize,
    simplex,
)
from jaxgen.core import algebra
from jaxgen.core.exchange import as_bijector
from jaxgen.core.pytree import combine, partition, trainable
from jaxgen.models.neural.flow import Flow
from jaxgen.nn.mlp import MLP
from jaxgen.nn.net import Net

N = 64
FEATURES = (16,)


def unit_scale(key, model):
    """Every trained leaf drawn anew: biases and vectors N(0, 1), matrices N(0, 1 / fan in) as networks have them."""
    trained, rest = partition(model)
    leaves, tree = jax.tree.flatten(trained)

    def draw(key, leaf):
        fan = leaf.shape[-2] if leaf.ndim >= 2 and leaf.shape[-2] * leaf.shape[-1] > 1 else 1
        return jax.random.normal(key, leaf.shape, leaf.dtype) / fan**0.5

    drawn = [draw(k, leaf) for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)]
    return combine(jax.tree.unflatten(tree, drawn), rest)


def in_float64(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def data(d=2, n=N):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) * np.linspace(0.5, 3, d) + np.linspace(-1, 4, d)).astype(np.float32)


def small(context_shape=None):
    return functools.partial(Coupling.init, features=FEATURES, context_shape=context_shape)


def realnvp(seed=0, d=2, layers=4, base=None, context_shape=None, x=None):
    base = jg.StandardNormal((d,)) if base is None else base
    x = data(d) if x is None else x
    flow = Flow.init(jax.random.key(seed), x, base, small(context_shape), layers=layers)
    return dataclasses.replace(flow, bijection=unit_scale(jax.random.key(seed + 1), flow.bijection))


def scalar_affine(params):
    return distrax.ScalarAffine(params["shift"], log_scale=params["log_scale"])


def bijections(d=3):
    coupling = small()(jax.random.key(0), data(d))
    stack = jax.vmap(lambda key: small()(key, data(d)))(jax.random.split(jax.random.key(1), 3))
    made = {
        "affine": Affine(jnp.zeros(d), jnp.zeros(d)),
        "standardize": Standardize.from_data(data(d)),
        "permute": Permute.from_values(np.roll(np.arange(d), 1)),
        "coupling": coupling,
        "inverse": Inverse(coupling),
        "chain": Chain((Affine(jnp.zeros(d), jnp.zeros(d)), Permute.from_values(np.arange(d)[::-1].copy()), coupling)),
        "scan": Scan(stack),
        "distrax": DistraxBijector({"shift": jnp.zeros(d), "log_scale": jnp.zeros(d)}, scalar_affine, (d,)),
        "realnvp": realnvp(d=d).bijection,
    }
    return {name: unit_scale(jax.random.key(i), b) for i, (name, b) in enumerate(made.items())}


NAMES = list(bijections())


@pytest.mark.parametrize("name", NAMES)
def test_inverse_and_log_det_are_exact_in_float32(name):
    """Against float64 and numpy's determinant of the Jacobian, at unit-scale parameters."""
    layer, x = bijections()[name], jax.random.normal(jax.random.key(9), (N, 3))
    y, log_det = jax.jit(jax.vmap(layer.forward_and_log_det))(x)
    z, inverse_log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(y)
    assert {a.dtype for a in (y, log_det, z, inverse_log_det)} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        exact = in_float64(layer)
        wide_x, wide_y = x.astype(jnp.float64), y.astype(jnp.float64)
        exact_z = jax.vmap(exact.inverse_and_log_det)(wide_y)[0]
        jacobian, back = (
            np.asarray(jax.vmap(jax.jacobian(lambda e, f=f: f(e)[0]))(points))
            for f, points in ((exact.forward_and_log_det, wide_x), (exact.inverse_and_log_det, wide_y))
        )
    # the bound that the library states for float32. Through the whole random flow the rounding of y itself comes back
    # magnified by the inverse's steepest direction, in any arithmetic of this precision: the bound times that, there
    steepest = 1 / np.linalg.svd(jacobian, compute_uv=False)[:, -1]
    bound = 1e-5 * (np.maximum(1, steepest) if name == "realnvp" else np.ones(N))
    assert np.all(np.abs(np.asarray(z) - np.asarray(exact_z)).max(axis=1) <= bound)
    assert np.all(np.abs(z - x).max(axis=1) <= bound)
    assert np.all(np.abs(np.asarray(log_det) - np.linalg.slogdet(jacobian)[1]) <= 1e-5)
    assert np.all(np.abs(np.asarray(inverse_log_det) - np.linalg.slogdet(back)[1]) <= bound)


@pytest.mark.parametrize("name", NAMES)
def test_bijector_is_the_bijection(name):
    layer, x = bijections()[name], jax.random.normal(jax.random.key(9), (4, 5, 3))
    y, log_det = jax.vmap(jax.vmap(layer.forward_and_log_det))(x)
    bijector = layer.bijector()
    assert isinstance(bijector, distrax.Bijector)
    np.testing.assert_allclose(bijector.forward(x), y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bijector.forward_log_det_jacobian(x), log_det, rtol=1e-5, atol=1e-5)
    expected = jax.vmap(jax.vmap(layer.inverse_and_log_det))(y)[0]
    np.testing.assert_allclose(bijector.inverse(y), expected, rtol=1e-5, atol=1e-5)


def test_distrax_transformed_agrees():
    flow, x = realnvp(), data()
    base = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
    peer = distrax.Transformed(base, flow.bijection.bijector())
    np.testing.assert_allclose(peer.log_prob(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(flow.distribution().log_prob(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)
    # a bijector is a pytree of its bijection's arrays
    compiled = jax.jit(lambda bijector, x: bijector.inverse(x))(flow.bijection.bijector(), x)
    np.testing.assert_allclose(compiled, flow.encode(x), rtol=1e-5, atol=1e-5)


def test_distrax_layer_is_checked_and_trains():
    layer = DistraxBijector({"shift": jnp.ones((4, 2)), "log_scale": jnp.zeros(())}, scalar_affine, (2,))
    with pytest.raises(jg.ShapeError, match="changes the shape"):
        layer.forward_and_log_det(jnp.zeros(2))
    layer = dataclasses.replace(layer, params={"shift": jnp.ones(2), "log_scale": jnp.zeros(())})
    flow = Flow(jg.StandardNormal((2,)), layer)
    gradient = jax.grad(lambda flow: flow.log_prob(jnp.zeros(2)))(flow)
    # log p = -|x - 1|^2 / 2 at 0 grows as the shift falls
    np.testing.assert_allclose(gradient.bijection.params["shift"], [-1.0, -1.0], rtol=1e-6)


@pytest.mark.parametrize("base", ["normal", "mixture", "flow"])
def test_density_integrates_to_one(base):
    bases = {
        "normal": lambda: jg.StandardNormal((2,)),
        "mixture": lambda: jg.Mixture.from_components(
            jg.DiagonalGaussian.from_values([[-1.0, 0.0], [1.0, 0.5]], [[0.6, 0.6], [0.7, 0.5]])
        ),
        "flow": lambda: realnvp(5, layers=1, x=np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32)),
    }
    x = np.random.default_rng(2).normal(size=(N, 2)).astype(np.float32)
    flow = Flow.init(jax.random.key(0), x, bases[base](), small(), layers=2)
    trained, rest = partition(flow.bijection)
    noisy = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), trained)
    flow = dataclasses.replace(flow, bijection=combine(noisy, rest))
    low, high, n = -25.0, 25.0, 500
    axis = low + (high - low) / n * (np.arange(n) + 0.5)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)
    total = np.exp(np.asarray(flow.log_prob(points), np.float64)).sum() * ((high - low) / n) ** 2
    assert total == pytest.approx(1, abs=2e-3)  # of the midpoint rule at bends of the density


def test_samples_are_decoded_base_draws():
    flow = realnvp()
    x = flow.sample(jax.random.key(3), (500,))
    assert x.shape == (500, 2)
    # at unit-scale parameters the decoded sample is exact to float32 of its own size
    np.testing.assert_allclose(flow.decode(flow.encode(x)), x, rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(flow.encode(x)).mean(axis=0)).max() < 5 / 500**0.5


def equations(jaxpr):
    """The number of equations of a program, with those inside of its calls and loops."""
    inner = [v for eqn in jaxpr.eqns for v in eqn.params.values()]
    nested = [getattr(v, "jaxpr", v) for v in inner if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    return len(jaxpr.eqns) + sum(map(equations, nested))


def test_program_does_not_grow_with_depth():
    def count(layers):
        flow = realnvp(layers=layers)
        gradient = jax.value_and_grad(lambda f: f.log_prob(data()).sum(), allow_int=True)
        return equations(jax.make_jaxpr(gradient)(flow).jaxpr)

    assert count(2) == count(9) > 20


def test_an_equal_flow_compiles_nothing():
    traces = []

    @jax.jit
    def score(flow, x):
        traces.append(1)
        return flow.log_prob(x)

    for seed in range(3):
        score(realnvp(seed), data())
    assert len(traces) == 1


def test_context_by_row_and_shared():
    flow = realnvp(context_shape=(3,))
    x, context = data(), jax.random.normal(jax.random.key(0), (N, 3))
    assert flow.context_shape == (3,)
    rows = flow.log_prob(x, context=context)
    each = [flow.log_prob(x[i], context=context[i]) for i in range(4)]
    np.testing.assert_allclose(rows[:4], each, rtol=1e-5, atol=1e-5)
    shared = flow.log_prob(x, context=context[0])
    np.testing.assert_allclose(shared, flow.log_prob(x, context=jnp.tile(context[:1], (N, 1))), rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(rows - shared))[1:].max() > 0.1, "the context is used"
    assert flow.sample(jax.random.key(0), (N,), context=context).shape == (N, 2)
    bijector = flow.bijection.bijector(context[0])
    np.testing.assert_allclose(bijector.inverse(x), flow.encode(x, context=context[0]), rtol=1e-5, atol=1e-5)


def test_base_takes_the_same_context():
    inner = realnvp(context_shape=(3,))
    flow = Flow(inner, Affine(jnp.ones(2), jnp.zeros(2)))
    c = jnp.array([0.1, -1.0, 2.0])
    np.testing.assert_allclose(flow.log_prob(data(), context=c), inner.log_prob(data() - 1, context=c), atol=1e-5)
    with pytest.raises(jg.ModelError, match="different shapes"):
        _ = Flow(inner, realnvp(context_shape=(2,)).bijection).context_shape


def test_wrong_context_is_refused():
    flow, plain, x = realnvp(context_shape=(3,)), realnvp(), data()
    for call in (
        lambda: flow.log_prob(x), lambda: flow.log_prob(x, context=jnp.zeros((N, 2))),
        lambda: flow.sample(jax.random.key(0)),
        lambda: flow.log_prob(x, context=jnp.zeros((N + 1, 3))), lambda: plain.log_prob(x, context=jnp.zeros(3)),
        lambda: flow.bijection.inverse_and_log_det(x[0]),
        lambda: flow.bijection.inverse_and_log_det(x[0], jnp.zeros(2)),
    ):  # fmt: skip
        with pytest.raises(jg.ShapeError, match="context"):
            call()


def test_a_batch_is_not_one_event():
    for layer in bijections().values():
        with pytest.raises(jg.ShapeError, match="vmap"):
            layer.forward_and_log_det(jnp.zeros((3, 3)))


def deciles(x):
    low, high = np.quantile(x.astype(np.float64), [0.1, 0.9], axis=0)
    return (high - low) / (2 * scipy.stats.norm.ppf(0.9))


def test_constant_columns_keep_their_scale():
    x = np.stack([np.full(N, 0.1), data()[:, 0], np.full(N, 1e6)], 1).astype(np.float32)
    layer = Standardize.from_data(x)
    assert layer.scale[jnp.array([0, 2])].tolist() == [1, 1]
    np.testing.assert_allclose(layer.scale[1], deciles(x[:, 1]), rtol=1e-6)
    np.testing.assert_allclose(layer.center, np.median(x.astype(np.float64), axis=0), rtol=1e-6)
    flow = realnvp(d=3, x=x)
    assert bool(jnp.isfinite(flow.log_prob(x)).all())
    far = (np.random.default_rng(0).normal(size=(1000, 1)) + 1e5).astype(np.float32)
    # float32 has a step of 0.008 at 1e5, and a decile is one of the numbers that it holds, or between two of them
    np.testing.assert_allclose(Standardize.from_data(far).scale, deciles(far), atol=0.008)


def test_fixed_fields_are_not_trained():
    flow = realnvp()
    gradient = jax.grad(lambda t, r: combine(t, r).log_prob(data()).sum())(*partition(flow))
    assert gradient.bijection.layers[1].center is None
    mask = trainable(flow)
    assert not any(jax.tree.leaves(mask.bijection.layers[1]))
    assert any(jax.tree.leaves(mask.bijection.layers[0]))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("d", [2, 3, 5])
def test_every_pair_of_layers_moves_every_coordinate(d):
    flow = Flow.init(jax.random.key(0), data(d), jg.StandardNormal((d,)), small(), layers=6)
    orders = np.asarray(flow.bijection.layers[0].layers.layers[1].order)
    assert orders.shape == (6, d)
    for first in range(0, 6, 2):
        assert not set(range(d // 2)) & set(orders[first][: d // 2]), "what stayed in one layer moves in the next"
        assert not (orders[first + 1] == np.arange(d)).any(), "a cycle leaves nothing in place"


def test_starts_as_the_standardised_base():
    x = data()
    flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((2,)))
    expected = jg.DiagonalGaussian.from_values(np.median(x, axis=0), deciles(x)).log_prob(x)
    np.testing.assert_allclose(flow.log_prob(x), expected, atol=1e-4)


def test_a_flow_of_a_shape_starts_as_its_base():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    flow = jg.Flow.init(jax.random.key(0), (3,), jg.StandardNormal((3,)), layers=2)
    np.testing.assert_allclose(flow.log_prob(x), scipy.stats.norm.logpdf(x).sum(axis=1), rtol=1e-5)
    shares = jg.Flow.init(jax.random.key(0), (3,), jg.StandardNormal((2,)), layers=2, support=simplex)
    np.testing.assert_allclose(shares.sample(jax.random.key(1), (9,)).sum(axis=1), 1, atol=1e-6)


def test_flows_as_components():
    x = data()
    flows = jax.vmap(lambda key: Flow.init(key, x, jg.StandardNormal((2,)), small(), layers=2))(
        jax.random.split(jax.random.key(0), 3)
    )
    mixture = jg.Mixture.from_components(flows)
    assert mixture.event_shape == (2,)
    assert mixture.context_shape is None
    each = jnp.stack([algebra.take(flows, k).log_prob(x) for k in range(3)])
    np.testing.assert_allclose(mixture.log_prob(x), jax.nn.logsumexp(each, axis=0) - np.log(3), rtol=1e-5, atol=1e-5)
    assert mixture.sample(jax.random.key(0), (7,)).shape == (7, 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_kept_with_x64_enabled(dtype):
    with jax.enable_x64(True):
        x = jnp.asarray(data(), dtype)
        flow = Flow.init(jax.random.key(0), x, jg.StandardNormal((2,)), small(), layers=2)
        kinds = {leaf.dtype for leaf in jax.tree.leaves(flow) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert kinds == {jnp.dtype(dtype)}
        assert flow.sample(jax.random.key(0), (3,)).dtype == flow.log_prob(x).dtype == flow.encode(x).dtype == dtype
        conditional = realnvp(context_shape=(1,), x=x)
        for context in (jnp.ones(1, jnp.float64), jnp.ones(1, jnp.int32)):
            assert conditional.log_prob(x, context=context).dtype == dtype


def test_save_and_load(tmp_path):
    flow = realnvp(context_shape=(3,))
    jg.save(flow, tmp_path / "flow")
    loaded = jg.load(tmp_path / "flow")
    assert jax.tree.structure(loaded) == jax.tree.structure(flow)
    c = jnp.ones(3)
    np.testing.assert_array_equal(loaded.log_prob(data(), context=c), flow.log_prob(data(), context=c))


def test_errors_name_the_fix():
    key, x = jax.random.key(0), data()
    normal = jg.StandardNormal((2,))
    with pytest.raises(jg.ModelError, match="size >= 2"):
        Coupling.init(key, x[:, :1])
    with pytest.raises(jg.ModelError, match="size >= 2"):
        Flow.init(key, x[:, :1], jg.StandardNormal((1,)))
    with pytest.raises(jg.ModelError, match="layers >= 1"):
        Flow.init(key, x, normal, layers=0)
    with pytest.raises(jg.ModelError, match="StandardNormal"):
        Flow.init(key, x, jg.StandardNormal((3,)))
    with pytest.raises(jg.ShapeError, match="reshape"):
        Flow.init(key, x[None], normal)
    with pytest.raises(jg.DataError, match="finite"):
        Flow.init(key, np.where(x > 3, np.nan, x), normal)
    with pytest.raises(jg.ModelError, match="once"):
        Permute.from_values([0, 0, 1])


def test_net_checks_its_module():
    import flax.linen as nn

    key = jax.random.key(0)
    for wrong in (MLP, 3):
        with pytest.raises(jg.ModelError, match="Net.init"):
            Net.init(key, wrong, (2,))

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(x)

    with pytest.raises(jg.ModelError, match="batch_stats"):
        Net.init(key, Normed(), (4, 2))
    with pytest.raises(jg.ShapeError, match="does not fit the network"):
        Net.init(key, MLP((4,), in_shape=(2, 2)), (3,))
    net = Net.init(key, MLP((4, 6), in_shape=(2, 2), out_shape=(3, 2), zero_last=True), (2, 2))
    assert net(jnp.ones((5, 2, 2))).shape == (5, 3, 2)
    assert not net(jnp.ones((2, 2))).any()
    assert type(net.params) is dict
    assert type(net.params["Dense_0"]) is dict


def test_as_bijector_refuses_a_wrong_event():
    with pytest.raises(jg.ShapeError, match="one event"):
        as_bijector(Affine(jnp.zeros(2), jnp.zeros(2))).forward(jnp.zeros(3))


@jg.model
class Ratios:
    """Log-ratios `[D - 1]` to the last of D positive numbers of sum one, and those numbers."""

    size: int = jg.static()

    @property
    def event_shape(self):
        return (self.size,)

    @property
    def latent_shape(self):
        return (self.size - 1,)

    def forward_and_log_det(self, x, context=None):
        y = jax.nn.softmax(jnp.append(x, 0.0))
        return y, jnp.sum(jnp.log(y))

    def inverse_and_log_det(self, y, context=None):
        return jnp.log(y[:-1] / y[-1]), -jnp.sum(jnp.log(y))


def test_sides_of_two_shapes():
    """A layer may change the shape of an event: chains, inverses, flows and distrax follow it."""
    layer = Chain((Affine(jnp.zeros(2), jnp.ones(2)), Ratios(3)))
    assert (layer.event_shape, layer.latent_shape) == ((3,), (2,))
    assert (Inverse(layer).event_shape, Inverse(layer).latent_shape) == ((2,), (3,))
    flow = Flow(jg.StandardNormal((2,)), layer)
    x = flow.sample(jax.random.key(0), (4, 5))
    assert (flow.event_shape, flow.latent_shape, x.shape, flow.encode(x).shape) == ((3,), (2,), (4, 5, 3), (4, 5, 2))
    np.testing.assert_allclose(flow.decode(flow.encode(x)), x, atol=1e-6)
    peer = distrax.Transformed(distrax.MultivariateNormalDiag(jnp.zeros(2)), as_bijector(layer))
    np.testing.assert_allclose(flow.log_prob(x), peer.log_prob(x), rtol=1e-5, atol=1e-5)
    back = Flow(flow, Inverse(layer))  # the standard normal again
    z = np.array([[0.3, -1.0]], np.float32)
    many = Scan(jax.vmap(lambda shift: Chain((Affine(shift, shift), Ratios(3))))(z))
    np.testing.assert_allclose(back.log_prob(z), jg.StandardNormal((2,)).log_prob(z), atol=1e-5)
    for wrong, message in (
        (lambda: Flow(jg.StandardNormal((3,)), layer).log_prob(x), "base does not fit"),
        (lambda: Flow(jg.StandardNormal((2,)), many).log_prob(x), "cannot follow one another"),
        (lambda: layer.forward_and_log_det(jnp.zeros(3)), "one event's, shape \\[2\\]"),
    ):  # fmt: skip
        with pytest.raises((jg.ModelError, jg.ShapeError), match=message):
            wrong()


@jg.model
class Crooked:
    """Doubles, and says that it does not: what a wrong log-determinant looks like."""

    event_shape: tuple[int, ...] = jg.static()

    def forward_and_log_det(self, x, context=None):
        return 2 * x, jnp.zeros(())

    def inverse_and_log_det(self, y, context=None):
        return y / 2, jnp.zeros(())


def test_check_passes_a_right_flow():
    flow, x = realnvp(context_shape=(3,)), data(n=300)
    context = jax.random.normal(jax.random.key(0), (300, 3))
    own = flow.sample(jax.random.key(4), (300,), context=context)
    found = flow.check(jax.random.key(1), own, context=context)
    assert found.ok, str(found)
    # the mean is that of log_prob, and a bound that it respects is no alarm
    assert found.mean == pytest.approx(float(flow.log_prob(own, context=context).mean()), abs=1e-4)
    assert "round trip" in str(found)
    normal = Flow(jg.StandardNormal((2,)), Standardize.from_data(x))
    assert normal.check(jax.random.key(1), x, bound=0.0).ok


def test_check_finds_what_is_wrong():
    key, x = jax.random.key(1), np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    normal = jg.StandardNormal((2,))
    affine = lambda shift, log_scale: Affine(jnp.full(2, shift), jnp.full(2, log_scale))  # noqa: E731
    cases = {
        "log-determinant is off by 1.4": Flow(normal, Crooked((2,))),
        "own draws leave the range": Flow(normal, affine(0.0, 1.5)),
        "less likely than all own draws": Flow(normal, affine(0.0, -1.5)),
        "come back changed": Flow(normal, Chain((affine(1e6, 0.0), affine(-1e6, 0.0)))),
        "exceeds the bound": Flow(normal, affine(0.0, 0.0)),
        "no finite density": Flow(normal, Exp((2,))),
    }
    for message, flow in cases.items():
        with pytest.warns(jg.JaxgenWarning, match=message):
            found = flow.check(key, x, bound=-2.0 - np.log(2 * np.pi) if "bound" in message else None)
        assert not found.ok
        assert message in str(found)
    with pytest.raises(jg.ShapeError, match="one leading axis"):
        cases["exceeds the bound"].check(key, x[0])
    with pytest.raises(jg.FitError, match="draws"):
        cases["exceeds the bound"].check(key, x, draws=2)
