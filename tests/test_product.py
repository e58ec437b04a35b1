"""Products of blocks against their parts: densities, EM, starts, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.frozen import frozen_leaves
from jaxgen.core.pytree import model, static
from jaxgen.core.value import value_key
from jaxgen.models.latent.product import Product
from jaxgen.ops import scales

RNG = np.random.default_rng(0)
SCALE = np.array([[1.0, 0.4], [0.4, 0.5]])
GROUP = np.arange(300) < 120
#: measurements in columns 0 and 2, a label in 1, a count in 3
TABLE = np.stack(
    [RNG.normal(np.where(GROUP, 1e3, -1e3), 300.0), np.where(RNG.uniform(size=300) < 0.9, GROUP, 2 - GROUP),
     RNG.normal(size=300), RNG.poisson(np.where(GROUP, 2.0, 9.0))], axis=1,
).astype(np.float32)  # fmt: skip
LEAVES = {(0, 2): jg.Gaussian.init, 1: functools.partial(jg.Categorical.init, size=3), (3,): jg.Poisson.init}


def table():
    return Product.from_blocks(
        [((0, 2), jg.Gaussian.from_values(np.array([0.5, -1.0]), SCALE)),
         (1, jg.Categorical.from_values(np.array([0.2, 0.3, 0.5]))), ((3,), jg.Poisson.from_values(np.array([4.0])))],
    )  # fmt: skip


def test_log_prob_is_the_sum_over_scipys_blocks():
    with jax.enable_x64(True):
        rows = np.array([[0.1, 2, -0.4, 3], [1.0, 0, 0.0, 7]])
        expected = (
            scipy.stats.multivariate_normal([0.5, -1.0], SCALE).logpdf(rows[:, [0, 2]])
            + np.log([0.5, 0.2]) + scipy.stats.poisson(4.0).logpmf(rows[:, 3])
        )  # fmt: skip
        np.testing.assert_allclose(table().log_prob(rows), expected, rtol=1e-12)
        np.testing.assert_allclose(table().distribution().log_prob(rows), expected, rtol=1e-12)
        assert table().log_prob([0.1, 3, -0.4, 3]) == -jnp.inf  # no such label


def test_draws_put_each_block_into_its_columns():
    x = np.asarray(table().sample(jax.random.key(0), (4000,)))
    assert x.dtype == np.float32
    # five standard errors
    np.testing.assert_allclose(np.cov(x[:, [0, 2]].T), SCALE, atol=0.12)
    np.testing.assert_allclose(x.mean(axis=0), [0.5, 1.3, -1.0, 4.0], atol=0.16)
    assert set(x[:, 1]) == {0, 1, 2} and (x[:, 3] == np.round(x[:, 3])).all()


def test_statistics_and_maximum_are_the_blocks_own():
    weight = RNG.uniform(size=300).astype(np.float32)
    made = Product.init(jax.random.key(0), TABLE, LEAVES)
    new, repairs = made.maximize(made.e_step(TABLE, weight)[0])
    for block, old, columns in zip(new.blocks, made.blocks, ([0, 2], 1, [3]), strict=True):
        alone = old.m_step(old.e_step(TABLE[:, columns], weight)[0])
        for a, b in zip(jax.tree.leaves(block), jax.tree.leaves(alone), strict=True):
            # two programs' float32 sums, of numbers of a thousand
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert int(repairs) == 0
    _, repairs = made.maximize(made.e_step(TABLE, 0 * weight)[0])
    assert int(repairs) == 3
    assert latent.free_parameters(made) == sum(map(latent.free_parameters, made.blocks))


def test_a_mixture_finds_the_groups_whatever_the_units():
    start = jg.Mixture.init(jax.random.key(0), TABLE, 2, functools.partial(Product.init, blocks=LEAVES))
    fitted = jg.fit(jax.random.key(1), start, TABLE, jg.EM(), steps=50, tolerance=0.0)
    assert np.diff(fitted.history["log_likelihood"]).min() > -2e-5  # float32 rounding of values near 12
    label = np.asarray(fitted.model.predict(TABLE)) == 1
    assert max(np.mean(label == GROUP), np.mean(label != GROUP)) > 0.98
    again = functools.partial(Product.init, blocks=dict(LEAVES))
    assert value_key(again) == value_key(functools.partial(Product.init, blocks=LEAVES))


def test_every_column_has_the_same_say_in_the_start():
    made = Product.init(jax.random.key(0), TABLE, LEAVES)
    features = np.asarray(made.features(TABLE))
    assert features.shape == (300, 2 + 3 + 1)
    # in units of each feature's own scale; three indicators share the weight of one column
    weight = np.asarray(scales.columns(jnp.asarray(features)).scale) ** 2
    np.testing.assert_allclose([weight[:2].sum(), weight[2:5].sum(), weight[5]], [2, 1, 1], rtol=1e-4)
    holed = TABLE.copy()
    holed[:200, 2] = np.nan
    holed[:, 3] = 7.0
    features = np.asarray(made.features(holed))
    assert np.isnan(features[:200, 1]).all() and np.isfinite(features[200:]).all()
    np.testing.assert_allclose(scales.columns(jnp.asarray(features)).scale[1], 1, rtol=1e-4)
    assert (features[:, 5] == 0).all()


@model
class Anything:
    """A block of one column without an E-step, which allows holes and takes a context if asked."""

    shift: jax.Array
    event_shape: tuple[int, ...] = static(default=(1,))
    context_shape: tuple[int, ...] | None = static(default=None)
    missing: bool = static(default=True)

    def log_prob(self, x, *, context=None):
        return -0.5 * (jnp.nansum(x) - self.shift - (0 if context is None else jnp.sum(context))) ** 2

    def sample(self, key, shape=(), *, context=None, length=None):
        return jnp.zeros((*shape, 1)) + (0 if context is None else jnp.sum(context))


def test_missing_entries_and_contexts_go_to_the_blocks():
    open_block = Anything(jnp.float32(1.0))
    both = Product.from_blocks([((0,), open_block), ((1,), open_block)])
    assert latent.accepts_missing(both)
    np.testing.assert_allclose(both.log_prob([np.nan, 3.0]), -0.5 - 2.0)
    both.check_data(np.array([[np.nan, 1.0]]))
    mixed = Product.from_blocks([((0,), open_block), (1, jg.Poisson.from_values(2.0))])
    assert not latent.accepts_missing(mixed)
    mixed.check_data(np.array([[np.nan, 1.0]]))
    with pytest.raises(DataError, match="Poisson has missing entries.*in column 1"):
        mixed.check_data(np.array([[0.0, np.nan]]))
    with pytest.raises(DataError):
        mixed.check_data(np.array([[0.0, 1.5]]))  # the block's own support
    given = Product.from_blocks([((0,), Anything(jnp.float32(0), (1,), (2,))), (1, jg.Poisson.from_values(2.0))])
    alone = given.log_prob([[0.0, 1.0], [3.0, 1.0]], context=[1.0, 2.0])
    np.testing.assert_allclose(alone - np.log(2) + 2, [-4.5, 0.0], atol=1e-6)
    assert given.sample(jax.random.key(0), (2,), context=[1.0, 2.0])[0, 0] == 3
    with pytest.raises(ModelError, match="different shapes"):
        _ = Product.from_blocks(
            [((0,), Anything(jnp.float32(0), (1,), (2,))), ((1,), Anything(jnp.float32(0), (1,), (3,)))]
        ).context_shape


def test_a_mixture_trains_on_a_table_with_holes():
    leaves = {columns: functools.partial(leaf, missing=True) for columns, leaf in LEAVES.items()}
    x = np.where(np.random.default_rng(1).uniform(size=TABLE.shape) < 0.2, np.nan, TABLE)
    start = jg.Mixture.init(jax.random.key(0), x, 2, functools.partial(Product.init, blocks=leaves))
    fitted = jg.fit(jax.random.key(1), start, x, jg.EM(), steps=30, tolerance=0.0)
    assert np.diff(fitted.history["log_likelihood"]).min() > -2e-5  # float32 rounding of values near 10
    label = np.asarray(fitted.model.predict(x)) == 1
    assert max(np.mean(label == GROUP), np.mean(label != GROUP)) > 0.95
    # what was seen of an event is an event of the blocks that were seen
    one = algebra.take(fitted.model.components, 0)
    part = np.array([x[0, 0], np.nan, np.nan, 4.0], np.float32)
    expected = one.blocks[0].log_prob(part[[0, 2]]) + one.blocks[2].log_prob(part[3:])
    np.testing.assert_allclose(one.log_prob(part), expected, rtol=1e-5)
    with pytest.raises(DataError):
        Product.init(jax.random.key(0), x, LEAVES)


def test_any_density_is_a_block_and_em_says_where_it_does_not_apply():
    flow = jg.Flow.init(jax.random.key(0), TABLE[:, [0, 2]], jg.StandardNormal((2,)), layers=2)
    made = Product.from_blocks([((0, 2), flow), (1, jg.Categorical.from_values([0.2, 0.3, 0.5]))])
    x = TABLE[:, :3]
    np.testing.assert_allclose(
        made.log_prob(x), flow.log_prob(x[:, [0, 2]]) + made.blocks[1].log_prob(x[:, 1]), rtol=1e-5
    )
    assert not latent.supports_em(made) and latent.supports_em(table())
    with pytest.raises(jg.FitError, match="EM does not apply"):
        jg.fit(jax.random.key(0), made, x, jg.EM(), steps=1)


def test_held_rebased_and_priors_reach_the_blocks():
    made = Product.init(jax.random.key(0), TABLE, LEAVES)
    statistics = made.e_step(TABLE)[0]
    held = frozen_leaves(made, {"blocks[0].offset": True})
    seen = latent.freeze(made, statistics, held)
    alone = latent.freeze(made.blocks[0], statistics.blocks[0], held.blocks[0])
    for a, b in zip(jax.tree.leaves(seen.blocks[0]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b)
    other = Product.init(jax.random.key(0), TABLE[:50], LEAVES)
    moved = latent.recentre(other, made, statistics)
    alone = latent.recentre(other.blocks[0], made.blocks[0], statistics.blocks[0])
    for a, b in zip(jax.tree.leaves(moved.blocks[0]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b)
    pair = algebra.stack([made, other])
    np.testing.assert_allclose(latent.log_prior(made), sum(map(latent.log_prior, made.blocks)))
    np.testing.assert_allclose(
        latent.component_log_prior(pair), latent.log_prior(made) + latent.log_prior(other), rtol=1e-6
    )
    assert latent.component_free_parameters(pair) == 2 * latent.free_parameters(made)


def test_what_makes_no_product_is_refused():
    normal = jg.DiagonalGaussian.from_values([0.0], [1.0])
    key = jax.random.key(0)
    for bad, words in (
        ([((0,), normal), ((2,), normal)], "one block"), ([((0,), normal), ((0,), normal)], "one block"),
        ([], "one block"), ([(0, normal)], "bare int"), ([((0, 1), normal)], "not its columns"),
        ([("a", normal)], "no columns"), ([((), normal)], "no columns"), ([((0.5,), normal)], "no columns"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=words):
            Product.from_blocks(bad)
    with pytest.raises(DataError, match=r"x \[N, 4\]"):
        Product.init(key, TABLE[:, :3], LEAVES)
    with pytest.raises(DataError, match="outside the support"):
        Product.init(key, TABLE, {0: jg.Poisson.init, (1, 2, 3): jg.Gaussian.init})
    with pytest.raises(ShapeError):
        table().log_prob(TABLE[:, :3])
    assert Product.from_blocks({np.int64(0): jg.Poisson.from_values(1.0), range(1, 2): normal}).columns == (0, (1,))

def test_parts_of_a_product_are_those_of_its_blocks():
    """The marginal is scipy's, the law `p(x) = p(x_b) p(x_a | x_b)` holds, in mixtures too."""
    one = table()
    other = Product.from_blocks([(columns, block) for columns, block in zip(
        one.columns, (jg.Gaussian.from_values(np.array([2.0, 0.0]), 2 * SCALE),
                      jg.Categorical.from_values(np.array([0.6, 0.3, 0.1])), jg.Poisson.from_values(np.array([2.0]))),
        strict=True)])  # fmt: skip
    x = jnp.array([[0.1, 2, -0.4, 3], [1.0, 0, 0.0, 7]])
    part = one.marginal((3, 2))
    by_hand = scipy.stats.poisson(4.0).logpmf([3, 7]) + scipy.stats.norm(-1.0, np.sqrt(0.5)).logpdf([-0.4, 0.0])
    np.testing.assert_allclose(part.log_prob(x[:, jnp.array([3, 2])]), by_hand, rtol=1e-5)
    known, rest = jnp.array([3, 1, 0]), jnp.array([2])
    for whole in (one, jg.Mixture.from_components([one, other], [0.3, 0.7])):
        given = [whole.condition((3, 1, 0), row[known]).log_prob(row[rest]) for row in x]
        together = jnp.stack(given) + whole.marginal((3, 1, 0)).log_prob(x[:, known])
        np.testing.assert_allclose(together, whole.log_prob(x), rtol=1e-5)
    with pytest.raises(ModelError, match="no column is left"):
        one.condition((0, 1, 2, 3), x[0])
