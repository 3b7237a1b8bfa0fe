"""What sequence models share: masks, pointwise maps, and how batches and stages are walked.

Where no gradients are recorded, results are the same and memory is touched less often.
Shapes: B batch, T frames, C channels in, D width in, E width out, K classes, S stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.ops import native_library
from framecast.ops.shifted_linear import shifted_linear


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros at the invalid frames of (B, T, D); mask (B, T), None = all valid."""
    return x if mask is None else x * mask[..., None]


class Pointwise(nn.Linear):
    """residual + dropout(W x + b), frame by frame."""

    def __init__(self, width_in: int, width_out: int, dropout: float = 0.0) -> None:
        super().__init__(width_in, width_out)
        self.drop = nn.Dropout(dropout)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """input (B, T, D), residual (B, T, E) -> (B, T, E)."""
        dropping = self.drop.training and self.drop.p > 0
        if not dropping and native_library.usable(input, self.weight, residual):
            return shifted_linear(input, self.weight, self.bias, add=residual, impl="native")
        y = self.drop(super().forward(input))
        return y if residual is None else y + residual


def project_channels(x: Tensor, linear: nn.Linear) -> Tensor:
    """(B, C, T) -> (B, T, D), without a transposed copy of the wide features."""
    if not native_library.eager_inference() or x.device.type != "cpu":
        return (linear.weight @ x + linear.bias[:, None]).transpose(1, 2).contiguous()
    y = x.new_empty(x.shape[0], x.shape[2], linear.out_features)
    for video, out in zip(x, y, strict=True):
        torch.addmm(linear.bias, video.T, linear.weight.T, out=out)
    return y


def stacked(parts: Iterator[Tensor], number: int) -> Tensor:
    """torch.stack of tensors made one after another; at inference only one lives beside the stack."""
    if not native_library.eager_inference():
        return torch.stack(list(parts))
    first = next(parts)
    out = first.new_empty(number, *first.shape)
    for place, part in zip(out, chain([first], parts), strict=True):
        place.copy_(part)
    return out


def best_alone(mask: Tensor) -> bool:
    """Whether a padded batch is better walked video by video: inference on the CPU, padding at the end."""
    if not native_library.eager_inference() or mask.device.type != "cpu":
        return False
    return bool(mask[:, 0].all() and (mask[:, 1:] <= mask[:, :-1]).all())


def video_by_video(model: Callable[[Tensor], Tensor], features: Tensor, mask: Tensor) -> Tensor:
    """Logits (S, B, K, T) of a padded batch (B, C, T), each video by itself; zeros behind its end."""
    frames = features.shape[2]
    lengths = mask.sum(1).tolist()
    logits = [F.pad(model(features[b, None, :, :n]), (0, frames - n)) for b, n in enumerate(lengths)]
    return torch.cat(logits, dim=1)
