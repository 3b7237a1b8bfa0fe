"""Recognition models that learn from a frozen teacher, as VideoMamba does it.

Self-distillation: class scores as usual, and features of all tokens that point where those of a smaller,
trained model do. Masked pre-training: a clip model reads a fifth of the patches of every frame, those that an
image model looks at, and says what that model sees there; no labels are used.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.videomamba_pretraining import (
    MaskedPretraining,
    SelfDistillation,
    direction_loss,
    sample_hidden,
)
from framecast.backbones.vit import VisionTransformer
from framecast.tasks.ranks import gather_over_ranks, own_items
from framecast.tasks.recognition import RecognitionTask


class _WithTeacher(RecognitionTask):
    """The teacher stays outside the trained module, so that it is neither saved nor averaged."""

    teacher: nn.Module

    def set_teacher(self, teacher: nn.Module) -> _WithTeacher:
        self.teacher = teacher.eval().requires_grad_(False)
        return self

    def on_device(self, pixels: Tensor) -> Any:
        """The teacher, beside the pixels."""
        if next(self.teacher.parameters()).device != pixels.device:
            self.teacher.to(pixels.device)
        return self.teacher


class SelfDistillationTask(_WithTeacher):
    """loss = cross-entropy + weight · mean(2 - 2 cos) between the features of student and teacher."""

    weight = 1.0

    def build_model(self) -> nn.Module:
        return SelfDistillation(cast(Any, super().build_model()), cast(Any, self.teacher).feature_dim)

    def product(self, model: nn.Module) -> nn.Module:
        """What is evaluated and saved: the student without its map into the teacher's space."""
        return cast(Any, model).student

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        pixels, targets = self.mixed(batch)
        logits, features = model(pixels)
        with torch.no_grad():
            wanted = self.on_device(pixels).forward_features(pixels)
        if wanted.shape[:2] != features.shape[:2]:
            raise ValueError(
                f"the student has {features.shape[1]} tokens and the teacher {wanted.shape[1]}; "
                "take a teacher of the same patch and image size"
            )
        smoothing = 0.0 if self.mix is not None else self.smoothing
        classes = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        direction = direction_loss(features, wanted)
        parts = {"classes": classes.item(), "direction": direction.item()}
        return classes + self.weight * direction, parts

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        return super().evaluate(self.product(model), device)


class MaskedPretrainingTask(_WithTeacher):
    """mean(2 - 2 cos) to the teacher's features at the visible patches; labels are not looked at."""

    metric_names = ("loss",)
    keep = 0.2  # share of the patches of every frame that is read

    def build_model(self) -> nn.Module:
        return MaskedPretraining(cast(Any, super().build_model()), cast(Any, self.teacher).feature_dim)

    def product(self, model: nn.Module) -> nn.Module:
        """What is saved: the clip model; its head is as random as it was, for fine-tuning to replace."""
        return cast(Any, model).model

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        clips = batch["pixels"]
        with torch.no_grad():
            features, attention = self.look(clips)
            hidden = sample_hidden(attention, self.keep)
            wanted = features[~hidden].view(len(clips), -1, features.shape[-1])
        loss = direction_loss(model(clips, hidden), wanted[None])
        return loss, {}

    def look(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher's features (B, 1 + T·N, E), first the mean of its class tokens, and attention (B, T, N)."""
        teacher, batch = self.on_device(clips), len(clips)
        frames = rearrange(self.for_teacher(clips), "b c t h w -> (b t) c h w")
        tokens, attention = attention_of_class_token(teacher, frames)
        prefix = teacher.num_prefix_tokens
        patches = rearrange(tokens[:, prefix:], "(b t) n d -> b (t n) d", b=batch)
        first = rearrange(tokens[:, 0], "(b t) d -> b t d", b=batch).mean(1, keepdim=True)
        return torch.cat([first, patches], 1), rearrange(attention, "(b t) n -> b t n", b=batch)

    def for_teacher(self, clips: Tensor) -> Tensor:
        """The clips at the size that gives the teacher as many patches as the student has."""
        rows, columns = clips.shape[-2] // self.config.stride, clips.shape[-1] // self.config.stride
        size = (rows * self.teacher.stride, columns * self.teacher.stride)
        if size == tuple(clips.shape[-2:]):
            return clips
        frames = rearrange(clips, "b c t h w -> (b t) c h w")
        resized = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
        return rearrange(resized, "(b t) c h w -> b c t h w", b=len(clips))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Nothing is classified yet: the loss on the test side, with masks that every item keeps."""
        assert self.eval_data is not None
        losses: dict[int, float] = {}
        for i in own_items(len(self.eval_data)):
            pixels = self.eval_data[i]["pixels"].to(device)
            with torch.random.fork_rng():
                torch.manual_seed(i)  # the same masks in every evaluation, on any number of processes
                losses[i] = float(self.loss(model, {"pixels": pixels})[0])
        everywhere = sorted(item for part in gather_over_ranks(losses) for item in part.items())
        return {"loss": sum(loss for _, loss in everywhere) / len(everywhere)}

    def card(self) -> dict[str, Any]:
        return super().card() | {"task": "", "classes": []}


def attention_of_class_token(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, P + N, D) after the final norm, and how much the class token looks at each patch (B, N).

    The attention is that of the last block, mean over its heads.
    """
    last = vit.blocks[-1]
    depth = len(vit.blocks)
    x = vit.forward_features(images, layer=depth - 2) if depth > 1 else vit.embed(images)
    qkv = cast(Any, last).attn.qkv(cast(Any, last).norm1(x))
    q, k, _ = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=vit.config.num_heads)
    scores = (q[:, :, :1] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return vit.norm(last(x)), scores[:, :, 0, vit.num_prefix_tokens :].mean(1)
