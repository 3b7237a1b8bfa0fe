"""Answers to questions about a video or an image, as text that appears while it is written.

    answerer = Answerer("runs/panda")
    print(answerer.ask("clip.mp4", "How many cups are on the table?").text)
    for piece in answerer.stream("clip.mp4", "And what colour are they?"):
        print(piece, end="")

A clip is watched once: its tokens go through the language model, whose keys and values are kept, and every
question goes on from there. Several questions are answered side by side. Answers are greedy, as published,
unless a temperature is given. The loop is our own: transformers' `generate` cannot go on from kept keys with
embeddings as its input.
Shapes: Q questions, N ids of a question, T frames.
"""

from __future__ import annotations

import copy
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.backbones.stab_frames import VisualTokens, grid_positions
from framecast.checkpoints import load
from framecast.data.letterbox import Letterboxed, read_letterboxed
from framecast.models.language_models import end_tokens
from framecast.models.video_panda import VideoPanda
from framecast.models.video_panda_prompts import Turns
from framecast.nn.splicing import splice
from framecast.structures import Answer

Source = str | os.PathLike[str]
Part = tuple[float | None, float | None]  # seconds
KEPT = 4  # clips whose keys and values are kept
WHOLE: Part = (None, None)


@dataclass(frozen=True)
class Watched:
    """A clip that went through the language model, up to where a question begins."""

    source: str
    times: np.ndarray  # (t,)
    visual: VisualTokens | None
    embeddings: Tensor  # (1, P, L)
    spans: tuple[tuple[int, int], ...]  # first position and length of every frame
    num_frames: int
    cache: Any  # keys and values, None where nothing comes before the question
    seconds: float

    @property
    def length(self) -> int:
        return self.embeddings.shape[1]


