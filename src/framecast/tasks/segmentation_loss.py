"""The loss of multi-stage temporal segmentation: cross-entropy plus a smoothness term, summed over stages.

Farha and Gall, 2019, eq. 3 to 5, in the form of the LTContext release.
Shapes: S stages, B batch, K classes, T frames.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def smoothed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.15,
    clip: float = 16.0,
    ignore_index: int = -100,
    average: Literal["videos", "frames"] = "videos",
    class_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy and smoothing * min((log p_t - stopgrad log p_{t-1})^2, clip), summed over the stages.

    logits (S, B, K, T), targets (B, T). "videos": each video's own mean over its valid frames, then the mean
    over videos, so that padding and batch mates change nothing. "frames": the release's means over all valid
    frames of the batch, and for the smoothness over all frames, padding included.
    """
    num_classes = logits.shape[2]
    log_probs = logits.log_softmax(2)
    target = targets.expand(len(logits), -1, -1)
    entropy = F.nll_loss(
        log_probs.flatten(0, 1),
        target.flatten(0, 1),
        class_weights,
        ignore_index=ignore_index,
        reduction="none",
    ).unflatten(0, logits.shape[:2])  # (S, B, T)
    jumps = (log_probs[..., 1:] - log_probs[..., :-1].detach()).square().clamp(max=clip)  # (S, B, K, T - 1)
    if average == "frames":
        cross_entropy = (entropy.flatten(1).sum(1) / (targets != ignore_index).sum()).sum()
        smoothness = jumps.mean(dim=(1, 2, 3)).sum()
    else:
        valid = targets != ignore_index
        cross_entropy = (entropy.sum(-1) / valid.sum(-1).clamp(min=1)).mean(1).sum()
        # A jump counts when both frames carry a label; a single frame has no jump.
        pairs = (valid[:, 1:] & valid[:, :-1])[None, :, None]
        count = (pairs.sum(dim=(2, 3)) * num_classes).clamp(min=1)
        smoothness = ((jumps * pairs).sum(dim=(2, 3)) / count).mean(1).sum()
    loss = cross_entropy + smoothing * smoothness
    return loss, {"cross_entropy": cross_entropy.detach(), "smoothness": smoothness.detach()}
