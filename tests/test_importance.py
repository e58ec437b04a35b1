"""Variational inference with flows, and importance sampling from them, against closed forms and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import jaxgen as jg
from jaxgen.bijections import Affine
from jaxgen.core.pytree import combine, partition
from jaxgen.losses import reverse_kl
from jaxgen.metrics import importance, pareto_k

KEY = jax.random.key(0)
COV = np.array([[1.0, 0.8], [0.8, 2.0]])
MEAN = np.array([1.0, -2.0])
PRECISION = jnp.asarray(np.linalg.inv(COV), jnp.float32)
LOG_Z = 3.0 + 0.5 * np.log(np.linalg.det(2 * np.pi * COV))


def gaussian(x):
    """A correlated Gaussian, times e^3."""
    d = x - jnp.asarray(MEAN, jnp.float32)
    return 3.0 - 0.5 * d @ PRECISION @ d


def banana(x):
    """Normal in `(x_0, x_1 - x_0^2 / 2)`, whose map has determinant one: log Z = log 2 pi."""
    return -0.5 * (x[0] ** 2 + (x[1] - 0.5 * x[0] ** 2) ** 2)


def mean_field(shift=(0.0, 0.0)):
    return jg.Flow(jg.StandardNormal((2,)), Affine(jnp.array(shift), jnp.zeros(2)))


def test_reverse_kl_finds_the_closed_form():
    """The best independent Gaussian has the mean, and the inverse of the precision's diagonal as its variance."""
    algorithm = jg.Gradient(reverse_kl(gaussian, path_gradient=True), optax.adam(optax.cosine_decay_schedule(0.1, 500)))
    fitted = jg.fit(KEY, mean_field(), None, algorithm, steps=500)
    layer = fitted.model.bijection
    variance = 1 / np.diag(np.linalg.inv(COV))
    np.testing.assert_allclose(layer.shift, MEAN, atol=0.02)  # of the last steps' noise
    np.testing.assert_allclose(jnp.exp(2 * layer.log_scale), variance, rtol=0.03)
    divergence = 0.5 * (np.linalg.slogdet(COV)[1] - np.log(variance).sum())
    found = importance(jax.random.key(1), fitted.model, gaussian, 20_000)
    assert found.elbo == pytest.approx(LOG_Z - divergence, abs=4 * found.elbo_error + 1e-3)
    assert found.interval[0] < LOG_Z < found.interval[1]
    assert found.reliable
    assert "not reliable" not in str(found)
    assert str(found.kind) == "estimate"
    assert found.ess < 20_000


def test_path_gradient_is_zero_at_the_target():
    """Where q is p each draw's gradient vanishes, and the other estimator's does not."""
    trained, rest = partition(mean_field((0.5, -0.5)))
    target = lambda x: -0.5 * jnp.sum((x - jnp.array([0.5, -0.5])) ** 2)  # noqa: E731
    sizes, batch = [], jg.Batch(jnp.zeros((1, 2)))
    for path in (True, False):
        loss = reverse_kl(target, draws=3, path_gradient=path)
        gradient = jax.grad(lambda t, loss=loss: loss(KEY, combine(t, rest), batch))(trained)
        sizes.append(max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)))
    assert sizes[0] < 1e-5 < 0.01 < sizes[1]


def test_a_flow_bends_into_a_banana():
    flow, _ = jg.recipes.realnvp(KEY, np.random.default_rng(0).normal(size=(64, 2)), layers=4, features=(16,))
    loss = reverse_kl(banana, draws=128)
    fitted = jg.fit(KEY, flow, None, jg.Gradient(loss, optax.adam(5e-3)), steps=1200)
    found = importance(jax.random.key(1), fitted.model, banana, 10_000)
    assert found.reliable, str(found)
    assert abs(found.log_z - np.log(2 * np.pi)) < 4 * found.standard_error + 1e-3
    assert found.elbo > np.log(2 * np.pi) - 0.1


def test_heavy_tails_are_told():
    """A normal q of a Cauchy target: its weights have no mean, whatever the number of draws."""
    with pytest.warns(jg.JaxgenWarning, match="Pareto k"):
        found = importance(KEY, jg.StandardNormal((1,)), lambda x: -jnp.log1p(jnp.sum(x * x)), 10_000)
    assert not found.reliable
    assert found.pareto_k > 0.7
    assert "not reliable" in str(found)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.3])
def test_pareto_k_against_scipy(shape):
    """On a tail of that shape: the maximum likelihood of scipy on the same exceedances, within its standard error."""
    n = 20_000
    weights = scipy.stats.genpareto(shape).rvs(n, random_state=1) + 1.0
    length = int(np.ceil(min(n / 5, 3 * np.sqrt(n))))
    tail = np.sort(weights)[-length - 1 :]
    reference = scipy.stats.genpareto.fit(tail[1:] - tail[0], floc=0)[0]
    error = (1 + max(shape, 0)) / length**0.5  # Smith (1987), of the maximum likelihood
    assert abs(pareto_k(np.log(weights)) - reference) < error
    assert pareto_k(np.log(weights) + 500) == pytest.approx(pareto_k(np.log(weights)), abs=1e-6)


def test_equal_weights_have_no_tail():
    found = importance(KEY, jg.StandardNormal((2,)), lambda x: -0.5 * jnp.sum(x * x), 5000)
    assert found.pareto_k == -np.inf
    assert found.log_z == pytest.approx(np.log(2 * np.pi), abs=1e-5)
    assert found.ess == pytest.approx(5000, rel=1e-5)


def test_conditional_targets():
    """An amortised q by the reverse divergence, one draw a context: a linear map finds the Gaussian's mean."""
    c = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    flow, _ = jg.recipes.realnvp(KEY, np.zeros((64, 2)) + c, layers=4, features=(16,), context_shape=(1,))
    target = lambda x, c: -0.5 * jnp.sum((x - c) ** 2) / 0.01  # noqa: E731
    start, data = flow, (np.zeros((64, 2), np.float32), c)
    fitted = jg.fit(KEY, start, data, jg.Gradient(reverse_kl(target), optax.adam(5e-3)), steps=800)
    log_z = np.log(2 * np.pi * 0.01)
    for value in (-0.5, 1.0):
        found = importance(KEY, fitted.model, target, 2000, context=[value])
        assert abs(found.log_z - log_z) < 5 * found.standard_error + 0.02
        assert found.elbo > log_z - 0.5


def test_errors_name_the_fix():
    q = jg.StandardNormal((2,))
    for call, error, message in (
        (lambda: reverse_kl(gaussian, draws=0), jg.FitError, "draws"),
        (lambda: reverse_kl(3), jg.FitError, "function"),
        (lambda: jg.fit(KEY, mean_field(), None, jg.Gradient()), jg.FitError, "reverse_kl"),
        (lambda: jg.scan_fit(KEY, mean_field(), None, jg.Gradient(), steps=1), jg.FitError, "no data"),
        (lambda: importance(KEY, q, gaussian, 50), jg.FitError, "100"),
        (lambda: importance(KEY, 3, gaussian), jg.ModelError, "no density"),
        (lambda: importance(KEY, q, gaussian, context=[1.0]), jg.ModelError, "context"),
        (lambda: importance(KEY, q, lambda x: jnp.log(x[0])), jg.DataError, "no numbers"),
        (lambda: importance(KEY, q, lambda x: jnp.float32(-jnp.inf)), jg.DataError, "zero"),
        (lambda: pareto_k(np.zeros(10)), jg.DataError, "25"),
    ):
        with pytest.raises(error, match=message):
            call()
