"""Calls that are refused, and the inputs on which their fixes have to work: the cases of `test_fixes.py`."""

import dataclasses
import functools
import os

import distrax
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import scipy.sparse

import jaxgen
from jaxgen import nn, units
from jaxgen.bijections import (
    CircularSplineTransform,
    Coupling,
    Interval,
    Permute,
    Standardize,
    circle,
    conv1x1,
    simplex,
)
from jaxgen.data import Stream, read, read_csv, read_idx, read_npy, read_npz, synthetic
from jaxgen.metrics.features import grey_features
from jaxgen.nn.mlp import MLP
from jaxgen.ops import chains, linalg

#: what fixes and calls may name
NAMES = {
    "jaxgen": jaxgen, "jax": jax, "jnp": jnp, "np": np, "numpy": np, "optax": optax, "os": os, "nn": nn,
    "units": units, "dataclasses": dataclasses, "functools": functools, "chains": chains, "linalg": linalg,
    "synthetic": synthetic, "Stream": Stream, "read": read, "read_csv": read_csv, "read_idx": read_idx,
    "read_npy": read_npy, "read_npz": read_npz, "MLP": MLP, "Coupling": Coupling, "grey_features": grey_features,
    "CircularSplineTransform": CircularSplineTransform, "Interval": Interval, "Permute": Permute,
    "Standardize": Standardize, "circle": circle, "conv1x1": conv1x1,
}  # fmt: skip
KEY = jax.random.key(0)
nan = np.nan
X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
BITS = (X > 0).astype(np.float32)
HOLED = np.where(np.arange(24).reshape(12, 2) == 3, nan, X)
CASES = []


def case(call, into=None, /, **names):
    """`call` is refused; its fix is run, and with the result named `into` the call works; None: the fix is the call.

    Names are values, or functions that make them, of nothing or of a folder.
    """
    CASES.append((call, into, names))


def words(call, /, **names):
    """`call` is refused with a fix in words."""
    CASES.append((call, "words", names))


class Strange:
    def __array__(self, *_, **__):
        raise TypeError("no numbers")


def gaussian():
    return jaxgen.Gaussian.from_values(jnp.zeros(2), jnp.eye(2))


def mixture():
    return jaxgen.Mixture.init(KEY, X, 2, jaxgen.DiagonalGaussian.init)


def chain():
    return jaxgen.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], jaxgen.Poisson.from_values([1.0, 9.0]))


def waves():
    emissions = jaxgen.LinearRegression.from_values([[[0.5]], [[-0.5]]], [[0.0], [1.0]], [[[1.0]], [[1.0]]])
    return jaxgen.HMM.from_values([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], emissions)


def plane():
    return jaxgen.StandardNormal((2,))


def machine():
    return jaxgen.RBM.init(KEY, BITS, 2)


def field():
    return jaxgen.RandomField.from_matrix(units.Spin.zeros(2), 1.0 - np.eye(2))


def planar(key, x):
    return jaxgen.Flow(jaxgen.StandardNormal((2,)), Standardize.from_data(x))


def autoregressive():
    return jaxgen.Flow.init(KEY, X, jaxgen.StandardNormal((2,)), layers=1)


def flow():
    return jaxgen.Flow(jaxgen.StandardNormal((2,)), Standardize.from_data(X))


