"""A page of images and clips with their most probable classes: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from framecast.structures import KeptTokens, Labels
from framecast.viz.markup import Markup, element, join, page
from framecast.viz.palette import class_colors, is_background
from framecast.viz.report import chip_list, count, facts_card, header
from framecast.viz.table import class_mark, level, picture
from framecast.viz.tokens_page import kept_section
from framecast.writing import write_file

SHOWN = 5  # classes per image or clip


@dataclass(frozen=True)
class LabelsEntry:
    """One image or clip on the page."""

    labels: Labels
    thumbnail: np.ndarray | None = None  # (H, W, 3) uint8
    truth: str | None = None  # the right class where it is known
    kept: KeptTokens | None = None  # which patches the model kept
    drawings: Mapping[str, Path] = field(default_factory=dict)  # pictures of that, by what they are


def write_labels_page(
    path: str | Path,
    entries: Sequence[LabelsEntry],
    *,
    title: str = "Classes",
    scores: Mapping[str, str | float] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the page; ValueError without entries."""
    if not entries:
        raise ValueError("nothing to show; pass at least one image or clip")
    classes = entries[0].labels.classes
    colors = dict(zip(classes, class_colors(classes), strict=True))
    found: dict[str, int] = {}
    for entry in entries:
        name = entry.labels.top(1)[0][0]
        found[name] = found.get(name, 0) + 1
    key = [
        element("li", class_mark(name, colors), f" {number}")
        for name, number in sorted(found.items(), key=lambda item: (is_background(item[0]), -item[1]))
    ]
    shown = element("span", id="shown", role="status")
    box = element("input", id="find", type="search", autocomplete="off")
    search = element("label", "Find a file ", box, shown, class_="find", hidden="")
    cards = [card(entry, colors, path) for entry in entries]
    chips = [count(len(entries), "file"), count(len(found), "class found", "classes found")]
    content = page(
        "index.html",
        "index.js",
        title=title,
        header=header(title, chips, scores, None),
        legend=element("ul", *key, class_="key"),
        videos=join([search, *cards] if len(cards) > 5 else cards),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def card(entry: LabelsEntry, colors: Mapping[str, str], path: str | Path) -> Markup:
    """For the page at `path`: picture, name, a bar for each of the most probable classes, what was kept."""
    name = Path(entry.labels.source).name or "input"
    rows = [
        element("li", class_mark(label, colors), level(share)) for label, share in entry.labels.top(SHOWN)
    ]
    chips = []
    if entry.truth is not None:
        right = entry.labels.top(1)[0][0] == entry.truth
        chips.append(f"{'✓' if right else '✗'} ground truth: {entry.truth}")
    return element(
        "article",
        element("div", picture(entry.thumbnail, ""), class_="cover"),
        element("div", element("h2", name, dir="auto"), chip_list(chips) if chips else ""),
        element("ol", *rows, class_="ranking"),
        "" if entry.kept is None else kept_section(entry.kept, entry.drawings, path),
        class_="card video",
        data_name=name,
    )
