"""Questions about videos: a clip and what is asked about it in, the answers' next-token loss out.

Questions about one clip share a sequence. Fresh eyes may be taught in two more ways: by the answers
themselves, for which the language model need not run, and by a frozen teacher, whose features of every clip
are computed once, before the first step. Scores are those of greedy answers on held-back videos.
Shapes: T frames, S side of a frame, h and w visual tokens of a frame, D width of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.data.letterbox import Letterboxed, read_letterboxed
from framecast.data.question_records import Question, by_clip
from framecast.metrics.answers import AnswerMetrics
from framecast.models.video_panda import Talk, VideoPanda
from framecast.models.video_panda_alignment import AlignmentConfig, TeacherAlignment, teacher_frames
from framecast.models.video_panda_answer_alignment import AnswerAlignment
from framecast.models.video_panda_answers import answers, watch
from framecast.progress import track
from framecast.tasks.ranks import gather_over_ranks, own_items, own_rank, together
from framecast.tasks.video_qa_samples import (
    Clips,
    ClipSettings,
    TalkSamples,
    TeacherFrames,
    asked,
    clip_key,
)

TOGETHER = 16  # clips whose answers are told apart when eyes are scored


class Weights(NamedTuple):
    """Of the parts of the loss. Without text and teacher the language model does not run."""

    text: float = 1.0  # next-token loss of the answers
    answers: float = 0.0  # which answers belong to which clip, told from the eyes' tokens
    teacher: float = 1.0  # where there is one


BY_TEXT = Weights()


class Learner(nn.Module):
    """A model of questions and what its eyes are aligned with, as one thing that is trained."""

    def __init__(self, panda: VideoPanda, teacher: TeacherAlignment | None, weights: Weights) -> None:
        super().__init__()
        self.panda, self.teacher_alignment, self.weights = panda, teacher, weights
        width = panda.language_model.get_input_embeddings().embedding_dim
        self.answer_alignment = AnswerAlignment(width) if weights.answers else None
        if not weights.text and teacher is None and panda.config.tuning != "frozen":
            raise ValueError(
                f"alignment.text=0 teaches the language model nothing, but model.config.tuning is "
                f"{panda.config.tuning}; set it to frozen, or set alignment.text=1"
            )

    def forward(
        self,
        talks: Sequence[Talk],
        teacher_features: Sequence[TeacherFrames],
        answers: Sequence[Sequence[Tensor]],
        names: Sequence[Hashable],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, its parts, the share of right ids, and the precision of the best answers.

        Stills and texts leave parts of the eyes idle; these take part with 0, so that the gradients of
        processes match, whatever each of them sees.
        """
        idle = [p.sum() for p in self.panda.stab.parameters() if p.requires_grad]
        total = 0.0 * torch.stack(idle).sum() if idle else torch.zeros(())
        parts: dict[str, Tensor] = {}
        if self.weights.text or self.teacher_alignment is not None:
            out = self.panda(talks, hidden_states=self.teacher_alignment is not None)
            visual, parts = out.packed.visual, {"text": out.loss, "accuracy": 100 * out.correct}
            total = total + self.weights.text * out.loss
            if self.teacher_alignment is not None:
                grids = [() if tokens is None else tokens.grids for tokens in visual]
                states, spans = out.hidden_states, out.packed.spans
                parts["teacher"] = self.teacher_alignment.loss(states, spans, grids, teacher_features)
                total = total + self.weights.teacher * parts["teacher"]
        else:
            visual = self.panda.see_all(talks)
        if self.answer_alignment is not None:
            table = self.panda.language_model.get_input_embeddings().weight.detach()
            parts["answers"], precision = self.answer_alignment.loss(visual, answers, table, names)
            parts["answer_precision"] = 100 * precision
            total = total + self.weights.answers * parts["answers"]
        return total, {name: part.detach() for name, part in parts.items()}


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

    make: gives the model with the weights that training starts from. teacher: None = no features to follow.
    mirror: chance that a clip of training is turned left to right, with its teacher's features. augment: how
    much a clip is moved and recoloured, see `augmented`. blind: no clip is ever seen, in training or scoring.
    """

    def __init__(
        self,
        train_questions: Sequence[Question],
        eval_questions: Sequence[Question],
        *,
        make: Callable[[], VideoPanda],
        settings: ClipSettings,
        teacher: Teacher | None = None,
        weights: Weights = BY_TEXT,
        layer_step: int = 4,
        heads: int = 8,
        max_turns: int = 8,
        mirror: float = 0.0,
        augment: float = 0.0,
        max_new_tokens: int = 32,
        keep_mb: int = 2048,
        blind: bool = False,
        source: str = "",
    ) -> None:
        if not train_questions:
            raise ValueError("there are no questions to learn from")
        self.make, self.teacher, self.weights = make, None if blind else teacher, weights
        self.layer_step, self.heads, self.max_new_tokens = layer_step, heads, max_new_tokens
        self.clips, self.blind, self.source = Clips(settings, keep_mb), blind, source
        self.max_turns = max_turns
        self.train_data = TalkSamples(
            train_questions, self.clips, max_turns, blind=blind, mirror=mirror, augment=augment
        )
        scores = ("exact", "normalised", "f1", "contains", "type_mean", "choice", "num_answers")
        self.metric_names = scores if weights.text else ("answers", "answer_precision")
        # a teacher alone teaches nothing that could be scored
        self.eval_data: Any = by_clip(eval_questions) if weights.text or weights.answers else []
        self.eval_data = self.eval_data or None
        if self.teacher is not None:
            self.teacher_settings = self.teacher.settings(settings)

    def build_model(self) -> nn.Module:
        panda = self.make()
        self.train_data.writer = panda.writer
        if self.teacher is None:
            return Learner(panda, None, self.weights)
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
        return Learner(panda, TeacherAlignment(settings), self.weights)

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
        return {key: [sample[key] for sample in samples] for key in samples[0]}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        loss, parts = model(batch["talk"], batch["teacher_features"], batch["answers"], batch["name"])
        return loss, {name: float(part) for name, part in parts.items()}

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores of greedy answers to the held-back questions; processes share the clips.

        Who was not taught to answer is not asked: of eyes alone, how well they tell answers of clips apart.
        """
        panda = self.product(model)
        assert isinstance(panda, VideoPanda)
        if not self.weights.text:
            return self._tell_apart(model)
        return score_answers(
            panda, self.eval_data, self.clips, device, self.max_new_tokens, blind=self.blind
        ).compute()

    def _tell_apart(self, model: nn.Module) -> dict[str, float]:
        """Loss and precision of the best answers, among the clips of a batch; every process does all."""
        data = TalkSamples([q for g in self.eval_data for q in g], self.clips, self.max_turns)
        data.writer = self.train_data.writer
        sums, count = {name: 0.0 for name in self.metric_names}, 0
        for start in range(0, len(data), TOGETHER):
            batch = self.collate([data[i] for i in range(start, min(start + TOGETHER, len(data)))])
            _, parts = self.loss(model, batch)
            size = len(batch["talk"])
            sums = {name: total + size * parts[name] for name, total in sums.items()}
            count += size
        return {name: total / count for name, total in sums.items()}

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
