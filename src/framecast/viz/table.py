"""The table of segments of a page and the list of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from framecast.structures import Segments
from framecast.viz.axis import TimeAxis
from framecast.viz.images import data_uri
from framecast.viz.markup import Markup, element, percent
from framecast.viz.palette import is_background, readable

PICTURE_PIXELS = 320  # longest side of an embedded picture


def segment_table(
    segments: Segments,
    limits: np.ndarray,
    axis: TimeAxis,
    colors: Mapping[str, str],
    thumbnails: Sequence[np.ndarray | None] | None,
    truth: Segments | None,
) -> Markup:
    """A row per segment with the limits (N, 2); `truth` covers as many frames as the segments."""
    columns = {"number": "#", "picture": "Picture", "what": "Class", "time": "Start", "time end": "End"}
    columns |= {"length": "Length", "sure": "Confidence", "truth": "Ground truth"}
    missing = {"picture": thumbnails, "sure": segments.confidence, "truth": truth}
    columns = {kind: head for kind, head in columns.items() if missing.get(kind, "") is not None}
    true_labels = None if truth is None else truth.frame_labels

    body = []
    for i, (name, (start, end)) in enumerate(zip(segments.names, limits, strict=True)):
        cells: dict[str, Sequence[str]] = {
            "number": [str(i + 1)],
            "what": [class_mark(name, colors)],
            "time": [axis.text(start)],
            "time end": [axis.text(end)],
            "length": [axis.length(end - start)],
        }
        if thumbnails is not None:
            described = f"{readable(name)} at {axis.text((start + end) / 2)}"
            cells["picture"] = [picture(thumbnails[i], described)]
        if segments.confidence is not None:
            cells["sure"] = [level(float(segments.confidence[i]))]
        if truth is not None and true_labels is not None:
            inside = true_labels[segments.starts[i] : segments.ends[i]]
            cells["truth"] = verdict(name, segments.classes, inside, truth.classes)
        written = [element("td", *cells[kind], class_=kind, role="cell") for kind in columns]
        marks = {"id": f"segment-{i + 1}", "data_segment": i + 1, "data_class": name, "tabindex": -1}
        body.append(element("tr", *written, role="row", **marks))

    heads = [element("th", head, scope="col", role="columnheader") for head in columns.values()]
    return element(
        "table",
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        class_="plain" if thumbnails is None else None,
        role="table",
        aria_labelledby="segments-title",
    )


def verdict(
    name: str, classes: Sequence[str], true_labels: np.ndarray, true_classes: Sequence[str]
) -> list[str]:
    """The true class that fills most of a segment, its share and, where classes are shared, if it agrees."""
    values, counts = np.unique(true_labels, return_counts=True)
    label = int(values[counts.argmax()])
    true_name = true_classes[label] if label >= 0 else "unlabelled"
    share = f"{readable(true_name)} {counts.max() / len(true_labels):.0%}"
    if label < 0 or not set(classes) & set(true_classes):
        return [share]
    sign, kind, spoken = ("✓ ", "same", "agrees: ") if true_name == name else ("✗ ", "other", "differs: ")
    return [
        element("span", sign, class_=kind, aria_hidden="true"),
        element("span", spoken, class_="unseen"),
        share,
    ]


def picture(pixels: np.ndarray | None, described: str) -> Markup:
    """An embedded picture from (H, W, 3) uint8, or an empty frame."""
    if pixels is None:
        return element("span", class_="blank")
    return element("img", src=data_uri(pixels, PICTURE_PIXELS), alt=described, loading="lazy")


def class_mark(name: str, colors: Mapping[str, str]) -> Markup:
    """A square in the colour of the class and its name; the tooltip has the name as the file spells it."""
    kind = "swatch nothing" if is_background(name) else "swatch"
    square = element("svg", element("rect", fill=colors[name]), class_=kind, aria_hidden="true")
    return element("span", square, element("span", readable(name), title=name, dir="auto"), class_="class")


def level(share: float) -> Markup:
    """A share in [0, 1] as a bar and in percent."""
    bar = element("svg", element("rect", width=percent(min(max(share, 0.0), 1.0))), aria_hidden="true")
    return element("span", bar, f"{share:.0%}", class_="level")


def class_list(segments: Segments, limits: np.ndarray, axis: TimeAxis, colors: Mapping[str, str]) -> Markup:
    """Every class with its share of the video, longest first, background last; a press singles it out."""
    lengths: dict[str, list[float]] = {}
    for name, (start, end) in zip(segments.names, limits, strict=True):
        lengths.setdefault(name, []).append(float(end - start))
    whole = sum(sum(parts) for parts in lengths.values()) or 1.0
    items = []
    for name, parts in sorted(lengths.items(), key=lambda item: (is_background(item[0]), -sum(item[1]))):
        share = sum(parts) / whole
        amount = [axis.length(sum(parts)), "<1%" if 0 < share < 0.005 else f"{share:.0%}"]
        if len(parts) > 1:
            amount.append(f"{len(parts)}×")
        items.append(element("li", class_button(name, colors, amount, share)))
    return element("ul", *items, class_="classes")


def class_button(
    name: str, colors: Mapping[str, str], amount: Sequence[str], share: float, below: str = ""
) -> Markup:
    """A class with some words beside and below it and a bar as long as its share; a press singles it out."""
    return element(
        "button",
        class_mark(name, colors),
        element("span", " · ".join(amount), class_="amount"),
        element(
            "svg",
            element("rect", width=percent(share), fill=colors[name]),
            class_="share nothing" if is_background(name) else "share",
        ),
        element("span", below, class_="below") if below else "",
        type="button",
        data_class=name,
        aria_pressed="false",
    )
