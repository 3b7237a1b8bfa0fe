"""Futures as HTML: one self-contained page with what was seen, what may come, and how sure that is.

It follows the rules of the reports of timelines: nothing is fetched, texts from files stay texts, and it
fits the reader's screen, setting of light and paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from framecast.data.futures_files import ClassOutlook, FutureGroup, is_single
from framecast.structures import Futures, Provenance, Segments
from framecast.viz.chances import ChanceStack, chance
from framecast.viz.futures import past_strip
from framecast.viz.futures_view import FuturesView
from framecast.viz.images import data_uri
from framecast.viz.lanes import STRIP_PIXELS, Size, axis_row, curve_row, segment_shapes, track
from framecast.viz.markup import Markup, element, join, page, percent, relative_link
from framecast.viz.palette import is_background, readable
from framecast.viz.report import count, facts_card, header
from framecast.viz.table import class_button, class_mark, level
from framecast.viz.timeline import Lane
from framecast.writing import write_file

TRACK = 11.0  # inches: how wide a track is on a large screen, for the number of pictures
MOST_STEPS = 240
LISTED = 20  # groups in the table, classes in the list


def write_futures_report(
    path: str | Path,
    futures: Futures,
    *,
    video: Mapping[str, object] | None = None,
    truth: Segments | None = None,
    rows: int = 5,
    filmstrip: Sequence[np.ndarray] | None = None,
    filmstrip_times: Sequence[float] | np.ndarray | None = None,
    files: Sequence[str | Path] = (),
    scores: Mapping[str, str | float] | None = None,
    facts: Mapping[str, str] | None = None,
    provenance: Provenance | None = None,
    index: str | Path | None = None,
) -> Path:
    """Write what may come after what was seen of one video as a single HTML file.

    video: "name" is the headline, other entries are shown as they are. truth: labels of the whole video from
    its first frame on. rows: sampled futures in the picture. filmstrip: pictures (H, W, 3) uint8 of what was
    seen, spread evenly over it where `filmstrip_times` does not say when each is shown. files: written beside
    the page, for links. The rest is as in `write_report`.

    Raises ValueError as `draw_futures` does.
    """
    view = FuturesView.of(futures, truth, rows)
    about = dict(video or {})
    name = str(about.pop("name", "") or futures.observed.video or "video")
    back = None if index is None else element("a", "All videos", href=relative_link(index, path))
    content = page(
        "futures.html",
        "report.js",
        title=f"{name} – futures",
        header=header(name, chips(view, about), scores, back),
        timeline=element("div", *timeline(view, filmstrip, filmstrip_times), class_="lanes"),
        futures_title="The forecast" if len(futures) == 1 else "Possible futures",
        futures=futures_table(view),
        outlook=outlook_card(view),
        files=files_card(files, path),
        facts=facts_card(facts, provenance),
    )
    return write_file(path, content)


def chips(view: FuturesView, about: Mapping[str, object]) -> list[str]:
    seen = "nothing seen yet" if view.observed is None else f"{view.length(view.now)} seen"
    drawn = "one future" if view.is_certain else count(len(view.futures), "sampled future")
    return [seen, f"the next {view.horizon} forecast", drawn, *(f"{k} {v}" for k, v in about.items())]


# -- timeline ---------------------------------------------------------------------------------------------


def timeline(
    view: FuturesView,
    filmstrip: Sequence[np.ndarray] | None,
    times: Sequence[float] | np.ndarray | None,
) -> list[Markup]:
    """Lanes, areas and curve over one axis, from top to bottom."""
    rows = [head_row(view), film(view, filmstrip, times)]
    both = [lane for lane in (view.observed, view.mode) if lane is not None]
    rows.append(future_track("forecast" if view.is_certain else "most probable", both, view, size="full"))
    rows += [
        future_track(view.share(group), [lane], view)
        for group, lane in zip(view.groups, view.group_lanes, strict=False)
    ]
    if view.truth is not None:
        rows.append(future_track("what happened", [view.truth], view))
    if not view.is_certain:
        stack = ChanceStack.of(view, MOST_STEPS)
        mean, most = stack.entropy.mean(), stack.entropy.max()
        spoken = f"Entropy over time, {mean:.2f} bits on average, {most:.2f} at most"
        label = f"uncertainty, 0–{stack.most_bits:.0f} bit{'s' * (stack.most_bits > 1)}"
        rows.append(areas(view, stack))
        rows.append(curve_row(label, stack.edges, stack.entropy / stack.most_bits, view.axis, spoken))
    return [*rows, axis_row(view.axis)]


def now_rule(view: FuturesView) -> Markup:
    return element("rect", x=percent(view.axis.position(view.now)), width=2, height="100%", class_="now-rule")


def head_row(view: FuturesView) -> Markup:
    """Where now is, and what stands on its sides."""
    at, moment = percent(view.axis.position(view.now)), f"now {view.axis.text(view.now)}"
    away = 14 + 4 * len(moment)  # pixels: half of its width and a gap
    marks = [
        element("text", moment, x=at, y=13, text_anchor="middle", class_="now-mark"),
        element("text", view.seen_words, x=at, y=13, dx=-away, class_="now-mark before"),
        element("text", view.coming_words, x=at, y=13, dx=away, class_="now-mark after"),
    ]
    return join([element("span", class_="lane-name"), element("svg", *marks, class_="head")])


def film(
    view: FuturesView,
    filmstrip: Sequence[np.ndarray] | None,
    times: Sequence[float] | np.ndarray | None,
) -> Markup:
    """Pictures of the past that is shown, each where it happens."""
    share = view.axis.position(view.now)
    strip = past_strip(view, filmstrip, times, TRACK * share, TRACK * share)
    if strip is None:
        return Markup("")
    cells, wide = [], share / len(strip.cells)
    for i, picture in enumerate(strip.cells):
        if picture is not None:
            source, cut = data_uri(picture, STRIP_PIXELS), "xMidYMid slice"
            shown = element("image", href=source, preserveAspectRatio=cut, width="100%", height="100%")
            left, width = percent(i * wide), percent(wide * 0.985)
            cells.append(element("svg", shown, x=left, width=width, height="100%"))
    drawing = element("svg", *cells, now_rule(view), class_="lane-track pictures", aria_hidden="true")
    return join([element("span", class_="lane-name"), drawing])


def future_track(label: str, lanes: Sequence[Lane], view: FuturesView, *, size: Size = "thin") -> Markup:
    """Lanes in one row with the line of now; segments are named but in a "mini" row."""
    kind: Size = "mini" if size == "mini" else "thin"  # "full" segments lead to a table of segments
    shapes = [
        shape
        for lane in lanes
        for shape in segment_shapes(lane.row, lane.limits, view.axis, view.colors, kind)
    ]
    return track(label, [*shapes, now_rule(view)], size)


def areas(view: FuturesView, stack: ChanceStack) -> Markup:
    """Chances of the classes over time on top of each other."""
    places = 1000 * np.array([view.axis.position(edge) for edge in stack.edges])
    bottoms = np.vstack([np.zeros_like(stack.tops[:1]), stack.tops[:-1]])
    shapes = []
    for label, low, high in zip(stack.labels, bottoms, stack.tops, strict=True):
        name = view.futures.classes[label]
        peak = int((high - low).argmax())
        highest = f"at most {chance(float(high[peak] - low[peak]))}, at {view.axis.text(stack.edges[peak])}"
        points = f"{outline(places, high)} {outline(places[::-1], low[::-1])}"
        kind = "seg nothing" if is_background(name) else "seg"
        tip = f"{readable(name)} | {highest}"
        shapes.append(
            element(
                "polygon", points=points, fill=view.colors[name], class_=kind, data_class=name, data_tip=tip
            )
        )
    now = element("rect", x=f"{places[0]:.1f}", width=1, height=100, class_="now-rule")
    drawing = element(
        "svg", *shapes, now, viewBox="0 0 1000 100", preserveAspectRatio="none", class_="areas", role="img",
        aria_label="Chance of every class over time; the list of classes says the same in numbers",
    )  # fmt: skip
    return join([element("span", "chance of each class", class_="lane-name"), drawing])


def outline(places: np.ndarray, shares: np.ndarray) -> str:
    """Corners of steps of shares (M,) between places (M + 1,), without those inside of level stretches."""
    new = np.flatnonzero(np.r_[True, np.abs(np.diff(shares)) > 1e-9])
    ends = np.append(new[1:], len(shares))
    heights = 100 * (1 - np.clip(shares[new], 0, 1))
    return " ".join(
        f"{places[a]:.1f},{height:.1f} {places[b]:.1f},{height:.1f}"
        for a, b, height in zip(new, ends, heights, strict=True)
    )


# -- tables -----------------------------------------------------------------------------------------------


def futures_table(view: FuturesView) -> Markup:
    """A row per order of actions with its share of the samples and an example."""
    known = view.futures.likelihood is not None
    shared = [] if len(view.futures) == 1 else ["How many"]
    heads = [*shared, "What comes, and when", *(["Log-likelihood"] if known else [])]
    body = [future_row(view, group) for group in view.groups[:LISTED]]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", head, scope="col") for head in heads))),
        element("tbody", *body),
        class_="futures",
    )
    parts = [element("div", table, class_="scroll")]
    left = view.groups[LISTED:]
    if left:
        samples = sum(len(group) for group in left)
        parts.append(
            element("p", f"And {len(left)} more orders of actions, {samples} samples.", class_="note")
        )
    if len(view.futures) > 1:
        note = "Samples with the same order of actions are one row, with the times of the most typical one."
        parts.append(element("p", note, class_="note"))
    return join(parts)


def future_row(view: FuturesView, group: FutureGroup) -> Markup:
    segments = view.futures.segments(group.members[0])
    edges = view.now + segments.starts * (view.futures.step_s or 1.0)
    steps = [
        element("li", class_mark(name, view.colors), element("span", view.axis.text(at), class_="at"))
        for name, at in zip(segments.names, edges, strict=True)
    ]
    cells = [element("td", element("ol", *steps, class_="steps"))]
    if len(view.futures) > 1:
        share, number = level(len(group) / len(view.futures)), view.share(group)
        count_cell = element("td", share, element("span", number, class_="amount"), class_="count")
        cells.insert(0, count_cell)
    likelihood = view.futures.likelihood
    if likelihood is not None:
        cells.append(element("td", f"{likelihood[list(group.members)].mean():.4g}"))
    return element("tr", *cells)


def outlook_card(view: FuturesView) -> Markup:
    """Every class that may come: how probable it is within the horizon, and when it starts."""
    title = f"Will it happen in the next {view.horizon}?"
    if view.is_certain:
        title = f"Expected in the next {view.horizon}"
    elif is_single(view.futures):
        title = view.chance_words[0]
    shown = view.outlook[:LISTED]
    items = []
    for one in shown:
        likely = [] if view.is_certain else [chance(one.probability)]
        button = class_button(view.name(one), view.colors, likely, one.probability, starts(view, one))
        items.append(element("li", button))
    parts = [element("h2", title, id="classes-title"), element("ul", *items, class_="classes")]
    if len(view.outlook) > len(shown):
        parts.append(element("p", f"And {len(view.outlook) - len(shown)} less probable.", class_="note"))
    if len(view.futures) > 1:
        note = "Starts are medians over the futures that have the class; 80% of these start in between."
        parts.append(element("p", note, class_="note"))
    return element("section", *parts, class_="card", aria_labelledby="classes-title")


def starts(view: FuturesView, one: ClassOutlook) -> str:
    """When a class starts, for example "starts 1:05.0, between 0:58.0 and 1:20.0"."""
    step = view.futures.step_s or 1.0
    middle, early, late = (view.now + step * steps for steps in (one.start, one.earliest, one.latest))
    said = "goes on now" if one.start == 0 else f"starts {view.axis.text(middle)}"
    if view.observed is None or view.observed.row.labels[-1] != one.label:
        said = said.replace("goes on now", "starts now")
    spread = f", between {view.axis.text(early)} and {view.axis.text(late)}" if late - early > step else ""
    return said + spread


def files_card(files: Sequence[str | Path], path: str | Path) -> Markup:
    if not files:
        return Markup("")
    links = [element("li", element("a", Path(file).name, href=relative_link(file, path))) for file in files]
    listed = element("ul", *links, class_="plain-list")
    return element(
        "section",
        element("h2", "Files", id="files-title"),
        listed,
        class_="card",
        aria_labelledby="files-title",
    )