# data, as inputs
for data in (
    [1.0, nan], np.array([1.0, nan]), HOLED, HOLED.tolist(), pandas.DataFrame(HOLED), np.stack([HOLED, X], axis=1),
    jnp.asarray(HOLED), [1.0, np.inf], [1.0, 1e39], ["a", "b"], ["1", "2.5"], np.array([["a"], ["b"]]), [1.0, "a"],
    [1j, 2], np.array([1j]), np.array(["2020", "2021"], "M8[D]"),
    [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")], np.array([1, 2], "m8[s]"),
    np.zeros(2, [("a", "f4"), ("b", "i4")]), {"a": [1.0, 2], "b": [3.0, 4]}, {1, 2}, scipy.sparse.csr_matrix(X),
    scipy.sparse.coo_array(X), np.array(["1", "2"], object), [2**70], pandas.DataFrame({"a": [1.0], "b": ["x"]}),
    pandas.Series(["1", "2"]), pandas.Series(["a", "b"]), pandas.Series([1, "a"]),
    pandas.Series(pandas.to_datetime(["2020", "2021"])),
    pandas.Series(pandas.to_datetime(["2020", "2021"]).tz_localize("UTC")),
    pandas.Series(pandas.Categorical(["u", "v"])),
    pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64"), "b": [1.0, 2.0]}),
    np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array(X, mask=X < -1),
):  # fmt: skip
    case("jaxgen.data.as_array(table, name='table')", "table", table=data)
case("jaxgen.data.as_array(data)", "data", data=lambda: iter(range(3)))
case("jaxgen.core.inputs.as_events(data, name='data', called='f')", "data", data=[[1, 2], [3]])
case("jaxgen.data.as_array(data)", "_", data=[2**31])
case("jaxgen.data.as_array(data, allow_nan=True)", "data", data=np.ma.array([1.0, 2.0], mask=[False, True]))
case("jaxgen.fit(key, model, jax.random.key(1))", model=gaussian, data=X)
case("jaxgen.fit(key, model, data, steps=1)", "data", model=gaussian, data=HOLED)
case("jaxgen.fit(key, model, data, steps=1)", "data", model=mixture, data=HOLED)
for leaf in (
    "Gaussian",
    "DiagonalGaussian",
    "StudentT",
    "LowRankGaussian",
    "Gamma",
    "VonMises",
    "Poisson",
    "NegativeBinomial",
    "Bernoulli",
    "Categorical",
    "Exponential",
    "LogNormal",
    "Laplace",
    "Delta",
    "Multinomial",
):
    data = np.where(np.isnan(HOLED), nan, BITS)
    data = np.abs(HOLED) if leaf in ("Gamma", "VonMises", "LowRankGaussian", "Exponential", "LogNormal") else data
    data = HOLED if "Gaussian" in leaf or leaf == "StudentT" else data
    case(f"jaxgen.{leaf}.init(key, x)" if leaf != "LowRankGaussian" else "jaxgen.LowRankGaussian.init(key, x, rank=1)",
         "x", x=data)  # fmt: skip
case("jaxgen.core.inputs.as_batch(data)", "data", data={"a": X}, x=X, context=None, weight=np.ones(12), label=None)
case("jaxgen.core.inputs.as_batch({'x': x, 'label': label})", "label", x=X, label=[0.5] + [1] * 11)

case("jaxgen.Binomial.init(key, x, trials=1)", "x", x=np.where(np.isnan(HOLED), nan, BITS))
case("jaxgen.NoisyGaussian.init(key, x, np.ones_like(x))", "x", x=HOLED)

words("jaxgen.data.as_array(strange)", strange=Strange())
for leaf in ("Exponential", "LogNormal", "Beta", "Multinomial"):
    words(f"jaxgen.{leaf}.init(key, x)", x=X - 5.5)
words("jaxgen.Binomial.init(key, x, trials=1)", x=X)
words("jaxgen.Binomial.init(key, x)", x=BITS)
words("jaxgen.Binomial.from_values(2.0)")
words("jaxgen.Laplace.from_values(0.0, 0.0)")
words("jaxgen.NoisyGaussian.init(key, x, x[:1])", x=X)
words("read('nowhere.csv')")

# keys, shapes
case("jaxgen.core.algebra.stack(models)", "models", models=[])
case("jaxgen.core.algebra.stack(models)", "models", models=lambda: [jaxgen.Poisson.from_values(1.0), gaussian()],
     Poisson=jaxgen.Poisson)  # fmt: skip
case("jaxgen.Flow.init(key, x, jaxgen.StandardNormal((2,)), layers=1, support=support)", "_", x=X,
     support=Interval(0.0, 1.0))  # fmt: skip
case("jaxgen.bijections.supports.to_real(simplex, x, 'f')", "x", x=np.array([[0.5, 0.7], [0.0, 0.2]]), simplex=simplex)
case("jaxgen.core.methods.check_key(key, 'f')", key=0)
case("model.log_prob(x)", "x", model=lambda: jaxgen.DiagonalGaussian.from_values([0.0], [1.0]), x=np.zeros(3))
case("model.sample(key, shape)", "_", model=gaussian, shape=2.5)
case("machine.kernel(key, x, observed=observed)", "observed", machine=machine, x=BITS, observed=[1, 0])
case("model.e_step(x)", "x", model=gaussian, x=np.stack([X, X]))
case("jaxgen.core.frozen.frozen_leaves(model, {'none': True})", model=gaussian)
case("jaxgen.core.frozen.frozen_leaves(model, frozen)", "frozen", model=gaussian, frozen={"means": True})

# files
case("jaxgen.save(model, path)", "_", model=gaussian, path=lambda tmp: str(tmp / "a" / "b" / "model"))
case("jaxgen.save(fitted, path)", fitted=lambda: dataclasses.make_dataclass("F", ["model"])(gaussian()),
     path=lambda tmp: str(tmp / "m"))  # fmt: skip


def foreign(tmp):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp / "foreign")
    return str(tmp / "foreign")


