"""Colours: stable, apart for colour-blind readers too, with text that can be read on them."""

from __future__ import annotations

import numpy as np
import pytest

from framecast.structures import Segments
from framecast.viz.palette import (
    GREY,
    PALETTE,
    class_color,
    class_colors,
    clean,
    contrast,
    readable,
    shared_colors,
    text_color,
)

TO_LMS = np.array(  # linear RGB to cones, then to OKLab (Ottosson, 2020)
    [0.4122215, 0.5363325, 0.0514460, 0.2119035, 0.6806995, 0.1073970, 0.0883025, 0.2817188, 0.6299787]
).reshape(3, 3)
TO_LAB = np.array(
    [0.2104543, 0.7936178, -0.0040720, 1.9779985, -2.4285922, 0.4505937, 0.0259040, 0.7827718, -0.8086758]
).reshape(3, 3)
SEEN_BY = {  # linear RGB as seen without one kind of cones (Machado et al., 2009, severity 1)
    "all": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "no red": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
    "no green": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881),
    "no blue": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039),
}


def nearest_pair(colors: tuple[str, ...], view: str) -> float:
    """Smallest OKLab distance between any two colours in a view."""
    values = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.reshape(SEEN_BY[view], (3, 3)).T, 0, 1)
    lab = np.cbrt(seen @ TO_LMS.T) @ TO_LAB.T
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(apart[np.triu_indices(len(colors), 1)].min())


@pytest.mark.parametrize("view", SEEN_BY)
def test_colors_are_apart_in_every_view(view):
    assert nearest_pair(PALETTE[:8], view) > 0.07
    assert nearest_pair(PALETTE[:18], view) > 0.05
    assert nearest_pair(PALETTE, view) > 0.03


def test_a_class_keeps_its_color_whatever_the_rest_of_the_vocabulary():
    assert class_colors(("cut", "pour", "stir"))[1] == class_colors(("x", "pour"))[1] == PALETTE[1]
    assert len({class_color(i) for i in range(180)}) == 180
    assert class_color(200) == class_color(20)


@pytest.mark.parametrize("name", ["background", "SIL", " Background ", "unlabelled", "bg"])
def test_nothing_is_grey(name):
    assert class_color(5, name) == GREY
    assert class_color(-100) == GREY


@pytest.mark.parametrize("fill", [GREY, *(class_color(i) for i in range(180))])
def test_text_can_be_read(fill):
    assert contrast(fill, text_color(fill)) >= 4.5


def test_one_color_never_means_two_classes_in_a_picture():
    labels = np.array([0, 1, 2])
    prediction = Segments.from_frames(labels, ("segment A", "segment B", "segment C"))
    truth = Segments.from_frames(labels, ("background", "segment B", "walk"))
    colors = shared_colors([prediction, truth])
    assert colors["segment B"] == PALETTE[1]
    assert colors["background"] == colors["unlabelled"] == GREY
    others = [color for color in colors.values() if color != GREY]
    assert len(others) == len(set(others)) == 4


def test_names_are_made_readable():
    assert readable("place_tomato__into_bowl") == "place tomato into bowl"
    assert readable("_") == "(no name)"
    assert clean("a\nb\x00c\u202egpj.exe\udcff ") == "a b c gpj.exe"
