"""Reliability diagrams: the numbers beside the curves, and what can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from framecast.viz.calibration import HISTOGRAM, LEFT, PLOT, Reliability, draw_calibration, said
from framecast.viz.canvas import DPI
from framecast.viz.palette import PALETTE

MIDDLES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
BINS = (MIDDLES, MIDDLES - 0.1, np.array([0, 10, 20, 30, 40]))


def test_the_error_is_the_mean_distance_over_predictions():
    model = Reliability.of("m", (MIDDLES, MIDDLES - [0.1, 0.3, 0, 0.2, 0], BINS[2]))
    assert model.error == pytest.approx(0.3 * 0.1 + 0.2 * 0.3)
    assert said(model) == "ECE 9.0% · 100 predictions"
    shares = Reliability.of("m", (MIDDLES, MIDDLES, BINS[2] / 100))
    assert said(shares) == "ECE 0.0%"


def test_empty_bins_may_hold_anything():
    confidence = np.array([np.nan, 0.3, 0.5, 0.7, 0.9])
    assert Reliability.of("m", (confidence, confidence - 0.1, BINS[2])).error == pytest.approx(0.1)


def test_bars_are_as_tall_as_the_shares(tmp_path):
    with Image.open(draw_calibration({"m": BINS}, tmp_path / "a.png")) as picture:
        image = np.asarray(picture.convert("RGB")).astype(int)
    color = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    below = image[round((0.32 + PLOT + 0.2) * DPI) :]
    tall = [
        (np.abs(below[:, round((LEFT + PLOT * x) * DPI)] - color) <= 2).all(axis=1).sum() for x in MIDDLES
    ]
    assert np.array(tall) / DPI == pytest.approx(HISTOGRAM * np.array([0, 1, 2, 3, 4]) / 4, abs=0.03)


def test_the_same_bins_give_the_same_picture_and_names_make_it_taller(tmp_path):
    one, two = (draw_calibration({"m": BINS}, tmp_path / f"{i}.png").read_bytes() for i in (1, 2))
    assert one == two
    names = ["$x_{$", "a" * 300, "動画", "\x1b[31m\u202e", *(f"model {i}" for i in range(14))]
    many = Image.open(draw_calibration(dict.fromkeys(names, BINS), tmp_path / "m.png", title="$y^{$"))
    assert many.height > Image.open(tmp_path / "1.png").height


def test_what_are_no_bins_is_refused(tmp_path):
    wrong = {
        "no model": {},
        "equal length": {"m": (MIDDLES, MIDDLES[:3], BINS[2])},
        "not percent": {"m": (100 * MIDDLES, MIDDLES, BINS[2])},
        "no predictions": {"m": (MIDDLES, MIDDLES, np.zeros(5))},
    }
    for message, curves in wrong.items():
        with pytest.raises(ValueError, match=message):
            draw_calibration(curves, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