def text(content, name="x.csv"):
    def write(tmp):
        (tmp / name).write_bytes(content)
        return str(tmp / name)

    return write


case("jaxgen.load(path)", path=foreign, model=gaussian)
for content in (
    b"a;b\n1;2\n", b"1;2\n", b"a,b\n1,\n1,2\n", b"1,b\n1,2\n", b"a,b\n1,x\n2,3\n", b"a,b\n1,inf\n",
    b"5,u\n4,v\n", "gr\xf6\xdfe\n1\n".encode("latin-1"),
    "a\n1\n".encode("utf-16"), "a\n1\n".encode("utf-16-le"), "a\n1\n".encode("utf-16-be"),
):  # fmt: skip
    case("read_csv(path)", path=text(content))
for content in (
    b"a;b\n1,5;2,5\n", b"a,b\n2020-01-01,2\n", b"n,b\n" + b"".join(b"name %d,2\n" % i for i in range(30)),
):  # fmt: skip
    case("read_csv(path)", path=text(content))
case("read_csv(path, missing=True)", path=text(b"a,b\n,1\n,2\n"))
case("read_csv(path, decimal=',')", path=text(b"a;b\n1;2\n"))
for frame in (
    {"a": [None], "b": [1]}, {"a": [1, "x"]}, {"a": [np.datetime64("2020-01-01")]}, {"a": [(1, 2)], "b": [1]},
    {"a": [f"name {i}" for i in range(30)], "b": range(30)}, {"Unnamed: 0": range(3), "b": range(3)},
):  # fmt: skip
    case("jaxgen.data.Table.from_frame(frame)", frame=pandas.DataFrame(frame))
TABLE = jaxgen.data.Table.from_frame({"a": [1.5, 2.5], "b": ["u", "v"]})
case("table.frame(values)", "values", table=TABLE, values=np.zeros((2, 1, 2)))
words("table.frame(values)", table=TABLE, values=np.zeros((1, 3)))
words("table.frame(values)", table=TABLE, values=np.zeros((2, 3)))  # as many numbers as three rows, and none of them
case("read_csv(path, delimiter=';;')", path=text(b"a;b\n1;2\n"))
case("read_csv(path, header=True)", path=text(b"1,2\n"))
case("read_csv(path, encoding='none')", path=text(b"a\n1\n"))
case("read(path)", path=text(b"1,2\n", "x.dat"))
case("read_idx(path)", path=lambda tmp: np.save(tmp / "x.npy", X) or str(tmp / "x.npy"))
case("read_idx(path)", path=lambda tmp: np.savez(tmp / "x.npz", x=X) or str(tmp / "x.npz"))


# algorithms
def run(more=""):
    return f"jaxgen.fit(key, model, data, steps=1{more})"


case(run(), model=lambda: jaxgen.Generator.init(KEY, X, plane(), hidden=(2,)), data=X, critic=lambda: MLP((4,
     1)))  # fmt: skip
case("jax.jit(lambda data: jaxgen.fit(key, model, data, steps=1))(data)", model=gaussian, data=X, algorithm=jaxgen.EM())
case(run(", restarts=2"), model=gaussian, data=X, x=X)
case(run(), "data", model=lambda: jaxgen.Gaussian.init(KEY, X), data=X[0])
case(run(), "data", model=lambda: jaxgen.LinearRegression.init(KEY, X, X), data=X, x=X, context=X)
case(run(", batch_size=4"), model=gaussian, data=lambda: Stream(X), source=X)
case(run(", algorithm=algorithm"), "algorithm", model=autoregressive, data=X, algorithm=jaxgen.EM())
case(run(", algorithm=algorithm"), "algorithm", model=gaussian, data=X, algorithm=jaxgen.EM)
case("jaxgen.fit(key, model, None, algorithm, steps=1)", "algorithm", model=autoregressive, algorithm=jaxgen.EM(),
     log_density=lambda: lambda x: -jnp.sum(x ** 2))  # fmt: skip
case(run(", algorithm=algorithm"), "algorithm", model=gaussian, data=X, algorithm=jaxgen.Gradient("nll"))
case(run(", algorithm=algorithm"), "algorithm", model=gaussian, data=X, algorithm=jaxgen.Gradient(optimizer="adam"))
case(run(", algorithm=algorithm"), "algorithm", model=gaussian, data=X, algorithm=jaxgen.StepwiseEM(decay=2.0))
case(run(", mesh=mesh"), "mesh", model=gaussian, data=X, mesh=lambda: jax.devices())
case(run(", algorithm=algorithm"), model=gaussian, data=X, algorithm=jaxgen.ContrastiveDivergence())
for average in (0.9, "0.9", jaxgen.Average(1.0), jaxgen.PowerAverage(1.0)):
    case(run(", algorithm=jaxgen.Gradient(average=average)"), model=gaussian, data=X, average=average)
