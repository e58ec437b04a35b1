"""Numbers of few bits: 16-bit floats are widened where they enter; small integers and counters do not overflow."""

import functools
import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from case import as_dtype

import jaxgen as jg
from jaxgen.core.inputs import widened
from jaxgen.data import Stream
from jaxgen.nn.net import Net
from jaxgen.ops import chains
from jaxgen.ops.linalg import cholesky

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FOUR = np.float32([[0.0], [1.0], [2.0], [3.0]])
HALVES = [jnp.float16, jnp.bfloat16]


def same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_whose_sum_is_beyond_half_precision(dtype):
    start = jg.DiagonalGaussian.from_values(np.float32([0.5]), np.float32([0.5]))
    heavy, one = (FOUR, None, np.full(4, 20_000, dtype)), (FOUR, None, np.ones(4, np.float32))
    fitted = jg.fit(KEY, start, heavy, jg.EM())
    assert fitted.status is jg.Status.CONVERGED
    np.testing.assert_allclose(fitted.model.scale, [np.std(FOUR)], rtol=1e-6)
    np.testing.assert_allclose(fitted.model.scale, [1.118], atol=1e-3)
    how = jg.Gradient(jg.losses.nll, optax.sgd(0.1))
    of_heavy, of_one = (jg.fit(KEY, start, data, how, steps=5) for data in (heavy, one))
    np.testing.assert_allclose(of_heavy.history["loss"], of_one.history["loss"], rtol=1e-6)
    assert of_one.history["loss"][0] > of_one.history["loss"][-1] + 0.1
    np.testing.assert_allclose(of_heavy.model.mean, of_one.model.mean, rtol=1e-6)
    inside = jax.jit(lambda w: jg.scan_fit(KEY, start, (FOUR, None, w), jg.EM(), steps=2).model)(heavy[2])
    streamed = jg.fit(KEY, start, Stream(heavy, chunk=4), jg.EM(), steps=2).model
    for model in (inside, streamed):
        np.testing.assert_allclose(model.scale, [np.std(FOUR)], rtol=1e-6)
    np.testing.assert_allclose(jg.score(KEY, start, heavy).mean, jg.score(KEY, start, one).mean, rtol=1e-6)
    # the losses by themselves, too
    batch = jg.Batch(jnp.asarray(FOUR), None, jnp.asarray(heavy[2]))
    np.testing.assert_allclose(jg.losses.nll(KEY, start, batch), of_one.history["loss"][0], rtol=1e-6)


