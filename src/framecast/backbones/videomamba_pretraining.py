"""VideoMamba's two ways of learning from another model: self-distillation and masked pre-training.

Self-distillation (images): a smaller trained model looks at the same images; after a norm and a linear map,
the features of every token shall point where the teacher's do.
Masked pre-training (clips): the model reads a few visible patches only, and shall give for each of them the
features of a frozen CLIP image encoder.
Neither part belongs to the model that is used afterwards.
Shapes: B batch, L tokens (class token first), V visible tokens, T' time steps, N patches, D and E widths of
student and teacher, K layers that are read.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.backbones.videomamba import VideoMamba
from framecast.nn.mamba import RMSNorm
from framecast.nn.residual_stack import add
from framecast.nn.transformer import init_transformer


def direction_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over the tokens (..., E) of student and teacher; 0 where all directions agree."""
    cosine = F.normalize(features.float(), dim=-1) * F.normalize(teacher.float(), dim=-1)
    return (2 - 2 * cosine.sum(-1)).mean()


# Self-distillation ----------------------------------------------------------------------------------


class SelfDistillation(nn.Module):
    """A student and its map into the teacher's feature space; the teacher itself stays outside.

    In training: loss = classification + direction_loss(features, teacher.forward_features(images)).
    """

    def __init__(self, student: VideoMamba, teacher_dim: int) -> None:
        super().__init__()
        width = student.feature_dim
        self.student = student
        self.distill_head = nn.Sequential(RMSNorm(width), nn.Linear(width, teacher_dim))
        init_transformer(self.distill_head)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes), and features (B, L, E) to compare with the teacher's after its final norm."""
        tokens = self.student.forward_features(x)
        return self.student.forward_head(tokens), self.distill_head(tokens)


# Masked pre-training --------------------------------------------------------------------------------


class AlignedDecoder(nn.Module):
    """Maps tokens into the teacher's space."""

    def __init__(self, width: int, teacher_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, teacher_dim)
        self.norm = nn.LayerNorm(teacher_dim)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.head(tokens))


class MaskedPretraining(nn.Module):
    """A clip model that reads visible tokens only, and decoders that say what the teacher sees there.

    layers: the layers whose tokens are decoded, the last one unless told. skip_last_output: the release feeds
    its decoder the residual stream before the last layer has added to it, and without the final norm, so that
    neither is ever trained; True repeats that for its weights, False decodes what the whole model says.
    """

    def __init__(
        self,
        model: VideoMamba,
        teacher_dim: int = 512,
        *,
        layers: tuple[int, ...] | None = None,
        skip_last_output: bool = False,
    ) -> None:
        super().__init__()
        depth = len(model.layers)
        self.layers = layers or (depth - 1,)
        if not all(0 <= layer < depth for layer in self.layers):
            raise ValueError(f"layers {self.layers} asked of a model with layers 0..{depth - 1}")
        self.model = model
        self.skip_last_output = skip_last_output
        self.clip_decoder = nn.ModuleList(AlignedDecoder(model.feature_dim, teacher_dim) for _ in self.layers)

    def forward(self, clips: Tensor, hidden: Tensor) -> Tensor:
        """Aligned features (K, B, V, E), of length 1, of clips (B, 3, T, H, W).

        hidden: bool (B, L), True = not read; every clip has the same number of visible tokens.
        """
        read = self.visible_features(clips, hidden)
        places = sine_positions(hidden.shape[1], self.model.feature_dim).to(read[0])
        places = visible(places.expand(clips.shape[0], -1, -1), hidden)
        decoded = [
            F.normalize(decoder(tokens + places), dim=-1)
            for decoder, tokens in zip(self.clip_decoder, read, strict=True)
        ]
        return torch.stack(decoded)

    def visible_features(self, clips: Tensor, hidden: Tensor) -> list[Tensor]:
        """Tokens (B, V, D) of every layer that is decoded; those of the last layer after the final norm."""
        model, steps = self.model, self.model.frames_of(clips)
        h, r = visible(model.embed(clips), hidden), None
        read = []
        for i, layer in enumerate(model.layers):
            h, r = layer(h, r, frames=steps)
            if i in self.layers:
                last = i == len(model.layers) - 1
                tokens = r if self.skip_last_output else add(model.drop_path(h) if last else h, r)
                read.append(model.norm_f(tokens) if last and not self.skip_last_output else tokens)
        return read


def visible(tokens: Tensor, hidden: Tensor) -> Tensor:
    """The tokens that are not hidden, in their order: (B, L, D), bool (B, L) -> (B, V, D)."""
    counts = (~hidden).sum(1)
    if not bool((counts == counts[0]).all()):
        raise ValueError(f"clips of a batch must have equally many visible tokens, got {counts.tolist()}")
    return tokens[~hidden].view(tokens.shape[0], -1, tokens.shape[-1])


def sample_hidden(
    attention: Tensor, keep: float = 0.2, *, generator: torch.Generator | None = None
) -> Tensor:
    """Which tokens to hide: patches are drawn without replacement in proportion to the teacher's attention.

    attention: (B, T', N), that of the teacher's class token in every frame, not negative. keep: share of the
    patches of each frame that stays visible. Answer: bool (B, 1 + T' N), the class token is never hidden.
    """
    batch, steps, patches = attention.shape
    kept = max(int(patches * keep), 1)
    weights = attention.reshape(-1, patches).float().clamp_min(torch.finfo(torch.float32).tiny)
    drawn = torch.multinomial(weights, kept, generator=generator)
    hidden = torch.ones(batch * steps, patches, dtype=torch.bool, device=attention.device)
    hidden = hidden.scatter(1, drawn, False).view(batch, steps * patches)
    return F.pad(hidden, (1, 0), value=False)


@cache
def sine_positions(length: int, width: int) -> Tensor:
    """The table of Vaswani et al. (2017), (1, length, width): sines in even columns, cosines in odd ones."""
    exponents = torch.arange(width, dtype=torch.float64) // 2 * 2 / width
    angles = torch.arange(length)[:, None] / 10_000**exponents
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos()).float()[None]