case("jaxgen.watch.Scalars(3)")
for wrong in ({"penalty": 1.0}, {"negative": 1.0}):
    case(run(", algorithm=algorithm"), "algorithm", model=machine, data=BITS,
         algorithm=jaxgen.ContrastiveDivergence(**wrong))  # fmt: skip
case(run(", algorithm=algorithm"), "algorithm", model=field, data=np.sign(X),
     algorithm=jaxgen.ContrastiveDivergence(negative=jaxgen.Persistent(4, reuse=True)))  # fmt: skip
case(run(", algorithm=jaxgen.Adversarial(critic)"), "critic", model=lambda: jaxgen.Generator.init(KEY, X,
     jaxgen.StandardNormal((2,))), data=X, critic=lambda: MLP((4, 2)))  # fmt: skip
playing = "jaxgen.Adversarial(critic, {0}={0}).init(key, model)"
opponents = {
    "key": KEY, "critic": lambda: MLP((4, 1)),
    "model": lambda: jaxgen.Generator.init(KEY, X, jaxgen.StandardNormal((2,)), hidden=(4,)),
}  # fmt: skip
case(playing.format("game"), game="hinge", **opponents)
case(playing.format("order"), order=jaxgen.games.Alternating(0), **opponents)
case(playing.format("sides"), sides=jaxgen.games.Latents(), **opponents)
case(playing.format("augment"), augment=0.5, **opponents)
for penalties in (jaxgen.games.R1(1.0), (jaxgen.games.R1(-1.0),), (10.0,)):
    case(playing.format("penalties"), penalties=penalties, **opponents)
case(run(", algorithm=algorithm"), "algorithm", model=gaussian, data=X, algorithm=jaxgen.tasks.Trimmed(1.5))
case("jaxgen.losses.recognition()(key, model, jaxgen.Batch(x), 0)", "model", model=gaussian, x=X)
case("loss(key, model, jaxgen.Batch(x), 0)", "loss", x=BITS, loss=jaxgen.losses.recognition(1), model=lambda:
     jaxgen.VAE.init(KEY, BITS, plane(), hidden=(2,), posterior=jaxgen.LinearRegression.from_values(
         np.zeros((2, 4)), np.zeros(2), np.eye(2))))  # fmt: skip
case("Stream(source)", source=lambda: {"y": X}, x=X, weight=np.ones(12))
case("synthetic.two_moons(key, 3)", "key", key=0)

# metrics and pictures
case("jaxgen.score(key, model, data)", "data", model=gaussian, data=X[0])

# hidden variables
latents = lambda: jaxgen.VAE.init(KEY, BITS, jaxgen.StandardNormal((2,)), hidden=(4,))  # noqa: E731
case("jaxgen.data.binarized(0, x)", "x", x=BITS * 255)
case("jaxgen.data.dequantized(0, x)", "x", x=BITS * 0.5)
case(run(", algorithm=jaxgen.FactorVAE(critic)"), "critic", model=latents, data=BITS, critic=MLP((2,)))
case("jaxgen.metrics.bounds(key, vae, data, samples=2, steps=0)", "data", vae=latents, data=BITS[0])
case("jaxgen.metrics.sap(codes, x[:, 0, :2])", "codes", codes=BITS[:, :, None], x=X[:len(BITS), None])
case("vae.impute(key, x)", "vae", vae=latents, x=BITS)
case("jaxgen.plot.latent_map(z)", None, z=X[:, :1])
case("jaxgen.plot.traversals(vae, z)", "z", vae=lambda: jaxgen.VAE.init(
     KEY, np.zeros((4, 2, 3)), jaxgen.StandardNormal((2,)), hidden=(4,)), z=X[:, :2])  # fmt: skip
case("jaxgen.bic(model, data)", "data", model=gaussian, data=X[0])
case("jaxgen.bic(model, data)", model=machine, data=BITS)
case("jaxgen.icl(model, data)", model=gaussian, data=X)
case("jaxgen.metrics.standard_errors(model, data)", "data", data=np.zeros(2),
     model=lambda: jaxgen.DiagonalGaussian.from_values(np.zeros(2), np.ones(2)))  # fmt: skip
case("jaxgen.metrics.standard_errors(model, x)", model=lambda: jaxgen.Bernoulli(jnp.array([jnp.inf])), x=np.zeros((3,
     1)))  # fmt: skip