MANY = 70_000  # more than the largest number of float16
REAL, COUNTS = RNG.normal(2, 3, (MANY, 2)), RNG.poisson(3.0, (MANY, 2))
STARTS = {
    "gaussian": (jg.Gaussian.init, REAL),
    "diagonal": (jg.DiagonalGaussian.init, REAL),
    "low rank": (functools.partial(jg.LowRankGaussian.init, rank=1), REAL),
    "student": (jg.StudentT.init, REAL[:500]),
    "gamma": (jg.Gamma.init, np.exp(REAL / 4)),
    "von mises": (jg.VonMises.init, REAL),
    "poisson": (jg.Poisson.init, COUNTS),
    "negative binomial": (jg.NegativeBinomial.init, COUNTS[:500]),
    "bernoulli": (jg.Bernoulli.init, COUNTS > 2),
    "categorical": (functools.partial(jg.Categorical.init, size=40), COUNTS),
    "normal wishart": (jg.NormalWishart.init, REAL[:500]),
    "product": (functools.partial(jg.Product.init, blocks={0: jg.Poisson.init, (1,): jg.Gaussian.init}), COUNTS),
    "mixture": (lambda key, x: jg.Mixture.init(key, x, 2, jg.DiagonalGaussian.init), REAL),
    "hmm": (lambda key, x: jg.HMM.init(key, x.reshape(50, -1, 2), 2, jg.DiagonalGaussian.init), REAL[:1000]),
    "rbm": (lambda key, x: jg.RBM.init(key, x, 3), COUNTS > 2),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_starts_of_tables_in_half_precision(name):
    """The start is that of the same rounded numbers in float32."""
    make, x = STARTS[name]
    for dtype in HALVES if name == "gaussian" else HALVES[:1]:
        half = np.asarray(x).astype(dtype)
        same(make(KEY, half), make(KEY, half.astype(np.float32)))
        same(make(KEY, jnp.asarray(half)), make(KEY, half.astype(np.float32)))


def test_networks_train_on_half_precision_as_on_single():
    x = RNG.normal(40, 30, (300, 3)).astype(np.float16)
    flow, adam = jg.recipes.realnvp(KEY, x, layers=2, features=(8,))
    vae = jg.VAE.init(KEY, x, jg.StandardNormal((2,)), hidden=(8,), likelihood=jg.likelihoods.gaussian)
    for model, how in ((flow, adam), (vae, None)):
        half, single = (jg.fit(KEY, model, data, how, steps=3) for data in (x, x.astype(np.float32)))
        assert half.status is jg.Status.FINISHED
        same((half.model, half.history), (single.model, single.history))


def test_sequences_contexts_and_labels_in_half_precision():
    rows = [RNG.normal(size=(n, 2)).astype(np.float16) for n in (5, 9, 3)]
    half, single = (jg.Sequences.pack([row.astype(kind) for row in rows], steps=9) for kind in (np.float16, np.float32))
    chain = jg.HMM.init(KEY, half, 2, jg.DiagonalGaussian.init)
    same(chain, jg.HMM.init(KEY, single, 2, jg.DiagonalGaussian.init))
    by_hand = jg.Sequences(half.x.astype(np.float16), half.length)
    same(chain.log_prob(by_hand), chain.log_prob(single))
    same(*(jg.fit(KEY, chain, data, steps=2).history for data in (by_hand, single)))
    u, x = RNG.normal(size=(2, 40, 2)).astype(np.float16)
    line = jg.LinearRegression.init(KEY, x, u)
    same(line, jg.LinearRegression.init(KEY, x.astype(np.float32), u.astype(np.float32)))
    same(line.log_prob(x, context=u), line.log_prob(x.astype(np.float32), context=u.astype(np.float32)))
    same(line.sample(KEY, (40,), context=u), line.sample(KEY, (40,), context=u.astype(np.float32)))
    label = np.where(x[:, 0] > 0, 1, -1)
    mixture = jg.Mixture.init(KEY, x, 2, jg.DiagonalGaussian.init)
    same(*(jg.fit(KEY, mixture, dict(x=x, label=label.astype(kind)), steps=2).model for kind in (np.float16, np.int32)))
    gap = np.where(RNG.random(x.shape) < 0.2, np.nan, x).astype(np.float16)
    table = jg.Gaussian.init(KEY, gap, missing=True)
    same(table.impute(gap), table.impute(gap.astype(np.float32)))


def test_parameters_in_half_precision_are_widened():
    """[.2, .3, .5] sums to one but for what bfloat16 rounds, and is divided by its sum."""
    share = np.asarray([0.2, 0.3, 0.5], jnp.bfloat16)
    mean, cov = np.zeros((3, 2), np.float16), np.stack([np.eye(2, dtype=np.float16)] * 3)
    leaf = jg.Gaussian.from_values(mean, cov)
    move = np.stack([share] * 3)
    made = [
        leaf, jg.Mixture.from_components(leaf, share), jg.HMM.from_values(share, move, leaf),
        jg.Categorical.from_values(share), jg.Poisson.from_values(share), jg.Bernoulli.from_values(share),
        jg.Gamma.from_values(share, share), jg.VonMises.from_values(share, share),
        jg.DiagonalGaussian.from_values(share, share),
        jg.RBM.from_values(share, share, move), jg.StudentT.from_values(mean, cov, np.float16(5.0)),
        jg.NegativeBinomial.from_values(share, share),
        jg.LowRankGaussian.from_values(mean[0], np.ones((2, 1), np.float16), np.ones(2, np.float16)),
    ]  # fmt: skip
    for model in made:
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}, model
    np.testing.assert_allclose(jnp.sum(made[3].probs), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_models_in_half_precision_answer_and_train_in_single(dtype):
    x = RNG.normal(size=(300, 2)).astype(np.float32)
    model = jg.Mixture.init(KEY, x, 2, jg.Gaussian.init)
    half = as_dtype(model, dtype)
    same(half.log_prob(x), widened(half).log_prob(x))
    same(half.sample(KEY, (3,)), widened(half).sample(KEY, (3,)))
    same(jg.fit(KEY, half, x, steps=3).model, jg.fit(KEY, widened(half), x, steps=3).model)
    assert {leaf.dtype for leaf in jax.tree.leaves(jg.fit(KEY, half, x, steps=3).model)} == {jnp.dtype(jnp.float32)}


def test_exact_sums_over_models_in_half_precision():
    """Partition functions add up thousands of states: in bfloat16 they would stop after a few hundred."""
    field = jg.RandomField.from_edges(jg.units.Spin.zeros(12), [[0, 1], [1, 2]], [0.5, -0.25])
    machine = jg.RBM.from_values(np.zeros(12), np.zeros(12), np.zeros((12, 12)))
    for model, exact in ((field, 12 * np.log(2) + np.log(np.cosh([0.5, 0.25])).sum()), (machine, 24 * np.log(2))):
        half = as_dtype(model, jnp.bfloat16)  # of these numbers an exact copy
        np.testing.assert_allclose(half.log_partition(), exact, rtol=1e-5)


def test_a_network_may_work_in_bfloat16_but_no_sum_is():
    net = Net.init(KEY, nn.Dense(3, dtype=jnp.bfloat16), (2,))
    assert net(jnp.ones(2)).dtype == jnp.float32
    np.testing.assert_allclose(net(jnp.ones(2)), net.params["kernel"].sum(0), rtol=2e-2)  # bfloat16


def test_chains_and_factors_in_half_precision():
    rows = np.log(RNG.dirichlet(np.ones(3), 40)).astype(np.float16)
    half = (rows[0], rows[1:4], rows)
    wide = tuple(a.astype(np.float32) for a in half)
    same(chains.log_normalizer(*half), chains.log_normalizer(*wide))
    state = chains.start_filter(rows[0], rows[1])
    same(chains.filter_step(state, rows[2], rows[1:4]), chains.filter_step(state, wide[2][2], wide[1]))
    assert state.log_normalizer.dtype == jnp.float32
    cov = (np.eye(3) + 0.1).astype(np.float16)
    same(cholesky(cov), cholesky(cov.astype(np.float32)))
    draws, _ = jg.samplers.sample_chain(KEY, jg.samplers.MALA(0.1), lambda x: -jnp.sum(x**2), rows[0], draws=2)
    assert draws.dtype == jnp.float32


def test_numbers_that_ended_a_rounding_beyond_their_range():
    """Shares added up in float32, and greys times 1/255, may end at 1.0000001."""
    over = np.nextafter(np.float32(1), np.float32(2))
    assert jg.Bernoulli.from_values([over, 0.5]).probs.tolist() == jg.Bernoulli.from_values([1.0, 0.5]).probs.tolist()
    grey = np.float32([[0.0, 0.5], [over, 0.2]])
    vae = jg.VAE.init(KEY, grey, jg.StandardNormal((1,)), hidden=(2,))
    vae.check_data(grey)
    with pytest.raises(jg.DataError, match="support"):
        vae.check_data(grey * 1.001)
    with pytest.raises(jg.ModelError, match="between 0 and 1"):
        jg.Bernoulli.from_values([1.001])


def test_pieces_of_a_stream_in_several_dtypes():
    """As `pandas.read_csv(chunksize=)` gives them: a column is whole numbers here, and has fractions there."""
    x = np.concatenate([np.arange(50), np.arange(60) / 8])[:, None]

    def pieces(first=np.int64, then=np.float64):
        return lambda: iter([x[:50].astype(first), x[50:].astype(then)])

    start = jg.DiagonalGaussian.from_values(np.float32([1.0]), np.float32([1.0]))
    whole = jg.fit(KEY, start, x, jg.EM(), steps=2)
    for kinds in ((np.int64, np.float64), (np.uint8, np.float16), (jnp.bfloat16, np.float32)):
        for chunk in (25, 30, 110):  # with a chunk that begins whole and ends in fractions, and without
            stream = Stream(pieces(*kinds), chunk=chunk)
            got = np.concatenate([b.x[b.weight > 0] for b in stream])
            np.testing.assert_array_equal(got, x)
            np.testing.assert_array_equal(stream.head(70).x, x[:70])
            assert len(stream.sample(KEY, 200).x) == 110
        fitted = jg.fit(KEY, start, Stream(pieces(*kinds), chunk=30), jg.EM(), steps=2)
        np.testing.assert_allclose(fitted.model.scale, whole.model.scale, rtol=1e-6)
    back = Stream(pieces(np.float64, np.int64), chunk=30)
    assert {b.x.dtype for b in back} == {np.dtype(float)}
    table = io.StringIO("a,b\n" + "\n".join(f"{i},{i / 4 if i > 5 else i}" for i in range(12)))
    read = list(pd.read_csv(table, chunksize=4))
    assert {str(piece.b.dtype) for piece in read} == {"int64", "float64"}
    x = pd.concat(read).to_numpy()
    np.testing.assert_array_equal(np.concatenate([b.x[b.weight > 0] for b in Stream(lambda: iter(read), chunk=5)]), x)


def test_small_integers_do_not_overflow():
    """Numbers whose sums and squares are beyond int8."""
    x = RNG.integers(90, 127, (300, 2))
    for make in (jg.Poisson.init, functools.partial(jg.Categorical.init, size=200)):
        wide = make(KEY, x.astype(np.int32))
        for kind in (np.int8, np.uint8):
            same(make(KEY, x.astype(kind)), wide)
            same(wide.log_prob(x.astype(kind)), wide.log_prob(x.astype(np.int32)))
    start = jg.DiagonalGaussian.from_values(np.float32([100.0, 100.0]), np.float32([9.0, 9.0]))
    weights = [np.full(300, 100, kind) for kind in (np.int8, np.float32)]
    models = [jg.fit(KEY, start, (x.astype(np.int8), None, w), steps=2).model for w in weights]
    for model in models:
        np.testing.assert_allclose(model.scale, x.std(axis=0), rtol=1e-5)
    levels = jg.Dequantized.init(KEY, x, lambda key, y: jg.DiagonalGaussian.init(key, y), low=-1, high=200)
    for kind in (np.int8, np.uint8, np.uint32):
        same(levels.elbo(KEY, x.astype(kind)), levels.elbo(KEY, x))
    noisy = jg.losses.denoising_score_matching(0.5)
    whole, real = (jg.Batch(jnp.asarray(x.astype(kind))) for kind in (np.int8, np.float32))
    np.testing.assert_array_equal(noisy(KEY, start, whole), noisy(KEY, start, real))
    flags = jg.fit(KEY, start, (x, None, np.arange(300) % 2 == 0), steps=2).model
    np.testing.assert_allclose(flags.mean, x[::2].mean(axis=0), rtol=1e-6)


def test_counters_go_on_beyond_the_last_whole_float32():
    """Eighteen million labels, all but one million zeros: a float32 counter stops at 16,777,216."""
    x = np.zeros(18_000_000, np.int8)
    x[::18] = 1
    np.testing.assert_allclose(jg.Categorical.init(KEY, x, size=2).probs, [17 / 18, 1 / 18], rtol=1e-5)
    weight = jnp.ones(len(x), jnp.float32)
    np.testing.assert_allclose(jg.losses.weighted_mean(weight, weight), 1, rtol=1e-6)
