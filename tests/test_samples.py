"""Measures of samples against closed forms, scipy, sklearn, and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.stats import norm, wasserstein_distance_nd
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier

import jaxgen as jg
from jaxgen.metrics import samples
from jaxgen.metrics.features import grey_features
from jaxgen.metrics.samples import FeatureMoments, Moments

KEY = jax.random.key(0)
ONE, TWO = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 4.0])
#: of N(0, ONE) and N([1, 2], TWO)
DISTANCE = 5.771220447654


def rows(n, d, seed=0, **normal):
    return np.random.default_rng(seed).normal(size=(n, d), **normal).astype(np.float32)


def with_moments(mean, covariance, n, d, seed):
    """Rows `[n, d]` whose own mean and covariance are these, in a plane of d dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    z = (z - z.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    plane = np.linalg.qr(np.random.default_rng(9).normal(size=(d, 2)))[0]
    return ((z @ np.linalg.cholesky(covariance).T + mean) @ plane.T).astype(np.float32)


def test_frechet_of_two_normals():
    """In float32, from covariances: a relative 1e-5 is a hundred roundings."""
    a, b = FeatureMoments.from_values([0, 0], ONE, 1000), FeatureMoments.from_values([1, 2], TWO, 1000)
    assert samples.frechet(KEY, a, b).value == pytest.approx(DISTANCE, rel=1e-5)


@pytest.mark.parametrize(("n", "m", "d"), [(7, 9, 16), (9, 7, 16), (40, 5, 8), (200, 300, 2)])
def test_frechet_of_fewer_samples_than_features(n, m, d):
    found = samples.frechet(KEY, with_moments([0, 0], ONE, n, d, 1), with_moments([1, 2], TWO, m, d, 2))
    assert found.value == pytest.approx(DISTANCE, rel=1e-5)
    assert np.isnan(found.bias) == (min(n, m) <= d)


def test_frechet_is_that_of_scipy():
    """Correlated features of very different scales; scipy's root of a product in float64 is good to 1e-7 or so."""
    mix = rows(12, 12, 3) * np.logspace(0, -2, 12)
    x, y = rows(300, 12, 1) @ mix, rows(200, 12, 2) @ mix * 1.3 + 0.1
    c, e = np.cov(x.T.astype(float)), np.cov(y.T.astype(float))
    root = scipy.linalg.sqrtm(c @ e).real
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c + e - 2 * root)
    assert samples.frechet(KEY, x, y).value == pytest.approx(wanted, rel=1e-4)


def test_frechet_bias_and_error_are_those_of_repetition():
    """Two samples of one N(0, I_16): .0840, and of two distributions."""
    null, apart = [], []
    for i in range(40):
        x, y = rows(2000, 16, 2 * i), rows(2000, 16, 2 * i + 1)
        null.append(samples.distance(Moments.of(x), Moments.of(y)))
        apart.append(samples.distance(Moments.of(x[:500] * 2 + 1), Moments.of(y[:500])))
    for found, truth in ((null, 0.0), (apart, 32.0)):
        value, error, bias = np.transpose(found)
        spread = value.std(ddof=1)
        # 40 repetitions know the spread to a tenth or so, the mean to a sixth of it
        assert error.mean() == pytest.approx(spread, rel=0.35)
        assert value.mean() - truth == pytest.approx(bias.mean(), abs=4 * spread / 40**0.5)
    assert np.mean([row[0] for row in null]) == pytest.approx(0.0840, abs=0.005)
    assert np.mean([row[2] for row in null]) == pytest.approx(0.0840, abs=0.001)


def test_frechet_has_a_floor_and_goes_to_infinity():
    x, y = rows(2000, 8, 1), rows(2000, 8, 2)
    found = samples.frechet(KEY, x, y)
    assert 0.02 < found.floor < 0.08 and "floor" in str(found) and "bias" in str(found)  # (D^2 + 5 D) / N = .052
    infinite = samples.extrapolated_frechet(KEY, x + [1, 0, 0, 0, 0, 0, 0, 0], y, sizes=5)
    assert infinite.values[0] > infinite.values[-1]
    assert infinite.value == pytest.approx(1.0, abs=0.12)


