"""Reports: pages parse, hold every segment, run nothing foreign and fetch nothing."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import EVIL, Page, assert_safe
from PIL import Image

from framecast.structures import Provenance, Segments
from framecast.viz.palette import GREY, PALETTE
from framecast.viz.report import IndexEntry, write_index, write_report

CLASSES = ("walk", "sit_down", "background")


def make_segments(labels: list[int], classes: tuple[str, ...] = CLASSES, probs: bool = True) -> Segments:
    frames = np.repeat(labels, 10)
    values = np.full((len(classes), len(frames)), 0.1)
    values[frames, np.arange(len(frames))] = 0.75
    times = np.arange(len(frames)) / 5
    return Segments.from_frames(
        frames, classes, video="clip", times=times, frame_probs=values if probs else None
    )


def write(path: Path, segments: Segments, **given: Any) -> Page:
    video: Any = {"name": "clip.mp4", "frames": segments.num_frames, "size": (160, 120), "fps": 5.0}
    return Page(write_report(path, video=given.pop("video", video), segments=segments, **given))


def test_every_segment_is_in_the_timeline_and_in_the_table(tmp_path):
    segments = make_segments([0, 1, 0, 2])
    page = write(tmp_path / "a.html", segments)
    assert_safe(page)
    rows = [row for row in page.all("tr") if "data-segment" in row[0]]
    links = [link for link in page.all("a") if "data-segment" in link[0]]
    assert len(rows) == len(links) == 4
    for i, (row, link) in enumerate(zip(rows, links, strict=True)):
        assert row[0]["id"] == f"segment-{i + 1}"
        assert link[0]["href"] == f"#segment-{i + 1}"
        assert row[0]["data-class"] == link[0]["data-class"] == segments.names[i]
        assert f"0:{2 * i:02d}.0" in row[1]
        assert "2.0 s" in row[1]
        assert "75%" in row[1]
        assert "confidence 75%" in (link[0]["aria-label"] or "")
    assert "sit down" in rows[1][1]


def test_segments_are_drawn_where_they_are(tmp_path):
    page = write(tmp_path / "a.html", make_segments([0, 1, 1, 2]))
    pattern = r'<svg x="([\d.]+)%" width="([\d.]+)%" height="100%"><rect fill="(#\w+)"'
    places = re.findall(pattern, page.source)
    assert [(float(x), float(width)) for x, width, _ in places] == [(0, 25), (25, 50), (75, 25)]
    assert [color for _, _, color in places] == [PALETTE[0], PALETTE[1], GREY]


@pytest.mark.parametrize("field", ["classes", "video", "facts", "scores", "row"])
def test_nothing_from_a_file_becomes_markup(tmp_path, field):
    segments = make_segments(list(range(6)), EVIL if field == "classes" else tuple("abcdef"))
    given = {
        "classes": {"truth": segments},
        "video": {"video": {"name": EVIL[0], EVIL[1]: EVIL[2], "frames": EVIL[4], "size": EVIL[3]}},
        "facts": {"facts": dict(zip(EVIL, reversed(EVIL), strict=True)) | {"command": EVIL[4]}},
        "scores": {"scores": dict(zip(EVIL, reversed(EVIL), strict=True))},
        "row": {"index": tmp_path / 'javascript:alert(1)"><script>.html'},
    }[field]
    page = write(tmp_path / "a.html", segments, **given)
    assert_safe(page)
    assert "<script>alert" not in page.source
    assert len(page.all("script")) == 1
    assert not page.all("b", onmouseover="alert(1)")
    if field == "classes":
        shown = [text for _, text in page.all("td", class_="what")]
        assert shown[:3] == [name.replace("_", " ") for name in EVIL[:3]]


def test_pictures_are_embedded(tmp_path):
    segments = make_segments([0, 1, 0])
    frames = [np.full((480, 640, 3), 80 * i, np.uint8) for i in range(3)]
    page = write(tmp_path / "a.html", segments, thumbnails=[frames[0], None, frames[2]], filmstrip=frames * 4)
    assert_safe(page)
    rows = page.all("img", loading="lazy")
    assert [image[0]["alt"] for image in rows] == ["walk at 0:01.0", "walk at 0:05.0"]
    data = (rows[1][0]["src"] or "").split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (320, 240)
        assert abs(int(np.asarray(image).mean()) - 160) < 3
    assert len(page.all("img")) > 2 + 5
    assert len(page.all("span", class_="blank")) == 1


def test_truth_is_compared_by_class(tmp_path):
    page = write(tmp_path / "a.html", make_segments([0, 1]), truth=make_segments([0, 0], probs=False))
    verdicts = [text for _, text in page.all("td", class_="truth")]
    assert verdicts == ["✓ agrees: walk 100%", "✗ differs: walk 100%"]
    foreign = write(
        tmp_path / "b.html", make_segments([0, 1]), truth=make_segments([0, 1], ("x", "y"), probs=False)
    )
    assert [text for _, text in foreign.all("td", class_="truth")] == ["x 100%", "y 100%"]


def test_columns_without_content_are_left_out(tmp_path):
    page = write(tmp_path / "a.html", make_segments([0, 1], probs=False))
    assert [text for _, text in page.all("th")] == ["#", "Class", "Start", "End", "Length"]
    assert not page.all("polyline")
    assert "How this was made" not in page.source


def test_facts_and_provenance_are_shown(tmp_path):
    provenance = Provenance("vit_small", "0123", None, "cls", (224, 308), (0.5,) * 3, (0.25,) * 3, 0.125)
    page = write(
        tmp_path / "a.html",
        make_segments([0, 1]),
        facts={"model": "ltcontext", "command": "framecast predict run clip.mp4"},
        scores={"Edit": 61.234, "loss": 0.01234, "note": "n/a"},
        provenance=provenance,
        index=tmp_path / "index.html",
    )
    assert [text for _, text in page.all("code")] == ["framecast predict run clip.mp4"]
    for text in ("vit_small", "308×224", "0.125", "61.2", "0.0123", "n/a", "160×120", "5 frames per second"):
        assert text in page.source
    assert page.all("a", href="index.html")


def test_frames_where_times_are_unknown(tmp_path):
    segments = Segments.from_frames(np.repeat([0, 1], 7), CLASSES)
    page = Page(write_report(tmp_path / "a.html", video={}, segments=segments))
    assert "7 frames" in page.all("tr", id="segment-2")[0][1]
    assert page.all("h1")[0][1] == "video"


def test_index_links_reports_by_relative_addresses(tmp_path):
    entries = []
    for name in ('odd "name" & <b>#?.mp4', "plain"):
        report = tmp_path / "pages" / f"{name}.html"
        write(report, make_segments([0, 1, 2]))
        thumbnail = np.zeros((90, 160, 3), np.uint8)
        truth = make_segments([0, 0, 2])
        entries.append(IndexEntry(report, make_segments([0, 1, 2]), name, truth, thumbnail, {"Edit": "61"}))
    page = Page(write_index(tmp_path / "index.html", entries, title="<Two> videos"))
    assert_safe(page)
    links = [attributes["href"] for attributes, _ in page.all("a")]
    assert links == ["pages/odd%20%22name%22%20%26%20%3Cb%3E%23%3F.mp4.html", "pages/plain.html"]
    assert [text for _, text in page.all("h2")] == ['odd "name" & <b>#?.mp4', "plain"]
    assert page.source.count("lane-track mini") == 4
    assert [text for _, text in page.all("ul", class_="key")] == ["walksit downbackground"]
    with pytest.raises(ValueError, match="no videos"):
        write_index(tmp_path / "none.html", [])


def test_a_failed_report_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("old")
    segments = make_segments([0, 1])
    with pytest.raises(ValueError, match="1 thumbnails for 2 segments"):
        write(path, segments, thumbnails=[None])
    with pytest.raises(ValueError, match="ground truth has 10 frames"):
        write(path, segments, truth=make_segments([0]))
    with pytest.raises(ValueError, match="uint8"):
        write(path, segments, thumbnails=[np.zeros((4, 4, 3)), None])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_names_that_are_no_text_can_be_shown(tmp_path):
    page = write(tmp_path / "a.html", make_segments([0, 1]), video={"name": "caf\udce9\x00.mp4"})
    assert page.all("h1")[0][1] == "caf .mp4"
