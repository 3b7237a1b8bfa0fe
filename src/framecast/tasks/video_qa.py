"""Questions about videos: a clip and what is asked about it in, the answers' next-token loss out.

Questions about one clip share a sequence. A frozen teacher may guide the eyes: its features of every clip are
computed once, before the first step. Scores are those of greedy answers on held-back videos.
Shapes: T frames, S side of a frame, h and w visual tokens of a frame, D width of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.data.letterbox import Letterboxed, read_letterboxed
from framecast.data.question_records import LETTERS, Question, by_clip
from framecast.metrics.answers import AnswerMetrics
from framecast.models.video_panda import Talk, VideoPanda
from framecast.models.video_panda_alignment import AlignmentConfig, TeacherAlignment, teacher_frames
from framecast.models.video_panda_answers import answers, watch
from framecast.progress import track
from framecast.tasks.ranks import gather_over_ranks, own_items, own_rank, together

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

    def __init__(self, questions: Sequence[Question], clips: Clips, max_turns: int, *, blind: bool) -> None:
        self.groups = [
            group[start : start + max_turns]
            for group in by_clip(questions)
            for start in range(0, len(group), max_turns)
        ]
        self.clips, self.blind = clips, blind
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
        talk = Talk(clip, valid, self.writer.head(frames), turns)
        taught = self.teacher.get(clip_key(group[0]), (None,) * frames)
        return {"talk": talk, "teacher": tuple(None if f is None else f.float() for f in taught)}


def asked(question: Question, turn: int = 0) -> str:
    return question.prompt if question.options else question.turns[turn][0]


def answered(question: Question, turn: int = 0) -> str:
    """The answer to be learnt; of options the letter."""
    if question.answer_index is not None:
        return LETTERS[question.answer_index]
    return question.turns[turn][1]


class Learner(nn.Module):
    """A model of questions and what its eyes are aligned with, as one thing that is trained."""

    def __init__(self, panda: VideoPanda, alignment: TeacherAlignment | None) -> None:
        super().__init__()
        self.panda, self.alignment = panda, alignment

    def forward(
        self, talks: Sequence[Talk], teacher: Sequence[TeacherFrames]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Loss of the text, loss of the alignment, share of right ids.

        Stills and texts leave parts of the eyes idle; these take part with 0, so that the gradients of
        processes match, whatever each of them sees.
        """
        out = self.panda(talks, hidden_states=self.alignment is not None)
        idle = [p.sum() for p in self.panda.stab.parameters() if p.requires_grad]
        text = out.loss + 0.0 * torch.stack(idle).sum() if idle else out.loss
        if self.alignment is None or out.hidden_states is None:
            return text, None, out.correct
        grids = [() if tokens is None else tokens.grids for tokens in out.packed.visual]
        aligned = self.alignment.loss(out.hidden_states, out.packed.spans, grids, teacher)
        return text, aligned, out.correct