def test_moments_add_up_whatever_the_batches_and_come_back_from_a_file(tmp_path):
    feature = lambda x: x.reshape(len(x), -1) ** 2  # noqa: E731
    x = rows(3000, 6).reshape(-1, 2, 3)
    whole = samples.moments(KEY, x, feature)
    parts = samples.moments(KEY, x[:700], feature).merge(samples.moments(KEY, x[700:], feature))
    for moments in (whole, parts):
        assert int(moments.whole.count) == 3000
        np.testing.assert_allclose(moments.whole.mean, (x**2).mean(0).ravel(), rtol=1e-5)
        np.testing.assert_allclose(moments.whole.covariance, np.cov((x**2).reshape(-1, 6).T), rtol=1e-3, atol=1e-4)
    jg.save(whole, tmp_path / "moments.jaxgen")
    loaded = jg.load(tmp_path / "moments.jaxgen")
    assert samples.frechet(KEY, x, loaded, feature).value == pytest.approx(0, abs=1e-4)  # of traces of 24
    with pytest.raises(jg.DataError, match="different features"):
        samples.frechet(KEY, x, loaded)


def test_large_means_lose_no_digits():
    """Features of spread 1 around 1000: float32 has them to 6e-5 each."""
    x, y = rows(500, 4, 1), rows(500, 4, 2)
    assert samples.frechet(KEY, x + 1000, y + 1000).value == pytest.approx(samples.frechet(KEY, x, y).value, abs=1e-3)


def test_kid_by_hand():
    x, y = np.array([[1, 0], [0, 1], [1, 1.0]]), np.array([[1, 1], [2, 0], [0, 2.0]])
    found, _ = samples.kernel._discrepancy(samples.cubic, jnp.asarray(x), jnp.asarray(y))
    assert found == pytest.approx(-2.5833333333, rel=1e-6)


def test_mmd_is_unbiased_and_knows_its_error():
    """Of N(0, 1) and N(1, 1) with a Gaussian kernel of scale 1: `2 (1 - exp(-1/6)) / sqrt 3`."""
    truth = 2 * (1 - np.exp(-1 / 6)) / np.sqrt(3)
    kernel = samples.gaussian(1.0)
    found = [samples.mmd(KEY, rows(300, 1, i), rows(200, 1, 100 + i, loc=1.0), kernel) for i in range(40)]
    values, errors = np.transpose([(f.value, f.standard_error) for f in found])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 40**0.5)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.35)  # of 40 repetitions
    assert all(abs(f.floor) < 0.1 for f in found)


def test_neighbours_by_hand():
    real, fake = np.array([[0.0], [1.0], [2.0], [4.0]]), np.array([[0.5], [1.2], [3.5], [9.0]])
    for k, wanted in ((1, (0.75, 1, 1.25, 1)), (2, (0.75, 1, 1.125, 1))):
        found = samples.neighbours(KEY, fake, real, k=k)
        assert tuple(measure.value for measure in found[:4]) == wanted


def test_neighbours_that_tie():
    """On the edge of a ball precision and recall count a point in, density and coverage do not."""
    real, fake = np.array([[0.0], [1.0], [2.0]]), np.array([[-1.0], [3.0], [5.0]])
    found = samples.neighbours(KEY, fake, real, k=1)
    assert found.precision.value == pytest.approx(2 / 3) and found.density.value == 0
    assert found.recall.value == 1 and found.coverage.value == 0


@pytest.mark.parametrize("d", [3, 80])
def test_neighbours_are_those_of_sklearn(d):
    """Of few dimensions by differences, of many by products around a mean that is far from 0."""
    real, fake = rows(300, d, 1) + 50, rows(280, d, 2) * 0.8 + 50
    found = samples.neighbours(KEY, fake, real, k=3)
    radius = [NearestNeighbors(n_neighbors=4).fit(x.astype(float)).kneighbors(x)[0][:, 3] for x in (real, fake)]
    apart = np.linalg.norm(real[:, None].astype(float) - fake, axis=-1)
    wanted = (
        (apart <= radius[0][:, None]).any(0).mean(), (apart <= radius[1]).any(1).mean(),
        (apart < radius[0][:, None]).sum(0).mean() / 3, (apart.min(1) < radius[0]).mean(),
    )  # fmt: skip
    np.testing.assert_allclose([measure.value for measure in found[:4]], wanted, atol=0.004)  # one pair on an edge


