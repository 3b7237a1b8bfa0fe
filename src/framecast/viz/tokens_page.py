"""The part of a page of classes that shows which patches of an input were kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from framecast.structures import KeptTokens
from framecast.viz.images import data_uri
from framecast.viz.markup import Markup, element, relative_link
from framecast.viz.palette import text_color
from framecast.viz.tokens import (
    FRAMES_AT_MOST,
    evenly,
    lasting_picture,
    left_picture,
    share,
    shown_frames,
    stage_colors,
    summary,
    what_was_seen,
)

PICTURE_PIXELS = 224  # longest side of an embedded picture


def kept_section(kept: KeptTokens, links: Mapping[str, Path], page: str | Path) -> Markup:
    """Pictures with their legend; links: files by what they are, as seen from the page."""
    named = [element("a", name, href=relative_link(path, page)) for name, path in links.items()]
    note = f"Drawn over what the model saw: {what_was_seen(kept)}. Pale blue is gone. "
    return element(
        "section",
        element("h3", "Which patches are kept"),
        element("p", summary(kept) + "."),
        _legend(kept),
        *(_clip(kept) if len(shown_frames(kept)) > 1 else _image(kept)),
        element("p", note, *[part for link in named for part in (link, " ")], class_="note"),
        class_="kept",
    )


def _legend(kept: KeptTokens) -> Markup:
    """The colours: a square for each stage with its number."""
    colors = stage_colors(len(kept.blocks))
    words = [*(str(i + 1) for i in range(len(kept.blocks))), "stays to the end"]
    items = []
    for i, (word, color) in enumerate(zip(words, colors, strict=True)):
        fill = element("rect", width="100%", height="100%", fill=color)
        mark = element("text", word, x="50%", y="50%", fill=text_color(color))
        block = f"gone at stage {word}, block {kept.blocks[i]}" if i < len(kept.blocks) else word
        kind = "stage" if i < len(kept.blocks) else "stage last"
        items.append(element("li", element("svg", fill, mark, class_=kind, role="img", aria_label=block)))
    return element("ul", element("li", "A patch is gone at stage"), *items, class_="stages")


def _image(kept: KeptTokens) -> list[Markup]:
    frame, stages = shown_frames(kept)[0], len(kept.blocks)
    whole = [
        _figure(frame, "what the model saw"),
        _figure(_lasting(kept, 0), "how long each patch stays"),
        _figure(left_picture(_enlarged(frame), kept.left[-1, 0]), f"left at the end: {kept.counts[-1]:,}"),
    ]
    rows = [element("div", *whole, class_="kept-row")]
    if stages > 1:
        each = []
        for i, (left, count) in enumerate(zip(kept.left, kept.counts, strict=True)):
            words = f"stage {i + 1}: {count:,}, {share(count, kept.num_patches)}"
            each.append(_figure(left_picture(_enlarged(frame), left[0]), words))
        opened = element("summary", "What is left after each stage")
        rows.append(element("details", opened, element("div", *each, class_="kept-row small")))
    return rows


def _clip(kept: KeptTokens) -> list[Markup]:
    """Three rows of frames."""
    frames = shown_frames(kept)
    columns = evenly(len(frames), FRAMES_AT_MOST)
    films: list[list[Markup]] = [[], [], []]
    for i in columns:
        left = kept.left[-1, i]
        films[0].append(_figure(frames[i], f"frame {_number(kept, i)}"))
        films[1].append(_figure(_lasting(kept, i), ""))
        films[2].append(_figure(left_picture(_enlarged(frames[i]), left), f"{left.sum():,} left"))
    rows, names = [], ("What the model saw", "How long each patch stays", "Left at the end")
    for name, film in zip(names, films, strict=True):
        rows += [element("h4", name), element("div", *film, class_="kept-film")]
    return [element("div", element("div", *rows), class_="scroll")]


def _number(kept: KeptTokens, place: int) -> int:
    """Of the frame that `shown_frames` has at a place, counted from 1."""
    each = len(kept.frames) // kept.left.shape[1]
    return place * each + each // 2 + 1


def _lasting(kept: KeptTokens, place: int) -> np.ndarray:
    return lasting_picture(_enlarged(shown_frames(kept)[place]), kept.lasting[place], len(kept.blocks))


def _enlarged(frame: np.ndarray) -> np.ndarray:
    """Small inputs, so that the edges of patches stay sharp when the page enlarges the picture."""
    times = max(1, PICTURE_PIXELS // max(frame.shape[:2]))
    return frame.repeat(times, axis=0).repeat(times, axis=1)


def _figure(pixels: np.ndarray, words: str) -> Markup:
    image = element("img", src=data_uri(_enlarged(pixels), PICTURE_PIXELS), alt=words, loading="lazy")
    return element("figure", image, element("figcaption", words) if words else "")
