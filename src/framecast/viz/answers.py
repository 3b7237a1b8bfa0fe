"""A page of answers: what was asked about each file, what was said, and where the model looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framecast.structures import Answer
from framecast.viz.images import data_uri
from framecast.viz.markup import Markup, element, join, page
from framecast.viz.report import chip_list, count, facts_card, header
from framecast.writing import write_file

PICTURE_PIXELS = 200  # longest side of a frame on the page


@dataclass(frozen=True)
class AnswersEntry:
    """One file on the page."""

    source: str
    answers: Sequence[Answer]  # of one file, so with the same times
    frames: np.ndarray | None = None  # (T, H, W, 3) uint8 at these times


def write_answers_page(
    path: str | Path, entries: Sequence[AnswersEntry], *, facts: dict[str, str] | None = None
) -> Path:
    """Write the page as one file; ValueError without entries."""
    if not entries:
        raise ValueError("nothing to show; pass at least one file with an answer")
    asked = sum(len(entry.answers) for entry in entries)
    content = page(
        "answers.html",
        "",
        title="Answers",
        header=header("Answers", [count(len(entries), "file"), count(asked, "question")], None, None),
        answers=join([file_card(entry) for entry in entries]),
        facts=facts_card(facts, None),
    )
    return write_file(path, content)


def file_card(entry: AnswersEntry) -> Markup:
    """A file's name, then every question with its answer and the frames that it looked at."""
    first = entry.answers[0]
    chips = [count(len(first.times), "frame") + " seen", f"{first.num_visual_tokens} visual tokens"]
    talks = [talk(answer, entry.frames) for answer in entry.answers]
    name = Path(entry.source).name or "no file"
    return element("article", element("h2", name, dir="auto"), chip_list(chips), *talks, class_="card talk")


def talk(answer: Answer, frames: np.ndarray | None) -> Markup:
    text = answer.text or "(says nothing)"
    unfinished = element("span", " … (cut off)", class_="quiet") if not answer.finished else ""
    parts = [
        element("h3", answer.question, dir="auto"),
        element("p", text, unfinished, class_="answer", dir="auto"),
    ]
    if frames is not None and answer.attention is not None:
        note = (
            "Where the answer looked: brighter places had more of its attention; below each frame its share "
            "and its time. Attention says what was read, not why."
        )
        shown = [frame(answer, i, frames[i]) for i in range(len(frames))]
        parts += [element("div", *shown, class_="film"), element("p", note, class_="quiet")]
    return element("section", *parts)


def frame(answer: Answer, index: int, pixels: np.ndarray) -> Markup:
    """One frame, darker where the answer did not look."""
    assert answer.attention is not None
    share = float(answer.attention[index].sum())
    second = f"{answer.times[index]:.1f} s"
    shaded = lit(pixels, answer.attention[index], float(answer.attention.max()))
    caption = element("figcaption", element("b", f"{share:.0%}"), f" at {second}")
    picture = element("img", src=data_uri(shaded, PICTURE_PIXELS), alt=f"frame at {second}", loading="lazy")
    return element("figure", picture, caption)


def lit(pixels: np.ndarray, attention: np.ndarray, most: float) -> np.ndarray:
    """(H, W, 3) uint8 as bright as (rows, columns) of attention, from 30 % for none to all for the most."""
    height, width = pixels.shape[:2]
    rows = (np.arange(height) * attention.shape[0]) // height
    columns = (np.arange(width) * attention.shape[1]) // width
    light = 0.3 + 0.7 * (attention / most if most > 0 else attention)
    return (pixels * light[rows][:, columns, None]).round().astype(np.uint8)
