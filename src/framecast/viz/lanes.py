"""The timeline of a page: lanes of segments, film strip, confidence and axis as SVG.

Places are percentages of the width, so a page needs no measuring to fit any screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from framecast.structures import Segments
from framecast.viz.axis import TimeAxis
from framecast.viz.images import data_uri
from framecast.viz.markup import Markup, element, join, percent
from framecast.viz.palette import is_background, readable, text_color
from framecast.viz.timeline import Lane, confidence_curve

STRIP_SHAPE, STRIP_PIXELS = 13.0, 240  # width / height on a wide screen; longest side of a picture


Size = Literal["full", "thin", "mini"]


def lane(
    label: str, row: Segments, limits: np.ndarray, axis: TimeAxis, colors: Mapping[str, str], size: Size
) -> Markup:
    """A lane label and its segments with the limits (N, 2).

    "full": segments lead to their row of the table; "thin" ones are only named; "mini" ones have no text.
    """
    return track(label, segment_shapes(row, limits, axis, colors, size), size)


def track(label: str, shapes: Sequence[Markup], size: Size) -> Markup:
    """A lane label, and beside it shapes over the width of the axis."""
    drawing = element(
        "svg", *shapes, class_=f"lane-track {size}", role="group", aria_label=f"{label} over time"
    )
    return join([element("span", label, class_="lane-name"), drawing])


def segment_shapes(
    row: Segments, limits: np.ndarray, axis: TimeAxis, colors: Mapping[str, str], size: Size
) -> list[Markup]:
    shapes = []
    for number, (name, (start, end)) in enumerate(zip(row.names, limits, strict=True), start=1):
        parts = [readable(name), f"{axis.text(start)} – {axis.text(end)}", axis.length(end - start)]
        if row.confidence is not None:
            parts.append(f"confidence {row.confidence[number - 1]:.0%}")
        left, right = axis.position(start), axis.position(end)
        content = [element("rect", fill=colors[name])]
        if size == "mini":
            content.append(element("title", ", ".join(parts)))
        else:
            ink = text_color(colors[name])
            content.append(element("text", readable(name), x="50%", y="50%", fill=ink))
        shape = element("svg", *content, x=percent(left), width=percent(right - left), height="100%")
        kind = "seg nothing" if is_background(name) else "seg"
        said, tip = ", ".join(parts), " | ".join(parts)
        if size == "full":
            link = {"href": f"#segment-{number}", "data_segment": number, "aria_label": said}
            shapes.append(element("a", shape, class_=kind, data_class=name, data_tip=tip, **link))
        elif size == "thin":
            shapes.append(
                element("g", shape, class_=kind, data_class=name, data_tip=tip, role="img", aria_label=said)
            )
        else:
            shapes.append(element("g", shape, class_=kind))
    return shapes


def film_row(filmstrip: Sequence[np.ndarray] | None) -> Markup:
    """Pictures side by side, as many as fit without cutting much away."""
    if filmstrip is None or len(filmstrip) == 0:
        return Markup("")
    height, width = filmstrip[0].shape[:2]
    cells = min(len(filmstrip), max(5, round(STRIP_SHAPE * height / width)), 16)
    chosen = (np.arange(cells) + 0.5) / cells * len(filmstrip)
    images = [element("img", src=data_uri(filmstrip[int(i)], STRIP_PIXELS), alt="") for i in chosen]
    return join([element("span", class_="lane-name"), element("div", *images, class_="film")])


def confidence_row(shown: Lane) -> Markup:
    """Probability of the shown class over time, nothing where it is unknown."""
    curve = confidence_curve(shown, None, at_most=400)
    if curve is None:
        return Markup("")
    edges, values = curve
    return curve_row(
        "confidence", edges, values, shown.axis, f"Confidence over time, {np.mean(values):.0%} on average"
    )


def curve_row(label: str, edges: np.ndarray, values: np.ndarray, axis: TimeAxis, spoken: str) -> Markup:
    """A lane label and values (M,) in [0, 1] between edges (M + 1,); `spoken` says what they show."""
    places = [f"{1000 * axis.position(edge):.1f}" for edge in edges]
    heights = [f"{100 * (1 - min(max(float(v), 0.0), 1.0)):.1f}" for v in values]
    steps = zip(places[:-1], places[1:], heights, strict=True)
    points = " ".join(f"{start},{height} {end},{height}" for start, end, height in steps)
    drawing = element(
        "svg",
        element("polygon", points=f"{places[0]},100 {points} {places[-1]},100"),
        element("polyline", points=points),
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
        class_="curve",
        role="img",
        aria_label=spoken,
    )
    return join([element("span", label, class_="lane-name"), drawing])


def axis_row(axis: TimeAxis) -> Markup:
    """Ticks; the page's script leaves out those that would touch on a narrow screen."""
    marks = []
    for value, text in axis.ticks(14):
        at = axis.position(value)
        side = "first" if at < 0.01 else "last" if at > 0.985 else None
        marks.append(element("rect", x=percent(at if at < 1 else 0.999), y=0, width=1, height=4))
        marks.append(element("text", text, x=percent(at), y=17, class_=side))
    unit = "frames" if axis.unit == "frames" else ""
    drawing = element("svg", *marks, class_="axis", aria_hidden="true")
    return join([element("span", unit, class_="lane-name"), drawing])