case("jaxgen.metrics.align(model, reference)", model=mixture, reference=lambda: jaxgen.Mixture.init(KEY, X, 2,
     jaxgen.Gaussian.init), x=X)  # fmt: skip
case("jaxgen.metrics.align(model, reference)", model=mixture, reference=lambda: jaxgen.Mixture.init(KEY, X + 1, 2,
     jaxgen.DiagonalGaussian.init), x=X)  # fmt: skip
case("jaxgen.metrics.align(model, model, x)", "x", model=chain, x=np.array([1, 9, 8, 0]))
case("jaxgen.metrics.ais(key, path, chains=1)", path=machine)
case("jaxgen.metrics.reverse_ais(key, model, x, steps=2)", "_", model=machine, x=BITS[:1])
case("jaxgen.metrics.log_likelihood(model, x)", x=X,
     model=lambda: jaxgen.EnergyModel.init(KEY, X, plane(), network=MLP((1,), zero_last=True), moves=1))  # fmt: skip
case("jaxgen.metrics.log_likelihood(model, x, 3.0)", model=machine, x=BITS)
case("jaxgen.metrics.spectrum(key, play(optimizer), play(optimizer).init(key, model), jaxgen.Batch(x), size=1)",
     "optimizer", x=X, optimizer=optax.adam(0.1), model=lambda: jaxgen.Generator.init(KEY, X, plane(), hidden=()),
     play=lambda: lambda optimizer: jaxgen.Adversarial(MLP((1,), zero_last=True), optimizer, optimizer,
                                                       order=jaxgen.games.Simultaneous()))  # fmt: skip
for white, grey in ((1, 9.0), (9, 1.0)):
    case(f"grey_features(images, white={white})", None, images=np.full((1, 28, 28), grey))
case("jaxgen.tasks.attribution(model, x)", "model", x=BITS.astype(int),
     model=lambda: jaxgen.NegativeBinomial.from_values([1.0, 2.0], [1.0, 1.0]))  # fmt: skip
case("jaxgen.tasks.multi_information(key, model, samples=2)", "model",
     model=lambda: jaxgen.Laplace.from_values([0.0, 0.0], [1.0, 1.0]))  # fmt: skip
case("jaxgen.metrics.bits_per_dim(score, 2)", score=lambda: jaxgen.metrics.likelihood.Score(1.0, 1.0,
     jaxgen.metrics.likelihood.Kind.UNNORMALISED, 3), model=machine, x=BITS)  # fmt: skip
case("jaxgen.metrics.monitors.exact(key, model, jaxgen.core.inputs.as_batch(x))", model=gaussian, x=X)
case("model.log_partition()",
     model=lambda: jaxgen.RandomField.from_matrix(units.Gaussian.zeros(2), 0.1 - 0.1 * np.eye(2)))  # fmt: skip
case("model.log_partition()", model=lambda: jaxgen.RBM.from_units(units.Gaussian.zeros(2), units.Gaussian.zeros(2),
     jnp.zeros((2, 2))))  # fmt: skip
case("model.pseudo_log_likelihood(x)", model=lambda: jaxgen.RBM.from_units(units.Gaussian.zeros(2),
     units.Bernoulli.zeros(2), jnp.zeros((2, 2))), x=X)  # fmt: skip
case("jaxgen.plot.ellipses(model, coordinates=coordinates)", "_", coordinates=None,
     model=lambda: jaxgen.Mixture.init(KEY, np.c_[X, X], 2, jaxgen.DiagonalGaussian.init))  # fmt: skip
case("jaxgen.plot.responsibilities(model, x, coordinates=coordinates)", "_", coordinates=None, x=np.c_[X, X],
     model=lambda: jaxgen.Mixture.init(KEY, np.c_[X, X], 2, jaxgen.DiagonalGaussian.init))  # fmt: skip
case("jaxgen.plot.responsibilities(model, x)", model=gaussian, x=X)
case("jaxgen.plot.decoded(model, x)", model=gaussian, x=np.arange(4.0), path=np.array([0, 0, 1, 1]))
case("jaxgen.plot.decoded(model, x)", "x", model=chain, x=np.array([[1, 9, 8, 0]]))
case("jaxgen.plot.points(x)", "x", x=np.c_[X, X])
case("jaxgen.plot.images(array)", "array", array=np.zeros((3, 16)), height=4, width=4)
case("jaxgen.select(key, x, ks, kinds, steps=1, restarts=1, progress=False)", "ks", x=X, ks=[0],
     kinds={"diagonal": jaxgen.DiagonalGaussian.init})
case("jaxgen.annealing.ladder(betas, 5, 'f')", "betas", betas=np.linspace(0, 2, 5))

