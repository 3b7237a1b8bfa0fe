"""The picture of accuracy against cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from framecast.viz.cost import CostPoint, draw_cost, frontier, write_cost_page

POINTS = [
    CostPoint("tiny", 70.0, {"GMACs": 1.0, "ms": 10.0}),
    CostPoint("small", 80.0, {"GMACs": 4.0, "ms": 60.0}),
    CostPoint("wasteful", 75.0, {"GMACs": 8.0, "ms": 30.0}),
    CostPoint("equal", 80.0, {"GMACs": 5.0, "ms": 90.0}),
]


def test_the_frontier_holds_what_nothing_beats() -> None:
    assert [p.name for p in frontier(POINTS, "GMACs")] == ["tiny", "small"]
    assert [p.name for p in frontier(POINTS, "ms")] == ["tiny", "wasteful", "small"]


def test_a_panel_per_cost(tmp_path: Path) -> None:
    both = Image.open(draw_cost(POINTS, tmp_path / "both.png", metric="accuracy"))
    latencies = [CostPoint(p.name, p.score, {"ms": p.costs["ms"]}) for p in POINTS]
    one = Image.open(draw_cost(latencies, tmp_path / "one.png", metric="accuracy"))
    assert both.height == one.height
    assert both.width > 1.8 * one.width
    svg = draw_cost(POINTS, tmp_path / "both.svg", metric="accuracy").read_text()
    assert svg.startswith("<?xml")


def test_the_same_points_give_the_same_picture(tmp_path: Path) -> None:
    one, two = (draw_cost(POINTS, tmp_path / f"{i}.png", metric="m").read_bytes() for i in (1, 2))
    assert one == two


def test_hostile_names_and_equal_points_are_drawn(tmp_path: Path) -> None:
    names = ["$x_{$", "<script>alert(1)</script>", "a" * 300, "動画", "\x1b[31m\u202e"]
    points = [CostPoint(name, 50.0, {"GMACs": 1.0}) for name in names]
    assert Image.open(draw_cost(points, tmp_path / "p.png", metric="top-1", title="$y^{$")).width > 100
    page = write_cost_page(tmp_path / "p.html", points, [{"model": n} for n in names], metric="top-1")
    assert "<script>alert" not in page.read_text(encoding="utf-8")


def test_a_page_without_scores_is_a_table(tmp_path: Path) -> None:
    page = write_cost_page(tmp_path / "p.html", [], [{"model": "a", "MACs": "1 G"}], metric="")
    text = page.read_text(encoding="utf-8")
    assert "<td>1 G</td>" in text
    assert "<img" not in text


@pytest.mark.parametrize(
    ("points", "name", "message"),
    [
        ([], "p.png", "no model has a score"),
        ([CostPoint("a", 1, {"x": 1}), CostPoint("b", 1, {"y": 1})], "p.png", "share no cost"),
        (POINTS, "p.gif", "neither"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, points: list, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_cost(points, tmp_path / name, metric="m")
    assert not list(tmp_path.iterdir())
