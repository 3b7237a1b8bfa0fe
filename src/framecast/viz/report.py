"""Reports as HTML: one self-contained page per video, and a page that lists several.

A page holds its pictures, style and script; it asks nothing from the network and allows nothing but its own
parts to run. It follows the reader's light or dark setting, fits phones and prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from framecast.structures import Provenance, Segments
from framecast.viz.axis import TimeAxis, common_axis
from framecast.viz.lanes import axis_row, confidence_row, film_row, lane
from framecast.viz.markup import Markup, element, join, page, relative_link
from framecast.viz.palette import is_background, shared_colors
from framecast.viz.table import class_list, class_mark, picture, segment_table
from framecast.viz.timeline import Lane
from framecast.writing import write_file


def write_report(
    path: str | Path,
    *,
    video: Mapping[str, object],
    segments: Segments,
    thumbnails: Sequence[np.ndarray | None] | None = None,
    truth: Segments | None = None,
    filmstrip: Sequence[np.ndarray] | None = None,
    scores: Mapping[str, str | float] | None = None,
    facts: Mapping[str, str] | None = None,
    provenance: Provenance | None = None,
    index: str | Path | None = None,
) -> Path:
    """Write the report of one video as a single HTML file.

    video: "name", "duration" in seconds, "frames", "size" as (width, height), "fps"; what is missing is left
    out, other entries are shown as they are. thumbnails: a picture (H, W, 3) uint8 or None per segment.
    truth: ground truth of as many frames. filmstrip: pictures spread evenly over the video. scores: shown
    large. facts: how the result was made; "command" is set as code. index: the page that lists all videos,
    for a link back.

    Raises ValueError where thumbnails or truth do not match the segments.
    """
    if thumbnails is not None and len(thumbnails) != len(segments):
        raise ValueError(
            f"{len(thumbnails)} thumbnails for {len(segments)} segments; pass one per segment or None"
        )
    if truth is not None and truth.num_frames != segments.num_frames:
        raise ValueError(
            f"the ground truth has {truth.num_frames} frames, the segments {segments.num_frames}; "
            "bring both to the same frames"
        )
    rows = [segments] if truth is None else [segments, truth]
    axis, limits = common_axis(rows)
    colors = shared_colors(rows)
    name = str(video.get("name") or segments.video or "video")
    back = None if index is None else element("a", "All videos", href=relative_link(index, path))
    content = page(
        "report.html",
        "report.js",
        title=f"{name} – segments",
        header=header(name, video_chips(video, segments, axis), scores, back),
        timeline=element(
            "div",
            film_row(filmstrip),
            *lanes(rows, limits, axis, colors, ("full", "thin")),
            confidence_row(Lane("prediction", segments, limits[0], axis)),
            axis_row(axis),
            class_="lanes",
        ),
        segments=segment_table(segments, limits[0], axis, colors, thumbnails, truth),
        classes=class_list(segments, limits[0], axis, colors),
        facts=facts_card(facts, provenance),
    )
    return write_file(path, content)


def lanes(
    rows: Sequence[Segments],
    limits: Sequence[np.ndarray],
    axis: TimeAxis,
    colors: Mapping[str, str],
    sizes: Sequence[Literal["full", "thin", "mini"]],
) -> list[Markup]:
    labels = ("segments",) if len(rows) == 1 else ("prediction", "ground truth")
    named = zip(labels, rows, limits, sizes, strict=False)
    return [lane(label, row, limit, axis, colors, size) for label, row, limit, size in named]


@dataclass(frozen=True)
class IndexEntry:
    """One video on the page that lists several."""

    report: str | Path  # file that `write_report` wrote
    segments: Segments
    name: str = ""  # "" = the name of the segments' video
    truth: Segments | None = None
    thumbnail: np.ndarray | None = None  # (H, W, 3) uint8
    facts: Mapping[str, str] = field(default_factory=dict)  # shown in one line, for example scores


def write_index(
    path: str | Path,
    videos: Sequence[IndexEntry],
    *,
    title: str = "Videos",
    scores: Mapping[str, str | float] | None = None,
    facts: Mapping[str, str] | None = None,
    beside: Sequence[Markup] = (),
) -> Path:
    """Write the page that lists videos with small timelines and links to their reports.

    beside: cards of other pages, shown below the videos. The links are relative, so the folder can be moved
    as a whole. Raises ValueError without videos.
    """
    if not videos:
        raise ValueError("no videos to list; pass at least one entry")
    rows = [entry.segments for entry in videos] + [entry.truth for entry in videos if entry.truth is not None]
    colors = shared_colors(rows)
    seen = {name: None for row in rows for name in row.names}
    chips = [count(len(videos), "video"), count(sum(len(entry.segments) for entry in videos), "segment")]
    found = element("span", id="shown", role="status")
    box = element("input", id="find", type="search", autocomplete="off")
    search = element("label", "Find a video ", box, found, class_="find", hidden="")
    key = [element("li", class_mark(name, colors)) for name in sorted(seen, key=is_background)]
    cards = [index_card(entry, path, colors) for entry in videos]
    content = page(
        "index.html",
        "index.js",
        title=title,
        header=header(title, chips, scores, None),
        legend=element("ul", *key, class_="key"),
        videos=join([*([search] if len(videos) > 5 else []), *cards, *beside]),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def index_card(entry: IndexEntry, path: str | Path, colors: Mapping[str, str]) -> Markup:
    rows = [entry.segments] if entry.truth is None else [entry.segments, entry.truth]
    axis, limits = common_axis(rows)
    name = entry.name or entry.segments.video or Path(entry.report).stem
    chips = [axis.length(axis.end), count(len(entry.segments), "segment")]
    chips += [f"{key} {value}" for key, value in entry.facts.items()]
    return element(
        "article",
        element("div", picture(entry.thumbnail, ""), class_="cover"),
        element(
            "div",
            element("h2", element("a", name, href=relative_link(entry.report, path))),
            chip_list(chips),
        ),
        element("div", *lanes(rows, limits, axis, colors, ("mini", "mini")), class_="lanes"),
        class_="card video",
        data_name=name,
    )


# -- header -----------------------------------------------------------------------------------------------


def header(
    title: str, chips: Sequence[str], scores: Mapping[str, str | float] | None, back: Markup | None
) -> Markup:
    tiles = [
        element("div", element("dt", key), element("dd", value if isinstance(value, str) else figure(value)))
        for key, value in (scores or {}).items()
    ]
    return join(
        [
            element("div", element("b", "framecast"), element("span", back or ""), class_="brand"),
            element("h1", title, dir="auto"),
            chip_list(chips),
            element("dl", *tiles, class_="scores") if tiles else "",
        ]
    )


def figure(value: float) -> str:
    """Scores in percent to a tenth, small numbers to three digits."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def chip_list(chips: Sequence[str]) -> Markup:
    return element("ul", *(element("li", chip) for chip in chips), class_="chips")


