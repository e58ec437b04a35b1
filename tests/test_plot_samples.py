"""Pictures of samples and of calibration: what is drawn is what was measured."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxgen as jg
from jaxgen import plot
from jaxgen.metrics import Uniform


def test_sources_stand_side_by_side_on_one_scale():
    bright, dark = np.full((4, 8, 8), 2.0), np.full((4, 8, 8), 1.0)
    axes = plot.samples_side_by_side({"data": bright, "model": dark}, Figure(), columns=2)
    assert [ax.images[0].get_clim() for ax in axes] == [(0.0, 2.0)] * 2
    assert axes[1].images[0].get_array().max() == 1.0
    with pytest.raises(jg.DataError, match="nothing to show"):
        plot.samples_side_by_side({}, Figure())


def test_bars_of_calibration_are_the_shares():
    values = np.repeat([0.1, 0.3, 0.3, 0.9], 25)[:, None]
    ax = plot.calibration(Uniform(values, np.zeros(1), 1.0, 0), Figure().subplots(), bins=5)
    bars = [patch.get_height() for patch in ax.patches if patch.get_width() < 0.5]
    np.testing.assert_allclose(bars, [1.25, 2.5, 0, 0, 1.25])
    with pytest.raises(jg.DataError, match="no such histogram"):
        plot.calibration(Uniform(values, np.zeros(1), 1.0, 0), Figure().subplots(), column=1)