# models
case("jaxgen.Dequantized.init(key, x, lambda key, u: jaxgen.StandardNormal((2,)))", "x", x=X)
case("jaxgen.Bernoulli.init(key, x)", "x", x=X)
case("jaxgen.Categorical.init(key, x)", "x", x=X)
case("jaxgen.Bernoulli.from_values([0.5]).check_data(x)", "x", x=np.array([[0.2]]))
case("jaxgen.Bernoulli.from_values(probs)", "probs", probs=np.array([1.5]))
case("jaxgen.Poisson.from_values(rate)", "rate", rate=np.array([-1.5]))
case("jaxgen.VonMises.from_values(0.0, concentration)", "concentration", concentration=np.array([-1.5]))
case("jaxgen.VonMises.init(key, x).check_data(x)", "x", x=X + 1e5)
case("jax.jit(lambda x: make(key, x))(x)", "make", make=lambda: jaxgen.Categorical.init, x=np.array([0, 1]), n=2)
case("jaxgen.Categorical.from_values(probs)", "probs", probs=np.array([1.0, 3.0]))
case("jaxgen.HMM.from_values(initial, np.eye(2), jaxgen.Poisson.from_values([1.0, 9.0]))", "initial",
     initial=np.ones(2))
case("jaxgen.InputChain.from_values(initial, np.eye(2), 1)", "initial", initial=np.ones(2))
case("jaxgen.InputChain.from_values(None, np.eye(2), coefficients)", "_", coefficients=np.zeros((2, 2)))
case("chain.log_transition", chain=lambda: jaxgen.InputChain.from_values(None, np.eye(2), 1), u=np.zeros(1))
case("jaxgen.SemiMarkovChain.from_values(initial, 1 - np.eye(2), np.eye(2))", "initial", initial=np.ones(2))
for wrong in ([[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.5, 1.0]], [[0.0, 0.0], [0.0, 0.0]]):
    names = {"covariance": wrong, "mean": np.zeros(2)}
    case("jaxgen.Gaussian.from_values(mean, covariance)", "covariance", **names)
    case("jaxgen.NoisyGaussian.from_values(mean, covariance)", "covariance", **names)
    case("jaxgen.LinearRegression.from_values(np.zeros((2, 1)), mean, covariance)", "covariance", **names)
    case("jaxgen.StudentT.from_values(np.zeros(2), scale_matrix, 3.0)", "scale_matrix", scale_matrix=wrong)
    case("jaxgen.NormalWishart.from_values(np.zeros(2), scatter)", "scatter", scatter=wrong)
case("jaxgen.NormalWishart.from_values(np.zeros(2), scatter)", "scatter", scatter=[1.0, -1.0])
case("jaxgen.NormalWishart.from_values(np.zeros(2), np.ones(2), strength=strength, df=df)", "_",
     strength=-1.0, df=0.5)  # fmt: skip
case("model.check_data(x)", "x", model=lambda: jaxgen.StudentT.init(KEY, X), x=HOLED)
case("jaxgen.Gaussian.init(key, x)", "x", x=X[:, 0])
case("jaxgen.LowRankGaussian.init(key, x, rank=1)", "x", x=X[:, 0])
case("jaxgen.Gaussian.init(key, x)", "x", x=X * 1e30)
case("jaxgen.NormalWishart.init(key, x)", "x", x=X[:, :, None])
case("jaxgen.LinearRegression.init(key, X, context)", "context", X=X, context=X[:, 0])
case("jaxgen.lagged(x, 1)", "x", x=np.arange(5.0))
case("jaxgen.HMM.init(key, x, 2, jaxgen.Poisson.init)", "x", x=np.array([1, 2, 9, 8]))
case("jaxgen.HMM.init(key, x, 2, jaxgen.DiagonalGaussian.init)", "x", x=np.array([[1.0, 2, 9, 8]]))
case("model.check_label(label)", "label", model=mixture, label=np.array([7] * 6 + [9] * 6))
PAIR = {"model": gaussian, "other": gaussian, "x": X, "leaf": [jaxgen.Gaussian.init, jaxgen.DiagonalGaussian.init]}
case("jaxgen.Mixture.init(key, x, 3, leaf)", **PAIR)
case("jaxgen.HMM.init(key, x[None], 3, leaf)", **PAIR, initial=[0.5, 0.5], transition=[[0.5, 0.5], [0.5, 0.5]])
case("model.log_prob(x)", x=X, model=lambda: jaxgen.Mixture.from_components(
    [jaxgen.VAE.init(k, X, jaxgen.StandardNormal((1,)), hidden=(2,), likelihood=jaxgen.likelihoods.gaussian)
     for k in jax.random.split(KEY)]))  # fmt: skip