def test_sliced_distance_of_a_shift_and_of_other_numbers():
    x = rows(300, 3)
    assert samples.sliced_wasserstein(KEY, x + [1, 2, 3], x, lines=30).value == pytest.approx(14 / 3, rel=1e-5)
    # in one dimension it is the distance itself, of which scipy has the first power: of points 0, 1 mass moves by 1
    few, many = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[0.0], [0.0], [0.0], [0.0], [1.0], [1.0]])
    assert samples.sliced_wasserstein(KEY, few, many, lines=2).value == pytest.approx(1 / 6, rel=1e-5)
    assert wasserstein_distance_nd(few, many) == pytest.approx(1 / 6, rel=1e-5)
    # of two normals that differ in scale along every line: (2 - 1)^2
    assert samples.sliced_wasserstein(KEY, 2 * rows(4000, 3, 1), rows(3000, 3, 2)).value == pytest.approx(1, abs=0.06)


PAIRS = {
    "apart": lambda: (rows(400, 2, 1) + [1.5, 0], rows(400, 2, 2)),
    "same": lambda: (rows(400, 2, 1), rows(400, 2, 2)),
    "correlated": lambda: (rows(400, 2, 1) @ np.array([[1, 0.8], [0, 0.6]]), rows(400, 2, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_c2st_is_that_of_sklearn(name):
    x, y = PAIRS[name]()
    found = samples.c2st(KEY, x, y)
    data = (np.concatenate([y, x]) - y.mean(0)) / y.std(0, ddof=1)
    label = np.repeat([0, 1], 400)
    network = MLPClassifier((20, 20), max_iter=1000, random_state=1)
    guess = cross_val_predict(network, data, label, cv=KFold(5, shuffle=True, random_state=1))
    # two starts and two choices of folds: each knows its accuracy to .017
    assert found.accuracy == pytest.approx((guess == label).mean(), abs=0.06)
    assert found.auc > found.accuracy - 0.06
    assert (found.p_value < 0.001) == (name != "same")
    if name == "apart":
        assert found.accuracy == pytest.approx(norm.cdf(0.75), abs=0.04)  # the best there is
    assert 10 < found.epochs < 1000 and len(found.folds) == 5


def test_c2st_cuts_the_larger_and_takes_a_model():
    found = samples.c2st(KEY, jg.StandardNormal((2,)), PAIRS["same"]()[1], n=500, epochs=3)
    assert found.samples == 400


def test_memorised_samples_are_found():
    training, held_out = rows(400, 3, 1), rows(300, 3, 2)
    fresh, copies = rows(200, 3, 3), training[:200] + 0.01 * rows(200, 3, 3)
    assert samples.memorised(KEY, fresh, training, held_out).p_value > 0.01
    found = samples.memorised(KEY, copies, training, held_out)
    assert found.p_value < 0.001 and found.share > 0.9 and found.expected == pytest.approx(4 / 7)


def test_feature_likelihood_sees_copies_and_shifts():
    training, held_out = rows(400, 3, 1), rows(300, 3, 2)
    fresh, copies, shifted = rows(200, 3, 3), training[:200], rows(200, 3, 3) + 1
    found = [samples.feature_likelihood(KEY, x, training, held_out) for x in (fresh, copies, shifted)]
    assert abs(found[0].value) < 3 and abs(found[0].floor) < 3  # hundredths of a nat, of 300 events
    assert found[1].value > 50 and found[1].gap < -100
    assert found[2].value > 10


def test_constant_columns_are_no_noise():
    """A tenth is no float32, and the mean of tenths is not one of them: that difference is no unit of the column."""
    x, tenth = rows(300, 2), np.full((100, 1), 0.1, np.float32)
    parts = x[:100], x[100:200], x[200:]
    found = samples.feature_likelihood(KEY, *(np.hstack([part, tenth]) for part in parts))
    assert abs(found.value) < 100  # without the column it is 1, its noise tens; it was 7e13
    assert samples.c2st(KEY, np.hstack([parts[0], tenth * (1 + 1e-6)]), np.hstack([parts[1], tenth])).p_value > 0.01


def test_kernels_of_the_feature_likelihood_explain_what_they_were_fitted_to():
    """No other variances near the fitted ones do better, as scipy's normal has it."""
    x, centers = rows(60, 2, 1), rows(10, 2, 2)
    fitted = np.asarray(samples.memorisation._variances(jnp.asarray(centers), jnp.asarray(x)))

    def score(log_variance):
        found = norm.logpdf(x[:, None], centers, np.exp(log_variance / 2)[:, None]).sum(-1)
        return np.logaddexp.reduce(found - np.log(10), axis=1)

    found = samples.memorisation._scores(jnp.asarray(centers), jnp.asarray(fitted), jnp.asarray(x))
    np.testing.assert_allclose(found, score(fitted), rtol=1e-4)
    assert all(score(fitted).mean() > score(fitted + by).mean() for by in (-1.0, 1.0))


def test_inception_score_of_classes():
    identity = lambda x: x  # noqa: E731
    ten = samples.inception_score(KEY, np.repeat(np.eye(10), 30, axis=0), identity)
    assert ten.value == pytest.approx(10, rel=1e-6) and ten.standard_error == pytest.approx(0, abs=1e-6)
    assert samples.inception_score(KEY, np.full((40, 10), 0.1), identity).value == pytest.approx(1, rel=1e-6)
    assert samples.inception_score(KEY, np.tile([[0.7, 0.3]], (40, 1)), identity).value == pytest.approx(1, rel=1e-6)


def test_parzen_window_warns_and_is_a_mixture():
    x, y = rows(100, 2, 1), rows(50, 2, 2)
    with pytest.warns(jg.JaxgenWarning, match="no likelihood"):
        found = samples.parzen(KEY, x, y, scale=0.5)
    wanted = np.logaddexp.reduce(norm.logpdf(y[:, None], x, 0.5).sum(-1), axis=1) - np.log(100)
    assert found.mean == pytest.approx(wanted.mean(), rel=1e-5) and found.kind is jg.Kind.ESTIMATE


def test_parzen_window_of_constant_data_asks_for_a_scale():
    with pytest.warns(jg.JaxgenWarning), pytest.raises(jg.DataError, match="have no scale"):
        samples.parzen(KEY, rows(20, 2), np.ones((20, 2)))


def test_models_streams_and_arrays_are_one():
    model, x = jg.StandardNormal((3,)), rows(600, 3)
    stream = jg.data.Stream(x, chunk=200)
    whole, streamed = samples.moments(KEY, x), samples.moments(KEY, stream)
    np.testing.assert_allclose(streamed.whole.covariance, whole.whole.covariance, rtol=1e-4, atol=1e-5)
    found = samples.frechet(KEY, model, stream)
    assert found.samples == found.events == 600
    assert found.value < 0.1


def test_moments_of_one_event_more_than_is_folded_at_once():
    """8193 events: 8192 are folded, and the one that is left has no second half."""
    x = rows(8193, 2)
    found = samples.moments(KEY, x)
    assert found.whole.count == 8193
    np.testing.assert_allclose(found.whole.covariance, np.cov(x.T.astype(float)), rtol=1e-4, atol=1e-5)


def test_ties_are_no_memorisation():
    """Events of three bits: every sample has equal ones on both sides, and p is uniform over draws."""
    bits = np.random.default_rng(0).integers(0, 2, (20, 3, 50, 3))
    found = [samples.memorised(jax.random.key(i), *parts).p_value for i, parts in enumerate(bits)]
    assert sum(p < 0.05 for p in found) <= 4  # binomial of 20 and .05: above 4 once in 400


def test_inception_score_takes_all_of_an_array():
    """Four classes in their order, 5000 of each: of the first 10,000 alone the score is 2."""
    x = np.repeat(np.eye(4, dtype=np.float32), 5000, axis=0)
    found = samples.inception_score(KEY, x, lambda x: x)
    assert found.value == pytest.approx(4, rel=1e-4) and found.samples == 20_000


def test_rows_that_fill_up_a_stream_do_not_count():
    """Ten events in chunks of four: the last chunk is filled up with two of weight 0."""
    x = np.arange(1.0, 11.0)[:, None]
    for source in (jg.data.Stream(x, chunk=4), {"x": np.repeat(x, 2, axis=0), "weight": np.arange(20) % 2}):
        found = samples.moments(KEY, source).whole
        assert found.count == 10 and found.mean[0] == pytest.approx(5.5) and found.covariance[0, 0] == pytest.approx(
            np.var(x, ddof=1), rel=1e-5)  # fmt: skip


def test_grey_images_have_features_by_default():
    """Those of the classifier, whatever the type of the pixels: levels are 1/255 apart, which moves features little."""
    levels = jg.data.fashion_mnist().images[:120]
    grey = levels / np.float32(255)
    bits = (levels > 99).astype(np.int32)
    by_hand = samples.Feature(lambda x: grey_features(x, white=1.0), 0, 1)
    named = samples.frechet(KEY, grey[:60], grey[60:], by_hand)
    for x, y in ((grey, grey), (levels, grey), (levels[..., None], levels[..., None])):
        found = samples.frechet(KEY, x[:60], y[60:])
        assert (found.value, found.floor) == pytest.approx((named.value, named.floor), rel=1e-4)
    # bits are black and white, not black and nearly black
    assert samples.frechet(KEY, bits[:60], bits[60:]).value == pytest.approx(
        samples.frechet(KEY, bits[:60] > 0, np.float32(bits[60:])).value, rel=1e-4)  # fmt: skip
    assert samples.frechet(KEY, grey[:60], grey[60:], samples.flat).value > 10 * named.value
    assert 1 < samples.inception_score(KEY, levels, splits=2).value < 20
    for x in (2 * grey - 1, levels.astype(np.float32)):
        with pytest.raises(jg.DataError, match="samples.flat"):
            samples.kid(KEY, x, grey)
    with pytest.raises(jg.DataError, match="no classifier"):
        samples.inception_score(KEY, grey[:, :9])


def test_features_that_look_up_whole_numbers_are_remembered():
    """Which features statistics are of is told by two events of the data's own type: these have no fractions."""
    symbols = np.random.default_rng(0).integers(0, 3, (200, 1))
    vectors = jnp.eye(3)
    found = samples.frechet(KEY, symbols[:100], symbols[100:], lambda x: vectors[x[:, 0]])
    assert found.value < 0.05


REFUSED = {
    "weights": (lambda x: samples.kid(KEY, x, {"x": x, "weight": np.arange(100.0)}), "count every event once"),
    "a kernel that overflows": (lambda x: samples.kid(KEY, 1e14 * x, x), "kernel gives numbers that are not finite"),
    "a kernel of no width": (lambda x: samples.gaussian(0.0), "needs a width"),
    "no events": (lambda x: samples.kid(KEY, x, {"y": x}), "not a batch"),
    "a NaN": (lambda x: samples.frechet(KEY, np.where(x > 2, np.nan, x), x), "not finite"),
    "a range": (lambda x: samples.kid(KEY, 255 * x, x, samples.Feature(samples.flat, -9, 9)), "outside of the range"),
    "too few": (lambda x: samples.c2st(KEY, x[:9], x), "too few"),
    "too few neighbours": (lambda x: samples.neighbours(KEY, x[:5], x), "too few"),
    "one class": (lambda x: samples.inception_score(KEY, x, lambda x: jnp.ones(len(x))), "one class"),
    "logits": (lambda x: samples.inception_score(KEY, x, lambda x: x), "does not give probabilities"),
    "other shapes": (lambda x: samples.frechet(KEY, x[:, :2], x), "different features"),
    "other widths": (lambda x: samples.kid(KEY, x[:, :2], x), "different features"),
    "no feature": (lambda x: samples.kid(KEY, x, x, lambda x: x[:3]), "a row for each event"),
    "a feature of NaN": (lambda x: samples.kid(KEY, x, x, jnp.log), "features that are not finite"),
    "no samples": (lambda x: samples.kid(KEY, object(), x), "neither a model"),
    "no number": (lambda x: samples.moments(KEY, jg.StandardNormal((3,))), "how many samples"),
    "no kernel": (lambda x: samples.mmd(KEY, x, x, lambda x, y: x), "a number for each pair"),
    "no covariance": (lambda x: FeatureMoments.from_values([0, 0], [[1, 2], [2, 1]], 9), "no covariance"),
    "no line": (lambda x: samples.extrapolated_frechet(KEY, x, x, sizes=2), "a line needs points"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(jg.JaxgenError, match=message) as caught:
        call(rows(100, 3))
    assert caught.value.called and caught.value.expected
