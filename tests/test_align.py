"""The order of components: permuted copies come back, fits of the same data meet, nothing else is compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen as jg

ORDER = [2, 0, 3, 1]
MEANS = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 6.0], [6.0, 6.0]], np.float32)


def same(a, b):
    # floats of one model, only moved
    jax.tree.map(np.testing.assert_array_equal, a, b)


def mixture():
    parts = jg.DiagonalGaussian.from_values(MEANS, np.ones_like(MEANS))
    return jg.Mixture.from_components(parts, [0.1, 0.2, 0.3, 0.4], prior=[2.0, 3.0, 4.0, 5.0])


def hmm(tie=None):
    rng = np.random.default_rng(0)
    # two states emit alike: only the transitions tell them apart
    rates = [1.0, 20.0, 60.0] if tie else [1.0, 20.0, 20.0, 60.0]
    transition = 0.6 * np.eye(4) + 0.4 * rng.dirichlet([0.3] * 4, 4)
    return jg.HMM.from_values(rng.dirichlet(np.ones(4)), transition, jg.Poisson.from_values(rates), tie=tie)


@pytest.mark.parametrize("data", [True, False], ids=["data", "parameters"])
def test_permuted_mixtures_come_back(data):
    one = mixture()
    x = one.sample(jax.random.key(0), (500,)) if data else None
    shuffled = one.permute(ORDER)
    assert not np.allclose(shuffled.weights, one.weights)
    assert shuffled.log_prob(MEANS[0]) == pytest.approx(float(one.log_prob(MEANS[0])), abs=1e-5)
    found = jg.align(shuffled, one, x)
    same(found.model, one)
    np.testing.assert_array_equal(np.array(ORDER)[found.order], np.arange(4))
    # float32 sums of 500 shares
    assert found.overlap == (pytest.approx(1, abs=1e-5) if data else None)


@pytest.mark.parametrize("tie", [None, (0, 1, 1, 2)], ids=["apart", "tied"])
def test_permuted_chains_come_back(tie):
    one = hmm(tie)
    rows = [np.asarray(one.sample(jax.random.key(i), length=n)) for i, n in enumerate((64, 40))]
    found = jg.align(one.permute(ORDER), one, jg.Sequences.pack(rows))
    same(found.model, one)
    assert found.overlap == pytest.approx(1, abs=1e-5)
    # what is padded has no say, nor has what weighs nothing
    padded = jg.Sequences.pack([rows[0], rows[1][:2]])
    other = one.permute([0, 2, 1, 3])
    expected = np.minimum(*(np.asarray(m.smooth(rows[1][None, :2])) for m in (one, other))).sum() / 2
    # the identity may be the best order or not: this one is held to at least it
    assert jg.align(other, one, (padded, None, [0.0, 1.0])).overlap >= expected - 1e-5


def test_two_fits_of_the_same_data_meet():
    x = mixture().sample(jax.random.key(1), (3000,))
    x = x[~((x[:, 0] > 0.7) & (x[:, 1] < 3))]  # leaves three clusters
    fits = [jg.fit(key, jg.Mixture.init(key, x, 3, jg.Gaussian.init), x).model for key in map(jax.random.key, (3, 4))]
    first, second = fits[0], fits[1].permute([1, 2, 0])
    for data in (x, None, (x, None, np.ones(len(x)))):
        found = jg.align(second, first, data)
        # two runs of EM that stop near one maximum
        np.testing.assert_allclose(found.model.components.mean, first.components.mean, atol=0.05)
        assert data is None or found.overlap > 0.99
    # with data the components may be of another kind
    student = jg.Mixture.from_components(jg.DiagonalGaussian.from_values(second.components.mean, np.ones((3, 2))))
    found = jg.align(student, first, x)
    np.testing.assert_allclose(found.model.components.mean, first.components.mean, atol=0.05)
    # the definition, by numpy
    shares = [np.asarray(m.responsibilities(x), np.float64) for m in (first, found.model)]
    assert found.overlap == pytest.approx(np.minimum(*shares).sum() / len(x), abs=1e-4)


def test_what_cannot_be_aligned():
    one = mixture()
    fewer = jg.Mixture.from_components(jg.DiagonalGaussian.from_values(MEANS[:3], np.ones((3, 2))))
    with pytest.raises(jg.ModelError, match="different numbers"):
        jg.align(fewer, one)
    with pytest.raises(jg.ModelError, match="no components"):
        jg.align(jg.StandardNormal((2,)), one)
    counts = jg.Mixture.from_components(jg.Poisson.from_values([1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(jg.ModelError, match="different kinds"):
        jg.align(counts, one)
    # means around other origins, whose offsets say nothing
    full = [jg.Mixture.from_components(jg.Gaussian.from_values(m, [np.eye(2)] * 4)) for m in (MEANS, MEANS + 1)]
    with pytest.raises(jg.ModelError, match="cannot be compared"):
        jg.align(*full)
    assert jg.align(full[0].permute(ORDER), full[0], MEANS).overlap > 0.999
    with pytest.raises(jg.ShapeError):
        jg.align(one, one, np.zeros((5, 3)))
    with pytest.raises(jg.DataError, match="leading axis"):
        jg.align(hmm(), hmm(), np.zeros(5, np.int32))
    # an event that both find impossible is one on which they differ
    coins = jg.Mixture.from_components(jg.Categorical.from_values([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    assert jg.align(coins, coins, jnp.array([0, 1, 2, 2])).overlap == pytest.approx(0.5, abs=1e-6)
