"""The estimator of made tables: frames in and out, files, clones, seeds."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from jaxgen.sklearn import SyntheticTable

RNG = np.random.default_rng(0)
GROUP = RNG.random(120) < 0.5
FRAME = pd.DataFrame({
    "kind": np.where(GROUP, "a", "b"), "size": np.round(RNG.normal(np.where(GROUP, 0, 4)), 1),
    "seen": np.where(RNG.random(120) < 0.2, np.nan, RNG.integers(0, 5, 120)),
})  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return SyntheticTable(2, random_state=0).fit(FRAME)


def test_frames_come_back(fitted):
    made = fitted.sample(300, random_state=1)
    assert made.dtypes.equals(FRAME.dtypes)
    assert list(fitted.feature_names_in_) == list(FRAME.columns)
    assert abs(made.groupby("kind")["size"].mean().diff().iloc[1] - 4) < 1
    assert made["seen"].isna().any()


def test_scores_are_the_models(fitted):
    model = fitted.model_
    np.testing.assert_allclose(fitted.score_samples(FRAME), model.log_prob(model.events(FRAME)), rtol=1e-5)
    assert fitted.score(FRAME) == pytest.approx(fitted.score_samples(FRAME).sum())


def test_pickles_are_plain_arrays(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.sample(20), fitted.sample(20))
    arrays, description = fitted.__getstate__()["model_"]
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert isinstance(description, dict)
    assert clone(fitted).get_params() == {"n_components": 2, "labels": (), "random_state": 0}


def test_arrays_come_back_as_arrays():
    x = np.stack([np.arange(60) % 5, RNG.normal(size=60)], axis=1)
    table = SyntheticTable(1, random_state=0).fit(x)
    assert table.sample(7).shape == (7, 2)
    assert set(table.sample(50)[:, 0]) <= set(range(5))
    with pytest.raises(ValueError, match="n_components"):
        SyntheticTable(0).fit(x)
    with pytest.raises(ValueError, match="2 features"):
        table.score_samples(x[:, :1])