def video_chips(video: Mapping[str, object], segments: Segments, axis: TimeAxis) -> list[str]:
    """Facts of the video in a few words each."""
    chips = []
    duration = video.get("duration", axis.end if axis.unit == "seconds" else None)
    if isinstance(duration, int | float):
        chips.append(TimeAxis("seconds", duration).length(duration))
    elif duration is not None:
        chips.append(str(duration))
    frames = video.get("frames", segments.num_frames)
    chips.append(count(frames, "frame") if isinstance(frames, int) else str(frames))
    size = video.get("size")
    if size is not None:
        chips.append("×".join(str(n) for n in size) if isinstance(size, tuple | list) else str(size))
    fps = video.get("fps")
    if fps is not None:
        chips.append(f"{fps:.4g} frames per second" if isinstance(fps, int | float) else f"{fps} fps")
    others = {k: v for k, v in video.items() if k not in {"name", "duration", "frames", "size", "fps"}}
    chips += [f"{key} {value}" for key, value in others.items()]
    classes = len({name for name in segments.names if not is_background(name)})
    return [*chips, f"{count(len(segments), 'segment')} of {count(classes, 'class', 'classes')}"]


def count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


# -- facts -----------------------------------------------------------------------------------------------


def facts_card(facts: Mapping[str, str] | None, provenance: Provenance | None) -> Markup:
    """How the result was made, so that another person can repeat it."""
    if not facts and provenance is None:
        return Markup("")
    parts: list[str] = [element("h2", "How this was made", id="facts-title")]
    if facts:
        parts.append(fact_list(facts))
    if provenance is not None:
        known = {key.replace("_", " "): value for key, value in provenance.to_json().items() if value != ""}
        known["step s"] = "every frame" if provenance.step_s is None else f"{provenance.step_s:g}"
        known["layer"] = "last" if provenance.layer is None else provenance.layer
        known["image size"] = f"{provenance.image_size[1]}×{provenance.image_size[0]}"
        for key in ("mean", "std"):
            known[key] = ", ".join(f"{value:g}" for value in getattr(provenance, key))
        listed = fact_list({key: str(value) for key, value in known.items()})
        parts.append(element("details", element("summary", "Where the features come from"), listed))
    return element("section", *parts, class_="card", aria_labelledby="facts-title")


def fact_list(facts: Mapping[str, str]) -> Markup:
    rows = []
    for key, value in facts.items():
        shown = element("code", str(value)) if key.casefold() == "command" else str(value)
        rows.append(element("div", element("dt", key), element("dd", shown)))
    return element("dl", *rows, class_="facts")
