"""How Video-Panda learns to see: a language model's view of every patch is drawn to that of a frozen teacher
(Yi, Wasim, Luo, Naseer, Gall, CVPR 2025, https://arxiv.org/abs/2412.18609).

Hidden states of every fourth layer are taken at the visual tokens. The last layer asks, the others answer,
and what comes out is compared with the teacher's patch features by cosine. Only training needs this.

As in the release, scores are scaled by the full width and what answers is its own key and value. Only the
student's patches are looked up: context tokens and ends of rows are left out, and so are empty frames.
Shapes: M layers that are taken, S positions, L width of the language model, D of the teacher.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.stab_frames import boxes_of, grid_positions


@dataclass(frozen=True)
class AlignmentConfig:
    llm_width: int = 4096
    teacher_width: int = 1024
    num_layers: int = 32  # of the language model
    layer_step: int = 4  # every so many layers one is taken, from the last one down
    num_heads: int = 8
    context_token: bool = True  # in front of every frame
    row_token: bool = True  # behind every row

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden states that are taken, 0 = the embeddings: the last one first."""
        return tuple(range(self.num_layers, -1, -self.layer_step))


class TeacherAlignment(nn.Module):
    """Hidden states at patches to the teacher's features, and how far the two are apart."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = c = config
        if len(c.layers) < 2 or c.teacher_width % c.num_heads:
            raise ValueError(
                f"an alignment needs two layers or more and a teacher's width that {c.num_heads} heads "
                f"divide, but got layers {c.layers} and width {c.teacher_width}"
            )
        self.views = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(c.llm_width), nn.Linear(c.llm_width, c.teacher_width, bias=False))
            for _ in c.layers
        )
        self.last = nn.Linear(c.llm_width, c.teacher_width)
        self.heard = nn.Linear(c.teacher_width, c.teacher_width)

    def forward(self, states: Tensor) -> Tensor:
        """States of the taken layers at N patches, (N, M, L) with the last layer first -> (N, D)."""
        views = torch.stack([view(states[:, i]) for i, view in enumerate(self.views)], dim=1)
        query, others = (
            rearrange(x, "n m (h d) -> n h m d", h=self.config.num_heads)
            for x in (views[:, :1], views[:, 1:])
        )
        scores = query @ others.mT * self.config.teacher_width**-0.5
        heard = rearrange(scores.softmax(-1) @ others, "n h 1 d -> n (h d)")
        return self.last(states[:, 0]) + self.heard(heard)

    def loss(
        self,
        hidden_states: Sequence[Tensor],
        spans: Sequence[Sequence[tuple[int, int]]],
        grids: Sequence[Sequence[tuple[int, int]]],
        teacher: Sequence[Sequence[Tensor | None]],
    ) -> Tensor:
        """One less the cosine, a mean over the patches of a frame and then over all frames; 0 without any.

        hidden_states: (B, S, L) of the embeddings and of every layer, as language models give them. spans:
        first position and length of every frame of every text. grids: rows and columns of its tokens.
        teacher: (h, w, D) of every frame, None for an empty one; where the student's grid is finer, its
        states are averaged over the teacher's patches.
        """
        c = self.config
        if len(hidden_states) != c.num_layers + 1:
            raise ValueError(
                f"{len(hidden_states)} hidden states of a language model with {c.num_layers} layers; "
                f"pass those of the embeddings and of all layers, {c.num_layers + 1}"
            )
        taken = torch.stack([hidden_states[i] for i in c.layers], dim=2)  # (B, S, M, L)
        students, targets = [], []
        for b, frames in enumerate(teacher):
            for span, grid, target in zip(spans[b], grids[b], frames, strict=True):
                if target is None:
                    continue
                students.append(self._at_teacher(taken[b], span, grid, target))
                targets.append(target.flatten(0, 1))
        if not targets:
            return self(taken[0, :1]).sum() * 0.0  # processes with and without frames do the same work
        ours, theirs = self(torch.cat(students)), torch.cat(targets)
        similar = F.cosine_similarity(ours, theirs.to(ours), dim=-1)
        return torch.stack([1 - frame.mean() for frame in similar.split([len(t) for t in targets])]).mean()

    def _at_teacher(
        self, states: Tensor, span: tuple[int, int], grid: tuple[int, int], target: Tensor
    ) -> Tensor:
        """States (S, M, L) of one frame's patches at the teacher's resolution, (h w, M, L)."""
        rows, columns = target.shape[:2]
        finer, rest = divmod(grid[0], rows)
        if rest or grid != (rows * finer, columns * finer):
            raise ValueError(
                f"a frame has {grid[0]} x {grid[1]} tokens but {rows} x {columns} patches of the teacher; "
                "the student's grid must be the teacher's or a whole number of times finer"
            )
        own = grid_positions(*span, grid, context=self.config.context_token, row_ends=self.config.row_token)
        patches = states[own.to(states.device)].unflatten(0, grid)
        pooled = rearrange(patches, "(h p) (w q) m l -> (h w) (p q) m l", p=finer, q=finer)
        return pooled.mean(1)


def teacher_frames(features: Tensor, valid: Tensor) -> list[Tensor | None]:
    """A teacher's patches (F, h, w, D) cropped to those that are valid, (F, h, w) bool; None for no patch."""
    boxes = boxes_of(valid, "box")
    return [
        None if box is None else frame[box.top : box.top + box.rows, box.left : box.left + box.columns]
        for frame, box in zip(features, boxes, strict=True)
    ]


# The release's names ----------------------------------------------------------------------------------

KEYS = {
    r"norm_layer\.(\d+)\.([01])\.(.*)": r"views.\1.\2.\3",
    r"input_layer\.(.*)": r"last.\1",
    r"output_layer\.(.*)": r"heard.\1",
}
PREFIX = r"(?:model\.)?(?:video|vision)_tower_compressor\."


def released_alignment(
    state: dict[str, Tensor], *, num_layers: int = 32, num_heads: int = 8
) -> TeacherAlignment:
    """The alignment that a released state dict holds; the teacher's own tensors in it are left alone.

    Raises ValueError where a tensor is missing.
    """
    ours = {}
    for key, tensor in state.items():
        for pattern, name in KEYS.items():
            if re.fullmatch(PREFIX + pattern, key):
                ours[re.sub(PREFIX + pattern, name, key)] = tensor
    views = {key.split(".")[1] for key in ours if key.startswith("views.")}
    if "last.weight" not in ours or len(views) < 2:
        raise ValueError("the state dict holds no alignment with a teacher (video_tower_compressor.*)")
    teacher_width, llm_width = ours["last.weight"].shape
    model = TeacherAlignment(
        AlignmentConfig(llm_width, teacher_width, num_layers, num_layers // (len(views) - 1), num_heads)
    )
    missing = sorted(model.state_dict().keys() - ours.keys())
    if missing:
        raise ValueError(f"the alignment in the state dict lacks {', '.join(missing)}")
    model.load_state_dict(ours)
    return model