@dataclass(frozen=True)
class Teacher:
    """A frozen backbone that reads the same frames, in its own size.

    model: gives `forward_features(images, layer) -> (F, P + N, D)`, has `stride`, `feature_dim` and
    `num_prefix_tokens`, and a config with `mean` and `std`.
    """

    model: Any
    image_size: int
    layer: int | None = None

    def settings(self, student: ClipSettings) -> ClipSettings:
        """Raises ValueError where its patches and the student's tokens do not match."""
        cells, rest = divmod(student.size, student.unit)
        unit, rest_of_unit = divmod(self.image_size, cells)
        if rest or rest_of_unit or unit % self.model.stride:
            raise ValueError(
                f"a teacher with patches of {self.model.stride} pixels cannot look at {cells} x {cells} "
                f"tokens in frames of {self.image_size}; set alignment.image_size to a multiple of "
                f"{cells * self.model.stride}"
            )
        config = self.model.config
        return ClipSettings(config.mean, config.std, self.image_size, unit, student.num_frames)

    @torch.inference_mode()
    def frames(self, read: Letterboxed, unit: int, device: torch.device) -> TeacherFrames:
        """(h, w, D) of every frame in half precision, averaged over the patches of a token."""
        images = read.clip.transpose(0, 1).to(device)
        tokens = self.model.forward_features(images, self.layer)[:, self.model.num_prefix_tokens :]
        side = images.shape[-1] // self.model.stride
        maps = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        maps = F.avg_pool2d(maps, unit // self.model.stride).permute(0, 2, 3, 1).half().cpu()
        cells = F.max_pool2d(read.valid.float(), unit) > 0
        return tuple(None if f is None else f.clone() for f in teacher_frames(maps, cells))


class VideoQaTask:
    """Trains a model on talks about clips and scores its answers.

    make: gives the model with the weights that training starts from. teacher: None = text alone.
    blind: no clip is ever seen, in training or scoring.
    """

    metric_names = ("exact", "normalised", "f1", "contains", "type_mean", "choice", "num_answers")

    def __init__(
        self,
        train_questions: Sequence[Question],
        eval_questions: Sequence[Question],
        *,
        make: Callable[[], VideoPanda],
        settings: ClipSettings,
        teacher: Teacher | None = None,
        teacher_weight: float = 1.0,
        layer_step: int = 4,
        heads: int = 8,
        max_turns: int = 8,
        max_new_tokens: int = 32,
        keep_mb: int = 2048,
        blind: bool = False,
        source: str = "",
    ) -> None:
        if not train_questions:
            raise ValueError("there are no questions to learn from")
        self.make, self.teacher, self.teacher_weight = make, None if blind else teacher, teacher_weight
        self.layer_step, self.heads, self.max_new_tokens = layer_step, heads, max_new_tokens
        self.clips, self.blind, self.source = Clips(settings, keep_mb), blind, source
        self.train_data = TalkSamples(train_questions, self.clips, max_turns, blind=blind)
        self.eval_data: Any = by_clip(eval_questions) or None
        if self.teacher is not None:
            self.teacher_settings = self.teacher.settings(settings)

    def build_model(self) -> nn.Module:
        panda = self.make()
        self.train_data.writer = panda.writer
        if self.teacher is None:
            return Learner(panda, None)
        c, language = panda.stab.config, panda.language_model.config
        settings = AlignmentConfig(
            c.llm_width,
            self.teacher.model.feature_dim,
            language.num_hidden_layers,
            self.layer_step,
            self.heads,
            c.clip_token or c.frame_token,
            c.row_token,
        )
        return Learner(panda, TeacherAlignment(settings))

    def product(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, Learner)
        return model.panda

    def prepare(self, device: torch.device) -> None:
        """The teacher's features of every clip; processes share the work."""
        if self.teacher is None:
            return
        wanted = {clip_key(g[0]): g[0] for g in self.train_data.groups if g[0].video is not None}
        wanted = {key: q for key, q in wanted.items() if key not in self.train_data.teacher}
        self.teacher.model.to(device).eval()
        keys, found = list(wanted), {}
        with together():
            mine = [keys[i] for i in own_items(len(keys))]
            for key in track(mine, "teacher's features", quiet=own_rank() != 0):
                question = wanted[key]
                times = {"start_s": question.start_s, "end_s": question.end_s}
                read = read_letterboxed(Path(str(question.video)), **self.teacher_settings._asdict(), **times)
                found[key] = self.teacher.frames(read, self.teacher_settings.unit, device)
        for part in gather_over_ranks(found):
            self.train_data.teacher |= part

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {key: [sample[key] for sample in samples] for key in ("talk", "teacher")}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        text, aligned, correct = model(batch["talk"], batch["teacher"])
        parts = {"text": float(text.detach()), "accuracy": 100 * float(correct)}
        if aligned is None:
            return text, parts
        return text + self.teacher_weight * aligned, parts | {"alignment": float(aligned.detach())}

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores of greedy answers to the held-back questions; processes share the clips."""
        panda = self.product(model)
        assert isinstance(panda, VideoPanda)
        return score_answers(
            panda, self.eval_data, self.clips, device, self.max_new_tokens, blind=self.blind
        ).compute()

    def card(self) -> dict[str, Any]:
        about = f"trained on {sum(len(g) for g in self.train_data.groups)} questions of {self.source}"
        return {"task": "video_qa", "source": about, "notes": {"blind": self.blind}}


@torch.inference_mode()
def score_answers(
    panda: VideoPanda,
    groups: Sequence[Sequence[Question]],
    clips: Clips,
    device: torch.device | str,
    max_new_tokens: int,
    *,
    blind: bool = False,
) -> AnswerMetrics:
    """Greedy answers to questions in groups that share a clip; processes share the groups."""
    metrics = AnswerMetrics()
    for i in track(list(own_items(len(groups))), "answering", quiet=own_rank() != 0):
        said = answer_questions(panda, groups[i], clips, device, max_new_tokens, blind=blind)
        for question, text in zip(groups[i], said, strict=True):
            metrics.update(
                text,
                question.answer,
                question=question.question,
                type=question.type,
                source=f"{clip_key(question)} {question.question} {question.id}",
                options=question.options,
                answer_index=question.answer_index,
                group=question.source,
            )
    first, *rest = gather_over_ranks(metrics)
    for other in rest:
        first.merge(other)
    return first


def answer_questions(
    panda: VideoPanda,
    questions: Sequence[Question],
    clips: Clips,
    device: torch.device | str,
    max_new_tokens: int,
    *,
    blind: bool = False,
) -> list[str]:
    """Greedy answers to the first question of each; all are about the clip of the first."""
    if blind or questions[0].video is None:
        watched = watch(panda, None)
    else:
        read = clips[questions[0]]
        watched = watch(panda, read.clip.to(device), read.valid.to(device))
    return answers(panda, watched, [asked(question) for question in questions], max_new_tokens)