class Answerer:
    """A model that answers questions about videos, images, or nothing at all.

    model: a run folder, a saved model or a module. Raises ValueError where it is no such model.
    """

    def __init__(
        self, model: nn.Module | str | Path, *, device: str | torch.device = "cpu", keep: int = KEPT
    ) -> None:
        loaded: Any = load(model, device) if isinstance(model, str | Path) else model.to(device).eval()
        if not isinstance(loaded, VideoPanda):
            name = getattr(loaded, "registered_name", type(loaded).__name__)
            raise ValueError(f"{name} answers no questions; train one with `framecast train video_panda_…`")
        self.model, self.device, self.keep = loaded, torch.device(device), keep
        self.writer = loaded.writer
        self.ends = end_tokens(loaded.language_model, loaded.tokenizer)
        self._known: OrderedDict[Any, Watched] = OrderedDict()

    # Watching -------------------------------------------------------------------------------------------

    def watch(self, source: Source | None, part: Part = WHOLE) -> Watched:
        """A file, or a part of it in seconds; the last few are known already and cost nothing.

        source None: questions without a clip.
        """
        key = (identity(source), part)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        start = time.perf_counter()
        read = None if source is None else self.read(source, part)
        watched = self._watch(read, "" if source is None else str(source), start)
        self._known[key] = watched
        while len(self._known) > self.keep:
            self._known.popitem(last=False)
        return watched

    def read(self, source: Source, part: Part = WHOLE) -> Letterboxed:
        c = self.model.stab.config
        return read_letterboxed(
            source,
            c.mean,
            c.std,
            size=c.image_size,
            unit=self.model.stab.stride,
            num_frames=c.num_frames,
            start_s=part[0],
            end_s=part[1],
        )

    @torch.inference_mode()
    def _watch(self, read: Letterboxed | None, source: str, start: float) -> Watched:
        visual, blocks = None, ()
        if read is not None:
            (visual,) = self.model.see(read.clip[None].to(self.device), read.valid[None].to(self.device))
            blocks = visual.frames
        head = self.writer.head(len(blocks))
        spliced = splice([head], [blocks], self.model.embed)
        cache = None
        if spliced.embeddings.shape[1]:
            self._check_length(spliced.embeddings.shape[1])
            cache = self.model.language_model(
                inputs_embeds=spliced.embeddings, use_cache=True, logits_to_keep=1
            ).past_key_values
        return Watched(
            source,
            np.zeros(0) if read is None else read.times,
            visual,
            spliced.embeddings,
            spliced.spans[0],
            len(blocks),
            cache,
            time.perf_counter() - start,
        )

    # Asking ---------------------------------------------------------------------------------------------

    def ask(
        self,
        source: Source | None,
        questions: str | Sequence[str],
        *,
        part: Part = WHOLE,
        earlier: Turns = (),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        attention: bool = False,
    ) -> Any:
        """An `Answer`, or a list of them where questions is a list.

        earlier: questions and answers of the talk so far. attention: where in the clip the answer looked
        (a second pass). Raises ValueError where the question is empty or too long.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
        known = (identity(source), part) in self._known
        watched = self.watch(source, part)
        start = time.perf_counter()
        ids = [self.writer.turn(q, watched.num_frames, None, earlier).ids for q in asked]
        steps = list(self._write(watched, ids, max_new_tokens, temperature, seed))
        written = [[int(step[i]) for step in steps if step[i] >= 0] for i in range(len(asked))]
        seconds = {
            "watching": 0.0 if known else watched.seconds,
            "answering": time.perf_counter() - start,
        }
        answers = [
            Answer(
                text=self._text(own),
                question=question,
                source=watched.source,
                times=watched.times,
                attention=self._attention(watched, turn, own) if attention else None,
                finished=bool(own) and own[-1] in self.ends,
                num_visual_tokens=watched.visual.num_tokens if watched.visual else 0,
                seconds=seconds,
            )
            for question, turn, own in zip(asked, ids, written, strict=True)
        ]
        return answers[0] if isinstance(questions, str) else answers

    def stream(
        self,
        source: Source | None,
        question: str,
        *,
        part: Part = WHOLE,
        earlier: Turns = (),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Pieces of the answer as they are written; together they are `ask`'s text."""
        watched = self.watch(source, part)
        ids = self.writer.turn(question, watched.num_frames, None, earlier).ids
        written: list[int] = []
        shown = ""
        for step in self._write(watched, [ids], max_new_tokens, temperature, seed):
            written.append(int(step[0]))
            text = self._text(written)
            if text.endswith("\ufffd"):  # half of a character
                continue
            if len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
        text = self._text(written)
        if len(text) > len(shown):
            yield text[len(shown) :]

    @torch.inference_mode()
    def _write(
        self,
        watched: Watched,
        ids: Sequence[Tensor],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Iterator[Tensor]:
        """(Q,) next ids, step by step; -1 for a question whose answer has ended."""
        if max_new_tokens < 1 or temperature < 0:
            raise ValueError(
                f"max_new_tokens must be 1 or more and temperature 0 or more, not {max_new_tokens} and "
                f"{temperature}"
            )
        lengths = torch.tensor([len(turn) for turn in ids])
        self._check_length(watched.length + int(lengths.max()) + 1)
        model, count, device = self.model.language_model, len(ids), self.device
        generator = torch.Generator().manual_seed(seed)
        cache = copy.deepcopy(watched.cache)
        if cache is not None and count > 1:
            cache.batch_repeat_interleave(count)
        rows = nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
        mask = torch.arange(watched.length + rows.shape[1]) < watched.length + lengths[:, None]
        positions = (watched.length + torch.arange(rows.shape[1])).expand(count, -1)
        embeddings, last = self.model.embed(rows), lengths - 1
        ended = torch.zeros(count, dtype=torch.bool)
        for step in range(max_new_tokens):
            out = model(
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
                chances = (scores / temperature).softmax(-1)
                chosen = torch.multinomial(chances, 1, generator=generator)[:, 0]
            yield torch.where(ended, -1, chosen)
            ended |= torch.isin(chosen, torch.tensor(self.ends, dtype=chosen.dtype))
            full = watched.length + int(lengths.max()) + step + 1 >= self._longest()
            if ended.all() or full:
                return
            embeddings, last = self.model.embed(chosen[:, None]), torch.zeros(count, dtype=torch.long)
            mask = torch.cat([mask, torch.ones(count, 1, dtype=torch.bool)], dim=1)
            positions = (watched.length + lengths + step)[:, None]

    def _text(self, ids: list[int]) -> str:
        kept = [i for i in ids if i not in self.ends]
        return self.model.tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _longest(self) -> int:
        return getattr(self.model.language_model.config, "max_position_embeddings", None) or 1 << 30

    def _check_length(self, length: int) -> None:
        if length > self._longest():
            raise ValueError(
                f"clip and question take {length} positions and the language model has {self._longest()}; "
                "ask something shorter, or use a model that sees fewer or smaller frames"
            )

    # Where it looked ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _attention(self, watched: Watched, turn: Tensor, written: list[int]) -> np.ndarray | None:
        """(t, rows, columns), the mean over the answer's ids, layers and heads; None without frames."""
        if watched.visual is None or not watched.spans:
            return None
        config = self.model.language_model.config
        before, config._attn_implementation = config._attn_implementation, "eager"  # it alone tells
        try:
            words = self.model.embed(torch.cat([turn, torch.tensor(written, dtype=torch.long)]))
            maps = self.model.language_model(
                inputs_embeds=torch.cat([watched.embeddings, words[None]], dim=1),
                output_attentions=True,
                logits_to_keep=1,
                use_cache=False,
            ).attentions
        finally:
            config._attn_implementation = before
        first = watched.length + len(turn) - 1  # the position that writes the first id
        looked = torch.stack([layer[0, :, first:-1].mean((0, 1)) for layer in maps]).mean(0).float().cpu()
        c, frames = self.model.stab.config, []
        grids = watched.visual.grids[: len(watched.times)]
        for span, grid in zip(watched.spans, grids, strict=False):
            context = span[1] > grid[0] * (grid[1] + c.row_token)
            own = grid_positions(*span, grid, context=context, row_ends=c.row_token)
            frames.append(looked[own].unflatten(0, grid))
        shares = torch.stack(frames).numpy().astype(float)
        return shares / shares.sum()


def ask(model: Any, source: Source | None, questions: str | Sequence[str], **options: Any) -> Any:
    """What a model answers to one or several questions about a video or an image.

    model: a module, run folder, saved model or hub id. options: of `Answerer.ask`. Returns an `Answer`, or a
    list of them for a list. To ask one clip again and again, keep an `Answerer`: it watches the clip once.
    """
    return Answerer(model).ask(source, questions, **options)


def identity(source: Source | None) -> Any:
    """Tells a file that has changed from the one that was watched."""
    if source is None:
        return None
    path = Path(source)
    about = path.stat() if path.exists() else None
    return (str(path.absolute()), about.st_mtime_ns, about.st_size) if about else str(path)
