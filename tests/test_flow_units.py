"""The units of flows: robust scales, far tails within reach, fits that a change of units changes by its Jacobian."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_flow import deciles, in_float64

import jaxgen as jg
from jaxgen.bijections import Coupling, SplineTransform, Standardize
from jaxgen.models.neural.flow import Flow


def heavy(n=2000):
    """Columns in units of 1e6, 1 and 1e-6: a long tail, another on both sides with one wild outlier, and a constant."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.lognormal(size=n), rng.standard_t(2, size=n), np.full(n, 0.3)], 1)
    x[7, 1] = 1e6
    return x


def test_far_data_come_within_reach():
    """Standardised columns lie within 5, whatever their tails; the bulk is as it is; both ways exact in float32."""
    x = heavy().astype(np.float32)
    layer = Standardize.from_data(x)
    z, log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(x)
    assert 3 < np.abs(z[:, 0]).max() < 5.001 and 3 < np.abs(z[:, 1]).max() < 5.001
    u = (x.astype(np.float64) - np.median(x, axis=0)) / np.append(deciles(x[:, :2]), 1)
    bulk = np.abs(u) < 3
    np.testing.assert_allclose(np.asarray(z)[bulk], u[bulk], atol=1e-5)
    assert np.asarray(layer.bend)[:, 2].tolist() == [0, 0] and layer.bend[0, 0] == 0, "no tail, no bend"
    clean = np.delete(x, 7, axis=0)
    np.testing.assert_allclose(Standardize.from_data(clean).scale, layer.scale, rtol=5e-3)
    with jax.enable_x64(True):
        back = lambda x: in_float64(layer).inverse_and_log_det(x)[0]  # noqa: E731
        slopes = jax.vmap(jax.jacfwd(back))(jnp.asarray(x, jnp.float64))
        np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(slopes))[1], atol=1e-5)
        again = jax.vmap(layer.forward_and_log_det)(jnp.asarray(z))[0]
    np.testing.assert_allclose(again / (np.abs(x) + 1), x / (np.abs(x) + 1),
                                   atol=1e-4)  # fmt: skip
    wild = layer.forward_and_log_det(jnp.array([300.0, -300.0, 0.0]))
    assert np.isfinite(wild[0]).all() and np.isfinite(wild[1]), "no draw is infinite"


@pytest.mark.parametrize("recipe", ["realnvp", "maf"])
def test_units_change_a_fit_by_the_jacobian_alone(recipe):
    scale = np.array([1e6, 1e-6, 1.0])
    x, key = heavy(500), jax.random.key(0)

    def fitted(x):
        x = jnp.asarray(x, jnp.float32)
        model, algorithm = getattr(jg.recipes, recipe)(key, x, layers=2, features=(8,), steps=30)
        return np.asarray(jg.fit(key, model, x, algorithm, steps=30, batch_size=100, progress=False).model.log_prob(x))

    own, others = fitted(x), fitted(x * scale)
    assert np.isfinite(own).all()
    # thirty steps of what differs in the last digit of the data
    np.testing.assert_allclose(others + np.log(scale).sum(), own, atol=1e-4, rtol=1e-5)


def test_check_reports_data_outside_of_the_splines():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(480, 2)), 4 + rng.normal(size=(20, 2)) * 0.1]).astype(np.float32)
    for bound, share in ((3.0, 0.04), (9.0, 0.0)):
        spline = functools.partial(Coupling.init, transform=SplineTransform(4, bound), features=(8,))
        flow = Flow(jg.StandardNormal((2,)), Flow.init(
            jax.random.key(0), x, jg.StandardNormal((2,)), spline, layers=2
        ).bijection.layers[0])  # fmt: skip
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = flow.check(jax.random.key(1), x)
        assert found.outside == pytest.approx(share, abs=0.01)
        assert ("outside of the splines" in str(found.problems)) == any("outside of" in str(w.message) for w in said)
        if share:
            far = np.abs(x).max(axis=1) > bound
            assert found.outside == far.mean()
            assert found.outside_mean == pytest.approx(float(flow.log_prob(x[far]).mean()), rel=1e-5)
            assert "outside of an interval, there -" in str(found)
        else:
            assert np.isnan(found.outside_mean)
