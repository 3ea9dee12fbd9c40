"""Curves of a training's losses."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sbr_core.io.tables import read_tsv
from sbr_core.report.losses import loss_curves, write_losses


def test_each_loss_has_a_panel_with_its_values_and_their_means():
    rng = np.random.default_rng(0)
    steps = np.arange(1, 401)
    trend = 3.0 - 0.005 * steps
    history = [
        {"step": step, "learning_rate": 1e-3, "seconds": 0.1 * step, "loss": loss, "bending": 0.5}
        for step, loss in zip(steps, trend + rng.normal(0, 0.3, steps.size), strict=True)
    ]
    loss, bending = loss_curves(history).axes
    assert (loss.get_title(), bending.get_title()) == ("loss", "bending")
    every, smooth = loss.lines
    np.testing.assert_array_equal(every.get_xydata(), [(r["step"], r["loss"]) for r in history])
    # the mean of ten steps, drawn at the last of them
    assert smooth.get_xdata()[0] == 10 and smooth.get_xdata()[-1] == 400
    off = smooth.get_ydata() - (trend[9:] + 0.005 * 4.5)
    assert np.abs(off).mean() < 0.15
    assert bending.lines[1].get_ydata() == pytest.approx(0.5)


def test_a_step_or_none_is_a_training_too(tmp_path):
    assert not loss_curves([]).axes
    (axes,) = loss_curves([{"step": 1, "learning_rate": 1e-3, "loss": 0.5}]).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1.0, 0.5]]] * 2
    write_losses([], tmp_path)
    assert read_tsv(tmp_path / "loss.tsv") == (["step", "loss"], [])
    assert (np.asarray(Image.open(tmp_path / "loss.png").convert("L")) == 255).all()


def test_the_picture_shows_the_curve_where_the_values_are(tmp_path):
    history = [{"step": step, "loss": float(step)} for step in range(1, 101)]
    write_losses(history, tmp_path)
    assert [float(row["loss"]) for row in read_tsv(tmp_path / "loss.tsv")[1]] == list(range(1, 101))
    red, _, blue = np.moveaxis(
        np.asarray(Image.open(tmp_path / "loss.png").convert("RGB"), float), -1, 0
    )
    rows, columns = np.nonzero(blue - red > 60)
    # as high as wide of what it is drawn in: a straight line upwards
    assert np.corrcoef(rows, columns)[0, 1] < -0.999
    assert np.ptp(rows) > red.shape[0] / 2 and np.ptp(columns) > red.shape[1] / 2