case("jaxgen.RandomField.from_matrix(units.Spin.zeros(2), couplings)", "couplings", couplings=np.array([[1.0, 2.0],
     [0.0, 1.0]]))  # fmt: skip
case("jaxgen.RBM.from_units(units.Bernoulli.zeros(3), units.Bernoulli.zeros(2), weights)", "weights",
     weights=np.zeros((2, 3)))  # fmt: skip
case("jaxgen.RBM.from_values(np.zeros(3), np.zeros(2), weights)", "weights", weights=np.zeros((2, 3)))
case("jaxgen.RBM.init(key, x, 0)", x=BITS)
case("jaxgen.VariationalMixture.init(key, x, 2, jaxgen.NormalWishart.init, concentration=concentration)", "_", x=X,
     concentration=-1.0, k=2)
case("jaxgen.EnergyModel.init(key, x, base)", "base", x=X, base=lambda: jaxgen.StandardNormal((3,)))
case("jaxgen.EnergyModel.init(key, x, jaxgen.StandardNormal((2,)), network=network)", "network", x=X,
     network=lambda: MLP((4, 2)))  # fmt: skip
case("jaxgen.Flow.init(key, x, jaxgen.StandardNormal((2,)), layers=1)", "x", x=X[:, :, None])
case("jaxgen.Flow.init(key, x, jaxgen.StandardNormal((2,)), layers=1)", "x", x=(2, 1))
case("jaxgen.Flow.init(key, x, base, layers=1)", "base", x=X, base=lambda: jaxgen.StandardNormal((3,)))
case("jaxgen.Flow(base, Standardize.from_data(x)).event_shape", "base", x=X, base=lambda: jaxgen.StandardNormal((3,)))
case("jaxgen.Flow.init(key, x, jaxgen.StandardNormal((2,)), layer, layers=1, support=circle)", "layer", x=X,
     layer=lambda: Coupling.init)  # fmt: skip
case("flow.check(key, x)", "x", flow=flow, x=X[0])
case("jaxgen.Generator.init(key, x, base)", "base", x=X, base=lambda: jaxgen.StandardNormal(()))
case("jaxgen.Generator.init(key, x, jaxgen.StandardNormal((2,)), module=module)", "module", x=X, module=lambda: MLP((4,
     3)))  # fmt: skip
case("jaxgen.Generator.init(key, x, base, module=module)", "base", x=np.zeros((2, 4, 4)), base=plane,
     module=nn.StyleGenerator((4, 4), latent=1, noise=False, width=1, style=1, mapping=1))  # fmt: skip
case("jaxgen.VAE.init(key, x, prior)", "prior", x=BITS, prior=lambda: jaxgen.StandardNormal(()))
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), posterior=posterior)", "posterior", x=BITS,
     posterior=lambda: jaxgen.posteriors.ConditionalNormal((3,)))  # fmt: skip
case("jaxgen.SemiSupervised.init(key, x, component)", "component", x=BITS,
     component=lambda: jaxgen.StandardNormal((3,)))  # fmt: skip
case("jaxgen.SemiSupervised.init(key, x, component, probs=probs)", "_", x=BITS, probs=np.ones(2), component=lambda:
     jaxgen.VAE.init(KEY, BITS, jaxgen.StandardNormal((2,)), hidden=(4,), context_shape=(2,)))  # fmt: skip
case("jaxgen.VAE.init(key, x, prior, context_shape=context_shape)", "_", x=BITS, context_shape=None,
     prior=lambda: jaxgen.Flow.init(KEY, X, jaxgen.StandardNormal((2,)), functools.partial(Coupling.init,
     context_shape=(1,)), layers=1))  # fmt: skip
case("jaxgen.VAE.init(key, x, prior(), likelihood=jaxgen.likelihoods.bernoulli, standardize=standardize)", "_", x=BITS,
     prior=lambda: plane, standardize=True)  # fmt: skip
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=likelihood)", "x", x=BITS * 255,
     likelihood=lambda: jaxgen.likelihoods.bernoulli)  # fmt: skip
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=likelihood)", "likelihood", x=X,
     likelihood=lambda: jaxgen.likelihoods.bernoulli)  # fmt: skip
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=likelihood)", "likelihood", x=X, likelihood=3)
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=likelihood)", "x", x=BITS / 3,
     likelihood=lambda: jaxgen.likelihoods.LogisticLevels(256))  # fmt: skip
case("jaxgen.VAE.init(key, x, jaxgen.StandardNormal((2,)), likelihood=likelihood)", "x", x=BITS + 2.3,
     likelihood=lambda: jaxgen.likelihoods.poisson)  # fmt: skip

