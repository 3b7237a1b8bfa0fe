"""Answers to questions about a video or an image, as text that appears while it is written.

    answerer = Answerer("runs/panda")
    print(answerer.ask("clip.mp4", "How many cups are on the table?").text)
    for piece in answerer.stream("clip.mp4", "And what colour are they?"):
        print(piece, end="")

A clip is watched once: its tokens go through the language model, whose keys and values are kept, and every
question goes on from there. Several questions are answered side by side. Answers are greedy, as published,
unless a temperature is given.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.checkpoints import load
from framecast.data.letterbox import Letterboxed, read_letterboxed
from framecast.models.language_models import end_tokens
from framecast.models.video_panda import VideoPanda
from framecast.models.video_panda_answers import Watched, answer_text, watch, write, written
from framecast.models.video_panda_answers import attention as where_attended
from framecast.models.video_panda_prompts import Turns
from framecast.structures import Answer

Source = str | os.PathLike[str]
Part = tuple[float | None, float | None]  # seconds
KEPT = 4  # clips whose keys and values are kept
WHOLE: Part = (None, None)


@dataclass(frozen=True)
class WatchedFile:
    """A file that the model has watched."""

    watched: Watched
    times: np.ndarray  # (T,) seconds of the frames that are there
    seconds: float  # that it took


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
        self._known: OrderedDict[Any, WatchedFile] = OrderedDict()

    # Watching -------------------------------------------------------------------------------------------

    def watch(self, source: Source | None, part: Part = WHOLE) -> WatchedFile:
        """A file, or a part of it in seconds; the last few are known already and cost nothing.

        source None: questions without a clip.
        """
        key = (identity(source), part)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        start = time.perf_counter()
        if source is None:
            watched, times = watch(self.model, None), np.zeros(0)
        else:
            read = self.read(source, part)
            watched = watch(self.model, read.clip.to(self.device), read.valid.to(self.device))
            times = read.times
        self._known[key] = WatchedFile(watched, times, time.perf_counter() - start)
        while len(self._known) > self.keep:
            self._known.popitem(last=False)
        return self._known[key]

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
        file = self.watch(source, part)
        start = time.perf_counter()
        turns = [self.writer.turn(q, file.watched.num_frames, None, earlier).ids for q in asked]
        steps = list(write(self.model, file.watched, turns, max_new_tokens, temperature, seed))
        seconds = {"watching": 0.0 if known else file.seconds, "answering": time.perf_counter() - start}
        found = [
            self._answer(source, file, question, turn, ids, seconds, attention)
            for question, turn, ids in zip(asked, turns, written(steps, len(asked)), strict=True)
        ]
        return found[0] if isinstance(questions, str) else found

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
        attention: bool = False,
    ) -> Generator[str, None, Answer]:
        """Pieces of the answer as they are written; what the generator returns is `ask`'s answer."""
        known = (identity(source), part) in self._known
        file = self.watch(source, part)
        start = time.perf_counter()
        turn = self.writer.turn(question, file.watched.num_frames, None, earlier).ids
        ids: list[int] = []
        shown = ""
        for step in write(self.model, file.watched, [turn], max_new_tokens, temperature, seed):
            ids.append(int(step[0]))
            text = answer_text(self.model, ids)
            if text.startswith(shown) and not text.endswith("\ufffd"):  # half of a character waits
                yield text[len(shown) :]
                shown = text
        seconds = {"watching": 0.0 if known else file.seconds, "answering": time.perf_counter() - start}
        answer = self._answer(source, file, question, turn, ids, seconds, attention)
        yield answer.text[len(shown) :]
        return answer

    def _answer(
        self,
        source: Source | None,
        file: WatchedFile,
        question: str,
        turn: Tensor,
        ids: Sequence[int],
        seconds: dict[str, float],
        attention: bool,
    ) -> Answer:
        watched = file.watched
        ends = end_tokens(self.model.language_model, self.model.tokenizer)
        return Answer(
            text=answer_text(self.model, ids),
            question=question,
            source="" if source is None else str(source),
            times=file.times,
            attention=looked_at(self.model, watched, turn, ids, len(file.times)) if attention else None,
            finished=bool(ids) and ids[-1] in ends,
            num_visual_tokens=watched.visual.num_tokens if watched.visual else 0,
            seconds=seconds,
        )


def ask(model: Any, source: Source | None, questions: str | Sequence[str], **options: Any) -> Any:
    """What a model answers to one or several questions about a video or an image.

    model: a module, run folder, saved model or hub id. options: of `Answerer.ask`. Returns an `Answer`, or a
    list of them for a list. To ask one clip again and again, keep an `Answerer`: it watches the clip once.
    """
    return Answerer(model).ask(source, questions, **options)


def looked_at(
    model: VideoPanda, watched: Watched, turn: Tensor, ids: Sequence[int], num_frames: int
) -> np.ndarray | None:
    """`Answer.attention`: of the frames that are there, without those that fill a short clip up."""
    found = where_attended(model, watched, turn, ids)
    if found is None:
        return None
    return found[:num_frames] / found[:num_frames].sum()


def identity(source: Source | None) -> Any:
    """Tells a file that has changed from the one that was watched."""
    if source is None:
        return None
    path = Path(source)
    about = path.stat() if path.exists() else None
    return (str(path.absolute()), about.st_mtime_ns, about.st_size) if about else str(path)
