"""The pictures of accuracy under corruption."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from framecast.viz.robustness import RobustnessCurves, draw_jpeg, draw_severities, nice_top

NAMES = ("gaussian", "fog", "jpeg", "snow", "zoom")
JPEG = {100: 70.0, 50: 60.0, 10: 20.0}


def curves(name: str, names: tuple[str, ...] = NAMES, steps: tuple[int, ...] = (1, 3, 5)) -> RobustnessCurves:
    return RobustnessCurves(name, 71.0, {n: {s: 70.0 - 9 * s for s in steps} for n in names}, JPEG)


def test_rows_of_panels_follow_the_number_of_corruptions(tmp_path: Path) -> None:
    sizes = [
        Image.open(draw_severities([curves("a", NAMES[:n])], tmp_path / f"{n}.png")).size for n in (1, 3, 5)
    ]
    assert sizes[0][0] < sizes[1][0] == sizes[2][0]  # one panel; a mean and three; two rows
    assert sizes[0][1] == sizes[1][1] < sizes[2][1]


def test_models_are_drawn_together_where_they_share_corruptions(tmp_path: Path) -> None:
    both = [curves("one"), curves("two", NAMES[:2], (1, 2, 3, 4, 5))]
    svg = draw_severities(both, tmp_path / "both.svg", title="Title").read_text()
    alone = draw_severities(both[:1], tmp_path / "alone.svg", title="Title").read_text()
    assert svg.startswith("<?xml")
    assert svg != alone
    with pytest.raises(ValueError, match="no corruption"):
        draw_severities([curves("a", ("fog",)), curves("b", ("snow",))], tmp_path / "none.png")


def test_the_same_scores_give_the_same_picture(tmp_path: Path) -> None:
    for draw in (draw_severities, draw_jpeg):
        one, two = (draw([curves("m")], tmp_path / f"{i}.png").read_bytes() for i in (1, 2))
        assert one == two


def test_hostile_and_many_names_fit(tmp_path: Path) -> None:
    names = ["$x_{$", "a" * 300, "動画", "\x1b[31m\u202e", *(f"model number {i}" for i in range(12))]
    many = Image.open(draw_jpeg([curves(n) for n in names], tmp_path / "many.png", title="$y^{$"))
    few = Image.open(draw_jpeg([curves(n) for n in names[:1]], tmp_path / "few.png", title="$y^{$"))
    assert many.width == few.width
    assert many.height > few.height  # the names take lines


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither \.png nor \.svg"):
        draw_severities([curves("a")], tmp_path / "p.gif")
    with pytest.raises(ValueError, match="--jpeg"):
        draw_jpeg([RobustnessCurves("a", 50.0)], tmp_path / "p.png")
    with pytest.raises(ValueError, match="no corruption"):
        draw_severities([], tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_the_axis_ends_above_the_best() -> None:
    assert nice_top(3.0) == 10
    assert nice_top(26.1, 12.0) == 30
    assert nice_top(99.9) == 100
