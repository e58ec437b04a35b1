"""Eager calls of functions compile once: a second call on other values of equal shapes compiles nothing."""

import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layers import BIJECTIONS
from test_laws import Compilations

import jaxgen as jg
from jaxgen.core.compiled import compiled_by_trace, keep_programs
from jaxgen.core.methods import context_shape, latent_shape
from jaxgen.ops import gaussians, linalg, roots, samplers, stable
from jaxgen.ops.kmeans import kmeans, kmeans_plus_plus

LOWER = jnp.array([[[2.0, 0.0], [1.0, 4.0]], [[1.0, 0.0], [-1.0, 0.5]]])
COVARIANCE = LOWER @ jnp.swapaxes(LOWER, -1, -2)
X = jnp.linspace(-1.0, 1.0, 12).reshape(6, 2)


def hmm(a, **options):
    stay = 0.5 + float(a) / 10
    emissions = jg.Bernoulli.from_values([[0.1], [0.8]])
    return jg.HMM.from_values(None, [[stay, 1 - stay], [1 - stay, stay]], emissions, **options)


#: `a -> value`, a is 1 and then 2
CALLS = {
    "tril_inverse": lambda a: linalg.tril_inverse(a * LOWER),
    "solve_tril": lambda a: linalg.solve_tril(a * LOWER, jnp.ones((2, 1))),
    "cholesky": lambda a: linalg.cholesky(a * COVARIANCE),
    "inverse_cholesky": lambda a: linalg.inverse_cholesky(a * COVARIANCE),
    "log_det_tril": lambda a: linalg.log_det_tril(a * LOWER),
    "log_det": lambda a: linalg.log_det(a * COVARIANCE),
    "spectral_bound": lambda a: linalg.spectral_bound(a * LOWER[0], squarings=3),
    "inverse_of_sums": lambda a: linalg.inverse_of_sums(a * COVARIANCE[0], jnp.ones(2)),
    "derivative of log_det": lambda a: jax.grad(lambda c: linalg.log_det(c).sum())(a * COVARIANCE),
    "bisect": lambda a: roots.bisect(lambda x: a * x + stable.logsumexp(jnp.stack([x, x]), 0), X[:, 0]),
    "fixed_point": lambda a: roots.fixed_point(lambda x: jnp.cos(x) / a, jnp.float32(1)),
    "sample_chain": lambda a: samplers.sample_chain(
        jax.random.key(0), samplers.MALA(0.5), lambda x: -a * jnp.sum(x**2), X[0], draws=3
    ),
    "HMM.forecast": lambda a: hmm(a).forecast(jnp.log(jnp.array([0.3, 0.7])), 4),
    "HMM.initial of a stationary chain": lambda a: hmm(a, stationary=True).initial,
    "compensated_sum": lambda a: stable.compensated_sum(a * X),
    "kmeans_plus_plus": lambda a: kmeans_plus_plus(jax.random.key(0), a * X, 2),
    "kmeans": lambda a: kmeans(jax.random.key(0), a * X, 2),
    "floored_whitener": lambda a: gaussians.floored_whitener(a * COVARIANCE, jnp.ones(2)),
    "full_log_prob": lambda a: gaussians.full_log_prob(a * X, jnp.zeros((2, 2)), jnp.ones((2, 2)), LOWER),
    "full_moments": lambda a: gaussians.full_moments(a * X, jnp.zeros((2, 2)), jnp.ones((2, 2)), jnp.ones((2, 6))),
    "fill_missing": lambda a: gaussians.fill_missing(a * LOWER[0], jnp.array([1.0, jnp.nan])),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name):
    one, two = jnp.float32(1), jnp.float32(2)
    CALLS[name](one)
    with Compilations() as compilations:
        CALLS[name](two)
    assert compilations.count == 0


@pytest.mark.parametrize("name", BIJECTIONS)
def test_layers_compile_once(name):
    layers = [BIJECTIONS[name](jax.random.key(seed)) for seed in (1, 2)]
    of = context_shape(layers[0])
    context = None if of is None else jnp.ones(of)
    x = [jax.random.normal(jax.random.key(seed), latent_shape(layers[0])) for seed in (3, 4)]
    there = lambda i: layers[i].forward_and_log_det(x[i], context)[0]  # noqa: E731
    both = lambda i: layers[i].inverse_and_log_det(there(i), context)  # noqa: E731
    both(0)
    with Compilations() as compilations:
        both(1)
    assert compilations.count == 0


@compiled_by_trace
def twice(function, x):
    return jax.lax.fori_loop(0, 2, lambda _, x: function(x), x)


def test_programs_with_other_numbers_inside_are_others():
    """What a trace does not show in its text (arrays inside of inner programs) tells programs apart too."""
    for by in (np.arange(3.0), np.arange(3.0) + 1):
        inner = jax.jit(lambda x, by=by: x + by.astype(np.float32))
        np.testing.assert_array_equal(twice(inner, jnp.zeros(3)), 2 * by)
    for power in (1, 2):
        assert twice(lambda x, power=power: x**power + 1, jnp.float32(1)) == (3, 5)[power - 1]


def test_what_is_traced_around_goes_through():
    by = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.vmap(lambda b: twice(lambda x: x + b, 1.0))(by), 1 + 2 * by)
    np.testing.assert_array_equal(jax.jit(lambda b: twice(lambda x: x * b, by))(2.0), 4 * by)
    assert jax.grad(lambda b: twice(lambda x: x * b, 1.0))(3.0) == 6


def test_programs_are_kept_in_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxgen.core.compiled._cache_home", lambda: tmp_path / "home")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        for chosen in ("", str(tmp_path)):  # by the user: none, or another
            jax.config.update(names[0], chosen)
            assert keep_programs() is None
            assert jax.config.jax_compilation_cache_dir == chosen
        jax.config.update(names[0], None)
        folder = keep_programs()
        assert jax.config.jax_compilation_cache_dir == str(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        jax.config.update(names[0], None)
        folder.chmod(0o777)  # others could put programs there
        assert keep_programs() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
