"""Blocks of visual tokens put into a text where it says so, as a language model's input embeddings.

Plain tensors: any language model that takes embeddings can read them, and nothing else is needed here.
Shapes: B texts, N ids of a text, S of the spliced sequence, L width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PLACEHOLDER = -200  # an id that stands for one block: one frame of a clip, or an image
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Spliced:
    """What a language model reads."""

    embeddings: Tensor  # (B, S, L), zero where nothing stands
    mask: Tensor  # (B, S) bool, True = a token
    labels: Tensor | None  # (B, S), blocks and padding ignored
    spans: tuple[tuple[tuple[int, int], ...], ...]  # first position and length of every block of every text


def splice(
    ids: Sequence[Tensor] | Tensor,
    blocks: Sequence[Sequence[Tensor]],
    embed: Callable[[Tensor], Tensor],
    *,
    mask: Tensor | None = None,
    labels: Sequence[Tensor] | Tensor | None = None,
    padding: Literal["right", "left"] = "right",
) -> Spliced:
    """Every placeholder gives way to the next block of its text; shorter sequences are padded.

    ids: B texts, of any lengths or as (B, N) with a mask. blocks: for each text as many (n, L) as it has
    placeholders; a block may be empty. embed: ids to embeddings (N,) -> (N, L). labels: as ids. padding:
    "right" for training, "left" where several texts are continued together. Raises ValueError where
    placeholders and blocks do not match.
    """
    texts, wanted = _without_padding(ids, mask), None
    if labels is not None:
        wanted = _without_padding(labels, mask)
        if [len(row) for row in wanted] != [len(text) for text in texts]:
            raise ValueError("labels and ids differ in length; give one label for each id")
    if len(blocks) != len(texts):
        raise ValueError(
            f"{len(texts)} texts but blocks for {len(blocks)}; give a list of blocks for each text"
        )
    rows, row_labels, spans = [], [], []
    for i, text in enumerate(texts):
        places = (text == PLACEHOLDER).nonzero()[:, 0].tolist()
        if len(places) != len(blocks[i]):
            raise ValueError(
                f"text {i} has {len(places)} placeholders but {len(blocks[i])} blocks of visual tokens; "
                "write one placeholder for each frame"
            )
        words = embed(text[text != PLACEHOLDER])
        own = None if wanted is None else wanted[i]
        row, label, span = _joined(text, words, places, blocks[i], own)
        rows.append(row)
        row_labels.append(label)
        spans.append(span)
    return _padded(rows, row_labels if wanted is not None else None, spans, padding)


def _without_padding(rows: Sequence[Tensor] | Tensor, mask: Tensor | None) -> list[Tensor]:
    if mask is None:
        return list(rows)
    if not isinstance(rows, Tensor) or rows.shape != mask.shape:
        raise ValueError(f"a mask {tuple(mask.shape)} needs ids and labels of the same shape")
    return [row[kept] for row, kept in zip(rows, mask.bool(), strict=True)]


def _joined(
    text: Tensor, words: Tensor, places: list[int], blocks: Sequence[Tensor], labels: Tensor | None
) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
    """One text with its blocks: embeddings (n, L), labels (n,) and where the blocks lie."""
    parts, answers, spans, length, first = [], [], [], 0, 0
    labels = torch.full_like(text, IGNORED_LABEL) if labels is None else labels
    for i, (place, block) in enumerate(zip([*places, len(text)], [*blocks, words[:0]], strict=True)):
        parts += [words[first - i : place - i], block.to(words)]  # i ids before were no words
        answers += [labels[first:place], labels.new_full((len(block),), IGNORED_LABEL)]
        length += place - first
        spans.append((length, len(block)))
        length += len(block)
        first = place + 1
    return torch.cat(parts), torch.cat(answers), tuple(spans[:-1])


def _padded(
    rows: list[Tensor],
    labels: list[Tensor] | None,
    spans: list[tuple[tuple[int, int], ...]],
    padding: Literal["right", "left"],
) -> Spliced:
    lengths = [len(row) for row in rows]
    gaps = [max(lengths, default=0) - n if padding == "left" else 0 for n in lengths]
    spans = [tuple((first + gap, n) for first, n in own) for own, gap in zip(spans, gaps, strict=True)]

    def together(parts: list[Tensor], fill: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, True, fill, padding_side=padding)

    mask = together([torch.ones(n, dtype=torch.bool, device=rows[0].device) for n in lengths], False)
    answers = None if labels is None else together(labels, IGNORED_LABEL)
    return Spliced(together(rows, 0.0), mask, answers, tuple(spans))
