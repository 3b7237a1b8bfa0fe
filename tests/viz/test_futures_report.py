"""Pages of futures: every future and class is there in words, and nothing foreign can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from html_page import EVIL, Page, assert_safe

from framecast.structures import Futures, Segments
from framecast.viz.futures_report import write_futures_report

CLASSES = ("walk", "sit_down", "background")


def make_futures(samples: list[list[int]], classes: tuple[str, ...] = CLASSES, **given) -> Futures:
    """Four seconds of the first class were seen; every label of a sample lasts a second."""
    seen = Segments.from_frames(np.zeros(20), classes, video="clip", times=np.arange(20) / 5)
    return Futures(seen, np.repeat(np.array(samples), 5, axis=1), step_s=0.2, **given)


def write(path: Path, futures: Futures, **given) -> Page:
    return Page(write_futures_report(path, futures, **given))


def test_shares_chances_and_starts_are_in_words(tmp_path):
    page = write(tmp_path / "a.html", make_futures([[0, 1, 1]] * 3 + [[0, 0, 2]]))
    assert_safe(page)
    ((_, table),) = page.all("table")
    assert "3 of 4" in table
    assert "75%" in table
    buttons = {attributes["data-class"]: text for attributes, text in page.all("button")}
    assert list(buttons) == ["walk", "sit_down", "background"]
    assert "100%" in buttons["walk"]
    assert "goes on now" in buttons["walk"]
    assert "75%" in buttons["sit_down"]
    assert "starts 0:05.0" in buttons["sit_down"]
    assert "Will it happen in the next 3 s?" in page.source
    areas = [attributes for attributes, _ in page.all("polygon") if "data-class" in attributes]
    assert [area["data-class"] for area in areas] == ["walk", "sit_down", "background"]


def test_areas_have_the_height_of_the_chances(tmp_path):
    page = write(tmp_path / "a.html", make_futures([[0, 1]] * 3 + [[0, 2]]))
    (area,) = [a for a, _ in page.all("polygon") if a.get("data-class") == "sit_down"]
    corners = np.array([[float(v) for v in pair.split(",")] for pair in (area["points"] or "").split()])
    right = corners[corners[:, 0] == 1000]
    assert np.ptp(right[:, 1]) == 75


def test_a_single_future_makes_no_claims(tmp_path):
    page = write(tmp_path / "a.html", make_futures([[0, 1]]))
    assert_safe(page)
    assert "Expected in the next 2 s" in page.source
    assert "%" not in "".join(text for _, text in page.all("button"))
    assert not [a for a, _ in page.all("polygon") if "data-class" in a]


def test_truth_pictures_files_and_likelihood(tmp_path):
    futures = make_futures([[0, 1], [1, 1]], likelihood=np.array([-3.25, -7.5]))
    labels = np.r_[futures.observed.frame_labels, np.full(10, 2)]
    truth = Segments.from_frames(labels, CLASSES, times=np.arange(30) / 5)
    page = write(
        tmp_path / "pages" / "a.html",
        futures,
        truth=truth,
        filmstrip=[np.full((30, 40, 3), 9, np.uint8)] * 4,
        files=[tmp_path / "futures, all.csv"],
        facts={"command": "framecast predict"},
        index=tmp_path / "index.html",
    )
    assert_safe(page)
    assert {"../futures%2C%20all.csv", "../index.html"} <= {a.get("href") for a, _ in page.all("a")}
    assert "what happened" in page.source
    assert "-3.25" in page.all("table")[0][1]
    assert len(page.all("image")) > 1
    assert page.all("code")[0][1] == "framecast predict"


def test_names_stay_text(tmp_path):
    names = tuple(f"{evil}{i}" for i, evil in enumerate(EVIL))
    futures = make_futures([[i, (i + 1) % len(names)] for i in range(len(names))], names)
    page = write(tmp_path / "a.html", futures, video={"name": EVIL[0], EVIL[1]: EVIL[2]}, files=[EVIL[3]])
    assert_safe(page)
    assert len(page.all("script")) == 1
    assert EVIL[0] in page.all("h1")[0][1]


def test_many_futures_are_counted_not_listed(tmp_path):
    rng = np.random.default_rng(0)
    page = write(tmp_path / "a.html", make_futures(rng.integers(0, 3, (60, 12)).tolist()))
    assert len(page.all("tr")) == 1 + 20
    assert "more orders of actions" in page.source
