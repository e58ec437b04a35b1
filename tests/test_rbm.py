"""Restricted Boltzmann machines against enumeration by numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machines import family, fits, index, states
from scipy import special

from jaxgen.core.errors import DataError, ModelError, ShapeError
from jaxgen.core.protocols import Energy
from jaxgen.models.energy.rbm import RBM

DATA = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]], np.int32)


def enumerated(rbm):
    """`(log Z, log p(v) of every v in the order of states)`: the sum over all joint states, nothing simplified."""
    b, c, w = (np.asarray(a, np.float64) for a in (rbm.visible_bias, rbm.hidden_bias, rbm.weights))
    v, h = states(len(b)), states(len(c))
    minus_energy = (v @ b)[:, None] + h @ c + v @ w @ h.T
    log_z = special.logsumexp(minus_energy)
    return log_z, special.logsumexp(minus_energy, axis=1) - log_z


@jax.jit
def figures(rbm):
    def mean(rbm):
        return jnp.mean(-rbm.energy(DATA)) - rbm.log_partition()

    log_z, moments = jax.value_and_grad(RBM.log_partition)(rbm)
    zeros = np.zeros(4)
    value, gradient = jax.value_and_grad(mean)(rbm)
    return (
        log_z, moments.visible_bias, -rbm.energy(zeros) - log_z, rbm.pseudo_log_likelihood(zeros), value,
        gradient.visible_bias, rbm.encode(DATA), rbm.kernel(jax.random.key(0), rbm.visible_bias),
        rbm.sample(jax.random.key(0), sweeps=2),
    )  # fmt: skip


# the figures are given to 7 decimals; in float32 the energies are sums of a dozen numbers of order one
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 6e-8), (np.float32, 2e-6)])
def test_reference_figures(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        found = figures(family(4, 3, dtype=dtype))
    expected = (
        5.0064656, [0.5411880, 0.4122587, 0.4352687, 0.5280139], -2.7839192, -2.9411704, -3.0436721,
        [0.1254787, 0.2544080, 0.2313980, 0.1386528],
    )  # fmt: skip
    for one, other in zip(found[:6], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=0)
    assert {a.dtype for a in found} == {np.dtype(dtype)}


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5)])
def test_equals_enumeration(sizes):
    rbm = family(*sizes, s=2.0)
    v, (log_z, log_p) = states(sizes[0]), enumerated(rbm)
    # float32 sums of a dozen terms of size up to 10
    near = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0)
    near(rbm.log_partition(), log_z)
    near(-rbm.energy(v) - rbm.log_partition(), log_p)
    flips = log_p[index(v[:, None] ^ np.eye(sizes[0], dtype=int))]
    near(rbm.pseudo_log_likelihood(v), (log_p[:, None] - np.logaddexp(log_p[:, None], flips)).sum(1))
    h = states(sizes[1])
    w = np.asarray(rbm.weights)
    near(rbm.encode(v), special.expit(v @ w + np.asarray(rbm.hidden_bias)))
    near(rbm.decode(h[None]), special.expit(h @ w.T + np.asarray(rbm.visible_bias))[None])


def test_enumeration_in_blocks_of_either_side():
    rbm = family(12, 13, 0.5)  # 4 blocks of 1024 states
    other = rbm.transposed
    b, c, w = (np.asarray(a, np.float64) for a in (rbm.visible_bias, rbm.hidden_bias, rbm.weights))
    v = states(12)
    expected = special.logsumexp(v @ b + np.logaddexp(0, v @ w + c).sum(1))
    np.testing.assert_allclose([rbm.log_partition(), other.log_partition()], expected, atol=1e-5)
    p = np.exp(v @ b + np.logaddexp(0, v @ w + c).sum(1) - expected)
    gradient = jax.grad(RBM.log_partition)(rbm)
    np.testing.assert_allclose(gradient.visible_bias, p @ v, atol=1e-5)
    np.testing.assert_allclose(gradient.weights, v.T @ (p[:, None] * special.expit(v @ w + c)), atol=1e-5)


def test_second_derivatives_at_zero_and_batches_of_models():
    zero = RBM.from_values(np.zeros(3), np.zeros(2), np.zeros((3, 2)))
    at = lambda c: RBM.from_values(zero.visible_bias, c, zero.weights).log_partition()  # noqa: E731
    hessian = jax.hessian(at)(zero.hidden_bias)
    np.testing.assert_allclose(hessian, np.eye(2) / 4, atol=1e-6)  # the covariance of two independent fair bits
    rbms = [family(4, 3, s) for s in (0.5, 1.0)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *rbms)
    both = jax.vmap(lambda m: m.log_partition() + m.energy(DATA))(stacked)
    np.testing.assert_allclose(both, [m.log_partition() + m.energy(DATA) for m in rbms], atol=1e-6)


def test_kernel_is_the_exact_gibbs_transition_and_keeps_p():
    rbm, n = family(4, 3, 2.0), 2000
    v, h, (_, log_p) = states(4), states(3), enumerated(rbm)
    w = np.asarray(rbm.weights, np.float64)

    def bernoulli(bits, inputs):
        return np.where(bits, special.expit(inputs)[:, None], special.expit(-inputs)[:, None]).prod(-1)

    to_h = bernoulli(h[None], v @ w + np.asarray(rbm.hidden_bias))
    to_v = bernoulli(v[None], h @ w.T + np.asarray(rbm.visible_bias))
    transition = to_h @ to_v
    np.testing.assert_allclose(np.exp(log_p) @ transition, np.exp(log_p), atol=1e-7)  # the reference itself is right
    moved = rbm.kernel(jax.random.key(0), np.repeat(v[:, None].astype(bool), n, axis=1))
    assert moved.shape == (16, n, 4)
    assert moved.dtype == bool
    for row, p in zip(index(moved), transition, strict=True):
        assert fits(np.bincount(row, minlength=16), p)


def test_sample_tends_to_p():
    rbm = family(4, 3)
    x = rbm.sample(jax.random.key(1), (20, 200), sweeps=30)
    assert x.shape == (20, 200, 4)
    assert fits(np.bincount(index(x).ravel(), minlength=16), np.exp(enumerated(rbm)[1]))


def test_init_starts_at_the_data():
    x = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]])
    rbm = RBM.init(jax.random.key(0), x.astype(bool), 5, scale=1e-4)
    np.testing.assert_allclose(rbm.visible_bias, [np.log(9), -np.log(9), 0], atol=1e-6)
    assert rbm.weights.shape == (3, 5)
    assert 0 < np.abs(rbm.weights).max() < 1e-3
    assert not rbm.hidden_bias.any()
    assert isinstance(rbm, Energy)
    many = jax.vmap(lambda key: RBM.init(key, x, 5))(jax.random.split(jax.random.key(0), 2))
    assert many.weights.shape == (2, 3, 5)


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda key: RBM.init(key, [[0.0, 3.0], [1.0, 16.0]], 2), DataError, r"np.asarray\(x\) > 8"),
    (lambda key: RBM.init(key, [0, 1, 1], 2), ShapeError, "reshape"),
    (lambda key: RBM.init(key, DATA, 0), ModelError, "hidden"),
    (lambda key: RBM.init(key, DATA, 2.5), ModelError, "2.5"),
    (lambda key: RBM.init(key, [["a", "b"]], 2), DataError, "not numeric"),
    (lambda key: RBM.from_values(np.zeros(3), np.zeros(2), np.zeros((2, 3))), ModelError, "transpose"),
    (lambda key: family(4, 3).energy(np.zeros(5)), ShapeError, r"\[\*batch, 4\]"),
    (lambda key: family(4, 3).decode(np.zeros(4)), ShapeError, r"\[\*batch, 3\]"),
    (lambda key: family(23, 24).log_partition(), ModelError, r"jaxgen.metrics.ais\(key, model\)"),
    (lambda key: family(4, 3).annealing_path(np.zeros(3)), ModelError, "base"),
    (lambda key: family(4, 3).check_data([[0, 2, 1, 0]]), DataError, "threshold"),
])  # fmt: skip
def test_errors_name_the_fix(call, error, says):
    with pytest.raises(error, match=says):
        call(jax.random.key(0))
