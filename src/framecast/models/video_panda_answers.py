"""Answers written id by id: a clip goes through the language model once, every question goes on from there.

The loop is our own: `generate` of transformers goes on from kept keys only where it is given the clip's
embeddings once more, in front of each question and padded on the left, and hands ids out to a thread.
Shapes: Q questions, N ids of a question, P positions of the clip and what is said before it, L width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.backbones.stab_frames import VisualTokens, grid_positions
from framecast.models.language_models import end_tokens
from framecast.models.video_panda import VideoPanda
from framecast.nn.splicing import splice


@dataclass(frozen=True)
class Watched:
    """A clip that went through the language model, up to where a question begins."""

    visual: VisualTokens | None
    embeddings: Tensor  # (1, P, L)
    spans: tuple[tuple[int, int], ...]  # first position and length of every frame
    cache: Any  # keys and values, None where nothing comes before the question

    @property
    def length(self) -> int:
        return self.embeddings.shape[1]

    @property
    def num_frames(self) -> int:
        return len(self.spans)


@torch.inference_mode()
def watch(model: VideoPanda, clip: Tensor | None, valid: Tensor | None = None) -> Watched:
    """A clip (3, T, H, W), normalised, with its valid pixels (T, H, W); None for questions without one."""
    visual, blocks = None, ()
    if clip is not None:
        (visual,) = model.see(clip[None], None if valid is None else valid[None])
        blocks = visual.frames
    spliced = splice([model.writer.head(len(blocks))], [blocks], model.embed)
    cache, embeddings = None, spliced.embeddings
    if embeddings.shape[1]:
        check_length(model, embeddings.shape[1])
        out = model.language_model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
    return Watched(visual, embeddings, spliced.spans[0], cache)


@torch.inference_mode()
def write(
    model: VideoPanda,
    watched: Watched,
    turns: Sequence[Tensor],
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """(Q,) next ids of every question, step by step; -1 where an answer has ended.

    turns: (N,) ids of each question. temperature: 0 takes the likeliest id. Ends early where the language
    model has no more positions. Raises ValueError where clip and question are too long for it.
    """
    if max_new_tokens < 1 or temperature < 0:
        raise ValueError(
            f"max_new_tokens must be 1 or more and temperature 0 or more, not {max_new_tokens} and "
            f"{temperature}"
        )
    lengths = torch.tensor([len(turn) for turn in turns])
    check_length(model, watched.length + int(lengths.max()) + 1)
    count, device = len(turns), watched.embeddings.device
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor(end_tokens(model.language_model, model.tokenizer))
    cache = copy.deepcopy(watched.cache)
    if cache is not None and count > 1:
        cache.batch_repeat_interleave(count)
    rows = nn.utils.rnn.pad_sequence(list(turns), batch_first=True)
    mask = torch.arange(watched.length + rows.shape[1]) < watched.length + lengths[:, None]
    positions = (watched.length + torch.arange(rows.shape[1])).expand(count, -1)
    embeddings, last = model.embed(rows), lengths - 1
    ended = torch.zeros(count, dtype=torch.bool)
    room = min(max_new_tokens, longest(model) - watched.length - int(lengths.max()))
    for step in range(room):
        out = model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        scores = out.logits[torch.arange(count), last].float().cpu()
        chosen = scores.argmax(-1)
        if temperature:
            chosen = torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)[:, 0]
        yield torch.where(ended, -1, chosen)
        ended |= torch.isin(chosen, ends)
        if ended.all():
            return
        embeddings, last = model.embed(chosen[:, None]), torch.zeros(count, dtype=torch.long)
        mask = torch.cat([mask, torch.ones(count, 1, dtype=torch.bool)], dim=1)
        positions = (watched.length + lengths + step)[:, None]


def written(steps: Sequence[Tensor], count: int) -> list[list[int]]:
    """Ids of every answer, from the steps of `write`."""
    return [[int(step[i]) for step in steps if step[i] >= 0] for i in range(count)]


def answer_text(model: VideoPanda, ids: Sequence[int]) -> str:
    ends = end_tokens(model.language_model, model.tokenizer)
    return model.tokenizer.decode([i for i in ids if i not in ends], skip_special_tokens=True).strip()


def answers(model: VideoPanda, watched: Watched, questions: Sequence[str], max_new_tokens: int) -> list[str]:
    """Texts of the likeliest answers, side by side."""
    turns = [model.writer.turn(question, watched.num_frames).ids for question in questions]
    steps = list(write(model, watched, turns, max_new_tokens))
    return [answer_text(model, ids) for ids in written(steps, len(turns))]


@torch.inference_mode()
def attention(model: VideoPanda, watched: Watched, turn: Tensor, ids: Sequence[int]) -> np.ndarray | None:
    """Where in the clip an answer looked: (T, rows, columns), sums to 1; None without frames.

    A mean over the answer's ids, layers and heads; frames without tokens are left out.
    """
    if watched.visual is None:
        return None
    config = model.language_model.config
    before, config._attn_implementation = config._attn_implementation, "eager"  # it alone tells
    try:
        words = model.embed(torch.cat([turn, torch.tensor(list(ids), dtype=torch.long)]))
        maps = model.language_model(
            inputs_embeds=torch.cat([watched.embeddings, words[None]], dim=1),
            output_attentions=True,
            logits_to_keep=1,
            use_cache=False,
        ).attentions
    finally:
        config._attn_implementation = before
    first = watched.length + len(turn) - 1  # the position that writes the first id
    looked = torch.stack([layer[0, :, first:-1].mean((0, 1)) for layer in maps]).mean(0).float().cpu()
    row_ends, frames = model.stab.config.row_token, []
    for span, grid in zip(watched.spans, watched.visual.grids, strict=True):
        if span[1]:
            context = span[1] > grid[0] * (grid[1] + row_ends)
            own = grid_positions(*span, grid, context=context, row_ends=row_ends)
            frames.append(looked[own].unflatten(0, grid))
    shares = torch.stack(frames).double().numpy()  # frames of one file have one size
    return shares / shares.sum()


def longest(model: VideoPanda) -> int:
    """Positions that the language model has."""
    return getattr(model.language_model.config, "max_position_embeddings", None) or 1 << 30


def check_length(model: VideoPanda, length: int) -> None:
    if length > longest(model):
        raise ValueError(
            f"clip and question take {length} positions and the language model has {longest(model)}; "
            "ask something shorter, or use a model that sees fewer or smaller frames"
        )
