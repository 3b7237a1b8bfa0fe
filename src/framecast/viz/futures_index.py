"""The page that lists the futures of several videos, and the card of one of them for other pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from framecast.structures import Futures, Segments
from framecast.viz.chances import chance
from framecast.viz.futures_report import future_track
from framecast.viz.futures_view import FuturesView
from framecast.viz.markup import Markup, element, join, page, relative_link
from framecast.viz.palette import is_background
from framecast.viz.report import chip_list, count, facts_card, header
from framecast.viz.table import class_mark, picture
from framecast.writing import write_file

NAMED = 4  # classes that may come next, in a card
SEARCHED = 5  # pages with more videos have a field to find one


@dataclass(frozen=True)
class FuturesEntry:
    """One video with its futures on the page that lists several."""

    report: str | Path  # file that `write_futures_report` wrote
    futures: Futures
    name: str = ""  # "" = the name of the observed video
    truth: Segments | None = None  # labels of the whole video
    thumbnail: np.ndarray | None = None  # (H, W, 3) uint8
    facts: Mapping[str, str] = field(default_factory=dict)  # shown in one line

    @property
    def title(self) -> str:
        return self.name or self.futures.observed.video or Path(self.report).stem


def write_futures_index(
    path: str | Path,
    videos: Sequence[FuturesEntry],
    *,
    title: str = "Futures",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the page that lists videos with what was seen of them and what comes most probably.

    The links are relative, so the folder can be moved as a whole. Raises ValueError without videos.
    """
    if not videos:
        raise ValueError("no videos to list; pass at least one entry")
    views = [FuturesView.of(entry.futures, entry.truth, 0) for entry in videos]
    colors = {name: color for view in views for name, color in view.colors.items()}
    shown = {name for view in views for lane in view.lanes for name in lane.row.names}
    key = [element("li", class_mark(name, colors)) for name in sorted(shown, key=sort_key)]
    cards = [futures_card(entry, path) for entry in videos]
    field = element("input", id="find", type="search", autocomplete="off")
    found = element("span", id="shown", role="status")
    search = element("label", "Find a video ", field, found, class_="find", hidden="")
    content = page(
        "index.html",
        "index.js",
        title=title,
        header=header(title, [count(len(videos), "video"), *horizons(views)], None, None),
        legend=element("ul", *key, class_="key"),
        videos=join([search, *cards] if len(videos) > SEARCHED else cards),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def sort_key(name: str) -> tuple[bool, str]:
    return is_background(name), name


def horizons(views: Sequence[FuturesView]) -> list[str]:
    """How far was looked ahead, where that is the same for all."""
    words = {view.horizon for view in views}
    return [f"the next {words.pop()} forecast"] if len(words) == 1 else []


def futures_card(entry: FuturesEntry, path: str | Path) -> Markup:
    """Name, chances and a small timeline of one video; links are as seen from the page at `path`."""
    view = FuturesView.of(entry.futures, entry.truth, 0)
    seen = "nothing seen yet" if view.observed is None else f"{view.length(view.now)} seen"
    drawn = "one future" if view.is_certain else count(len(view.futures), "future")
    chips = [seen, f"the next {view.horizon}", drawn]
    chips += [f"{key} {value}" for key, value in entry.facts.items()]
    both = [lane for lane in (view.observed, view.mode) if lane is not None]
    rows = [future_track("seen | may come", both, view, size="mini")]
    if view.truth is not None:
        rows.append(future_track("what happened", [view.truth], view, size="mini"))
    cover = element("div", picture(entry.thumbnail, ""), class_="cover")
    words = element(
        "div",
        element("h2", element("a", entry.title, href=relative_link(entry.report, path))),
        chip_list(chips),
        element("ul", *coming(view), class_="steps"),
    )
    filmed = entry.thumbnail is not None
    return element(
        "article",
        *([cover] if filmed else []),
        words,
        element("div", *rows, class_="lanes"),
        class_="card video" if filmed else "card video bare",
        data_name=entry.title,
    )


def coming(view: FuturesView) -> list[Markup]:
    """The actions that are most likely to come, with their chances; the running one only if nothing else."""
    running = view.observed.row.labels[-1] if view.observed is not None else None
    new = [one for one in view.outlook if one.label != running and not is_background(view.name(one))]
    marks = [
        (class_mark(view.name(one), view.colors), chance(one.probability))
        for one in new[:NAMED] or view.outlook[:1]
    ]
    return [
        element("li", mark, "" if view.is_certain else element("span", share, class_="at"))
        for mark, share in marks
    ]
