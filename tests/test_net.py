"""`Net`: networks of other libraries as parts of models, with randomness by key, saved and loaded."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxgen as jg
from jaxgen.core.files import loadable

KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(3, 2) / 5


@loadable
def draw(key, x):
    return {"weight": jax.random.normal(key, (x.shape[-1], 1)), "bias": jnp.zeros(1)}


@loadable
def affine(params, x, *, key=None):
    noise = 0.0 if key is None else jax.random.normal(key, (1,))
    return x @ params["weight"] + params["bias"] + noise


class Dropping(nn.Module):
    """A module of a user's own, which is told whether it trains."""

    width: int = 8

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(1)(nn.Dropout(0.5, deterministic=not train)(nn.Dense(self.width)(x)))


def of_nnx(seed, rate=0.5):
    rngs = nnx.Rngs(seed)
    return nnx.Sequential(nnx.Linear(2, 8, rngs=rngs), nnx.relu, nnx.Dropout(rate), nnx.Linear(8, 1, rngs=rngs))


NETS = {
    "sequential": lambda: jg.Net.init(KEY, nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(1)]), (2,)),
    "own linen": lambda: jg.Net.init(KEY, Dropping(), (2,)),
    "pair": lambda: jg.Net.init(KEY, (draw, affine), (2,)),
    "nnx": lambda: jg.Net.init(KEY, of_nnx(0)),
}


@pytest.mark.parametrize("name", NETS)
def test_equal_networks_are_one_program_and_survive_a_file(name, tmp_path):
    net, again, traces = NETS[name](), NETS[name](), []

    @jax.jit
    def call(net, x):
        traces.append(1)
        return net(x)

    np.testing.assert_array_equal(call(net, X), call(again, X))
    assert len(traces) == 1 and call(net, X).shape == (3, 1)
    assert jax.grad(lambda net: net(X).sum())(net).params.keys() == net.params.keys()
    jg.save(net, tmp_path / "net")
    wants_like = name in ("own linen", "nnx")
    if wants_like:
        with pytest.raises(jg.FileError, match="not registered"):
            jg.load(tmp_path / "net")
    loaded = jg.load(tmp_path / "net", **({"like": again} if wants_like else {}))
    np.testing.assert_array_equal(call(loaded, X), call(net, X))
    assert len(traces) == 1, "a loaded network is the same network"


def test_a_registered_module_loads_by_its_name(tmp_path):
    loadable(Dropping)
    net = NETS["own linen"]()
    jg.save(net, tmp_path / "net")
    np.testing.assert_array_equal(jg.load(tmp_path / "net")(X), net(X))


@pytest.mark.parametrize("name", ["own linen", "pair", "nnx"])
def test_what_is_random_takes_a_key(name):
    net = NETS[name]()
    one, other = (net(X, key=key) for key in jax.random.split(KEY))
    assert (one != other).any()
    np.testing.assert_array_equal(net(X, key=KEY), net(X, key=KEY))
    np.testing.assert_array_equal(net(X), net(X))
    many = jnp.stack([net(X, key=key) for key in jax.random.split(KEY, 400)])
    # dropout and the noise have mean zero: four standard errors
    assert (jnp.abs(many.mean(0) - net(X)) < 4 * many.std(0) / 20 + 1e-6).all()


def test_networks_that_do_not_fit_are_refused(tmp_path):
    jg.save(NETS["nnx"](), tmp_path / "net")
    with pytest.raises(jg.FileError, match="another model"):
        jg.load(tmp_path / "net", like=jg.Net.init(KEY, of_nnx(0, rate=0.3)))
    always = nn.Sequential([nn.Dense(2), nn.Dropout(0.5, deterministic=False)])
    net = jg.Net.init(KEY, always, (2,))
    assert net(X, key=KEY).shape == (3, 2)
    for wrong, says in (
        (lambda: net(X), "the network is random"),
        (lambda: jg.Net.init(KEY, nn.BatchNorm(use_running_average=True), (2,)), "keeps state"),
        (lambda: jg.Net.init(KEY, nnx.BatchNorm(2, rngs=nnx.Rngs(0))), "keeps state"),
        (lambda: jg.Net.init(KEY, nnx.Dropout(0.5, rngs=nnx.Rngs(0))), "keeps state"),
        (lambda: jg.Net.init(KEY, 3, (2,)), "that is no network"),
        (lambda: jg.Net.init(KEY, nn.Dense, (2,)), "that is no network"),
    ):
        with pytest.raises(jg.ModelError, match=says):
            wrong()


def test_a_network_of_another_library_trains_as_a_part():
    @jg.model
    class Curve:
        net: jg.Net
        event_shape = (1,)
        context_shape = (2,)

        @jg.per_event
        def log_prob(self, x, *, context=None):
            return -jnp.sum((x - self.net(context)) ** 2)

        @jg.per_sample
        def sample(self, key, shape=(), *, context=None):
            return self.net(context)

    y = X.sum(axis=1, keepdims=True)
    fitted = jg.fit(KEY, Curve(NETS["nnx"]()), (y, X), steps=300, progress=False)
    assert -fitted.model.log_prob(y, context=X).mean() < 0.01
    assert dataclasses.is_dataclass(fitted.model.net)