case("jaxgen.Mixture.init(key, x, 2, leaf)", None, x=X, leaf=lambda: planar)
case("jaxgen.HMM.init(key, x[None], 2, leaf)", None, x=X, leaf=lambda: planar, initial=[0.5, 0.5], transition=np.eye(2),
     model=flow, other=flow)  # fmt: skip
case("jaxgen.impute(key, model, x)", None, x=HOLED, model=lambda: jaxgen.Mixture.init(
     KEY, HOLED, 2, functools.partial(jaxgen.DiagonalGaussian.init, missing=True)))  # fmt: skip

# quantiles, forecasts, pictures
case("model.quantile(level)", "level", model=lambda: jaxgen.Laplace.from_values([0.0], [1.0]), level=5.0)
case("hmm.forecast(state, horizon)", None, hmm=chain, state=np.log(np.full((3, 2), 0.5)), horizon=2)
case("hmm.forecast(np.log([0.5, 0.5]), 2).interval(level)", "_", hmm=chain, level=-0.5)
case("hmm.sample_paths(key, state, horizon)", None, hmm=waves, state=np.log([0.5, 0.5]), horizon=3, lags=1, x=X[:, :1])
case("model.quantile(level)", None, model=flow, level=0.5)
case("model.quantile(level)", None, model=lambda: jaxgen.DistraxLeaf.from_values(
     {"loc": jnp.zeros(2)}, lambda p: distrax.MultivariateNormalDiag(p["loc"]), (2,)), level=0.5)  # fmt: skip
case("jaxgen.plot.corner(None, x)", "x", x=X[None])
case("jaxgen.plot.histogram(model, x)", None, model=lambda: jaxgen.RBM.init(KEY, BITS, 2), x=BITS)
case("jaxgen.plot.forecast(hmm.forecast(np.log([0.5, 0.5]), 2), intervals=intervals)", "_", hmm=chain,
     intervals=(2.0,))  # fmt: skip

# networks, layers, units, numerics
case("layer.forward_and_log_det(x)", layer=lambda: Standardize.from_data(X), x=X)
case("jaxgen.bijections.Autoregressive.init(key, x)", "x", x=X[:, :, None])
case("conv1x1(key, x)", "x", x=np.zeros((2, 4, 4)))
case("Permute.from_values(order)", "order", order=[0, 0, 1])
case("jaxgen.Net.init(key, module, (3,))", module=3)
case("jaxgen.Net.init(key, MLP(features, out_shape=(3,)), (2,))", "_", features=(4, 2))
case("nn.Spectral.init(key, module, (2,))", "module", module=flax.linen.LayerNorm())
case("units.Group.of(3)")
for layer, data in (
    ("Bernoulli.zeros(2)", X),
    ("Spin.zeros(2)", X),
    ("Categorical.zeros(2, 2)", 3 * BITS),
    ("Rectified.zeros(2)", X),
):
    case(f"units.{layer}.check(x, 'f')", "x", x=data)
case("jaxgen.RBM.init(key, x, 2)", "x", x=BITS[:, :, None])
case("chains.forward_filter(pi, a, b, length=length)", "length", pi=np.log([0.5, 0.5]), a=np.log(np.full((2, 2), 0.5)),
     b=np.zeros((3, 2)), length=np.float32(2))  # fmt: skip
case("linalg.cholesky(scale)", "scale", scale=jnp.ones(2))
case("linalg.solve_tril(jnp.eye(2), b)", "b", b=jnp.ones(2))
case("jaxgen.samplers.sample_chain(key, jaxgen.samplers.MALA(0.1), lambda x: -jnp.sum(x**2), x, draws=2)", "x",
     x=np.arange(2))  # fmt: skip
case("jaxgen.samplers.Spread(3)")
case("jaxgen.EnumeratedBernoulli((13,)).outcomes()")
case("jaxgen.EnumeratedCategorical((4, 10)).outcomes()")
case("jaxgen.tasks.features(model, x, which='latents')", None, x=X,
     model=lambda: jaxgen.Mixture.init(KEY, X, 2, jaxgen.Gaussian.init))
case("jaxgen.tasks.features(model, x, which='hidden')", None, x=BITS, model=lambda: jaxgen.RBM.init(KEY, BITS, 2))
case("jaxgen.tasks.linear_probe(key, z, [0, 1] * 6, ridge=0.1)", "z", z=X[:, :, None])
case("jaxgen.tasks.spread_labels(z, [0, 1] * 6)", "z", z=X[:, :, None])
words("jaxgen.tasks.features(model, x)", model=lambda: jaxgen.Gaussian.init(KEY, X), x=X)
