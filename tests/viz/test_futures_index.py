"""The page that lists the futures of several videos: who, what was seen, what may come, and safe text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from html_page import EVIL, Page, assert_safe

from framecast.structures import Futures, Segments
from framecast.viz.futures_index import FuturesEntry, write_futures_index

CLASSES = ("walk", "sit_down", "wave", "background")


def entry(
    report: Path, samples: list[list[int]], classes: tuple[str, ...] = CLASSES, **given
) -> FuturesEntry:
    """Four seconds of the first class were seen; every label of a sample lasts a second."""
    seen = Segments.from_frames(np.zeros(20), classes, video=report.stem, times=np.arange(20) / 5)
    return FuturesEntry(report, Futures(seen, np.repeat(np.array(samples), 5, axis=1), step_s=0.2), **given)


def test_a_card_says_what_may_come(tmp_path: Path) -> None:
    entries = [
        entry(tmp_path / "one.html", [[0, 1, 1]] * 3 + [[0, 2, 3]]),
        entry(tmp_path / "two.html", [[0, 0, 0]] * 2, thumbnail=np.full((30, 40, 3), 9, np.uint8)),
    ]
    page = Page(write_futures_index(tmp_path / "index.html", entries, facts={"command": "framecast predict"}))
    assert_safe(page)
    (first, one), (second, two) = page.all("article")
    assert "4 s seen" in one
    assert "the next 3 s" in one
    assert "sit down75%wave25%" in one.replace(" 75", "75").replace(" 25", "25")
    assert first["class"] == "card video bare"  # no picture, so no room for one
    assert "walk" in two  # nothing else is expected
    assert second["class"] == "card video"
    assert {"one.html", "two.html"} <= {a.get("href") for a, _ in page.all("a")}
    assert "2 videos" in page.source
    assert page.all("code")[0][1] == "framecast predict"


def test_what_happened_stands_below(tmp_path: Path) -> None:
    truth = Segments.from_frames(np.r_[np.zeros(20), np.full(15, 2)], CLASSES, times=np.arange(35) / 5)
    entries = [entry(tmp_path / "one.html", [[0, 1, 1]], truth=truth)] * 2
    page = Page(write_futures_index(tmp_path / "index.html", entries))
    assert page.source.count("what happened over time") == 2
    assert "wave" in page.all("ul", class_="key")[0][1]


def test_names_stay_text(tmp_path: Path) -> None:
    names = tuple(f"{evil}{i}" for i, evil in enumerate(EVIL))
    entries = [entry(tmp_path / "a.html", [[1, 2, 3]], names, name=evil) for evil in EVIL]
    page = Page(write_futures_index(tmp_path / "index.html", entries, title=EVIL[0]))
    assert_safe(page)
    assert len(page.all("script")) == 1
    assert page.all("input", id="find")  # many videos can be searched


def test_no_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no videos to list"):
        write_futures_index(tmp_path / "index.html", [])
