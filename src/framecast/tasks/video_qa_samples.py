"""Clips and what is asked about them, as samples of training.

Shapes: T frames, S side of a frame, h and w visual tokens of a frame, D width of a teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from framecast.data.letterbox import Letterboxed, read_letterboxed
from framecast.data.question_records import LETTERS, Question, by_clip
from framecast.models.video_panda import Talk, VideoPanda
from framecast.nn.splicing import IGNORED_LABEL

TeacherFrames = tuple[Tensor | None, ...]  # (h, w, D) of every frame, None for an empty one


class ClipSettings(NamedTuple):
    """How a model reads frames; see `read_letterboxed`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    unit: int
    num_frames: int


def clip_settings(model: VideoPanda) -> ClipSettings:
    c = model.stab.config
    return ClipSettings(c.mean, c.std, c.image_size, model.stab.stride, c.num_frames)


class Clips:
    """Decoded clips by what they show, kept in half precision as far as memory is allowed."""

    def __init__(self, settings: ClipSettings, keep_mb: int = 2048) -> None:
        self.settings, self.room = settings, keep_mb * 2**20
        self._kept: dict[Any, Letterboxed] = {}

    def __getitem__(self, question: Question) -> Letterboxed:
        key = clip_key(question)
        if key in self._kept:
            kept = self._kept[key]
            return kept._replace(clip=kept.clip.float())
        assert question.video is not None
        times = {"start_s": question.start_s, "end_s": question.end_s}
        read = read_letterboxed(question.video, **self.settings._asdict(), **times)
        half = read._replace(clip=read.clip.half())
        size = half.clip.nbytes + half.valid.nbytes
        if size <= self.room:
            self.room -= size
            self._kept[key] = half
        return read._replace(clip=half.clip.float())  # the same whether it is kept or not


def clip_key(question: Question) -> tuple[str, float | None, float | None]:
    return str(question.video), question.start_s, question.end_s


class TalkSamples:
    """Training samples: a clip with up to `max_turns` questions."""

    def __init__(
        self,
        questions: Sequence[Question],
        clips: Clips,
        max_turns: int,
        *,
        blind: bool = False,
        mirror: float = 0.0,
        augment: float = 0.0,
    ) -> None:
        self.groups = [
            group[start : start + max_turns]
            for group in by_clip(questions)
            for start in range(0, len(group), max_turns)
        ]
        self.clips, self.blind, self.mirror, self.augment = clips, blind, mirror, augment
        self.writer: Any = None  # that of the model, once it is built
        self.teacher: dict[Any, TeacherFrames] = {}

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def lengths(self) -> np.ndarray:
        """About how many tokens each sample has: its words and, at most, what its eyes see."""
        settings = self.clips.settings
        cells = 0 if self.blind else (settings.size // settings.unit) ** 2
        seen = {"text": 0, "image": 1, "video": settings.num_frames}
        words = [sum(len(" ".join(turn).split()) for q in g for turn in q.turns) for g in self.groups]
        return np.array([n + cells * seen[g[0].kind] for n, g in zip(words, self.groups, strict=True)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = self.groups[index]
        seen = None if self.blind or group[0].video is None else self.clips[group[0]]
        frames = 0 if seen is None else seen.clip.shape[1]
        turns = tuple(
            self.writer.turn(asked(question, i), frames, answered(question, i), question.turns[:i])
            for question in group
            for i in range(len(question.turns))
        )
        clip, valid = (None, None) if seen is None else (seen.clip, seen.valid)
        taught = self.teacher.get(clip_key(group[0]), (None,) * frames)
        features = tuple(None if f is None else f.float() for f in taught)
        if clip is not None and valid is not None and torch.rand(()) < self.mirror:
            clip, valid = clip.flip(-1), valid.flip(-1)
            features = tuple(None if f is None else f.flip(1) for f in features)
        if clip is not None and valid is not None and self.augment:
            clip = augmented(clip, self.augment) * valid
        return {
            "talk": Talk(clip, valid, self.writer.head(frames), turns),
            "teacher_features": features,
            "answers": tuple(self._told(q, i, frames) for q in group for i in range(len(q.turns))),
            "name": clip_key(group[0]),
        }

    def _told(self, question: Question, turn: int, frames: int) -> Tensor:
        """(n,) ids of an answer as it is told, of multiple choice the text of the right option."""
        ids = self.writer.turn("?", frames, question.turns[turn][1])
        return ids.labels[ids.labels != IGNORED_LABEL]


def asked(question: Question, turn: int = 0) -> str:
    return question.prompt if question.options else question.turns[turn][0]


def answered(question: Question, turn: int = 0) -> str:
    """The answer to be learnt; of options the letter."""
    if question.answer_index is not None:
        return LETTERS[question.answer_index]
    return question.turns[turn][1]


def augmented(clip: Tensor, amount: float) -> Tensor:
    """A clip (3, T, S, S), normalised, as another camera would have seen it: the same for all frames.

    Turned by up to `amount` radians, shifted by up to so much of half its side, larger or smaller by up to so
    much, with contrast changed by up to three times and colours by up to twice as much.
    """
    turn, zoom, right, down, contrast = (amount * (2 * torch.rand(5) - 1)).tolist()
    cosine, sine = (1 + zoom) * math.cos(turn), (1 + zoom) * math.sin(turn)
    place = torch.tensor([[cosine, -sine, right], [sine, cosine, down]])
    frames = clip.transpose(0, 1)
    grid = F.affine_grid(place.expand(len(frames), 2, 3), list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, grid, padding_mode="border", align_corners=False).transpose(0, 1)
    colours = 2 * amount * (2 * torch.rand(3, 1, 1, 1) - 1)
    return moved * (1 + 3 * contrast) + colours
