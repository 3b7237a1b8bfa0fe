"""Linear maps in eight bits for CPUs, also of models that sample tokens.

Weights are rounded once, one scale for each output; activations while the model runs, one scale for each
token, so that its answer hardly depends on its batch mates. The product is torch's (FBGEMM, oneDNN).

A few channels of a transformer are far larger than the others and take the eight bits of a token for
themselves. Where images show which: these few keep all their bits (LLM.int8(),
https://arxiv.org/abs/2208.07339), and the others are evened out between activations and weights (SmoothQuant,
https://arxiv.org/abs/2211.10438).
Shapes: D channels in, D' out, C of them kept.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from framecast.backbones.adaptive_blocks import SplitLinear
from framecast.backbones.adaptive_model import AdaptiveModel

Model = TypeVar("Model", bound=nn.Module)


KEPT = 48  # one in so many channels keeps all its bits
EVENED = 0.5  # share of the differences between channels that weights take over


class Int8Linear(nn.Module):
    """A linear map for inference: weights (D', D) in int8, activations (..., D) rounded token by token.

    largest: (D,) how large the activations of every channel become, where known.
    """

    def __init__(self, linear: nn.Linear, largest: Tensor | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        self.kept: Tensor | None = None  # (C,) channels
        self.inverse: Tensor | None = None  # (D,) of the scales of the others, 0 where kept
        if largest is not None:
            weight = self._evened(weight, largest.float())
        scale = weight.abs().amax(1).clamp(min=1e-12).double() / 127
        points = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has announced to move this elsewhere
            rounded = torch.quantize_per_channel(weight, scale, points, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), False)
        # Without VNNI two products are added in 16 bits, where eight bits of both could overflow.
        self.seven_bits = not has_vnni()

    def _evened(self, weight: Tensor, largest: Tensor) -> Tensor:
        """The weights (D', D) to be rounded: without those of the kept channels, the others scaled."""
        reach = weight.abs().amax(0).clamp(min=1e-8)
        self.kept = (largest * reach).topk(self.in_features // KEPT).indices
        self.kept_weight = weight[:, self.kept].T.contiguous()  # (C, D')
        scale = largest.clamp(min=1e-8) ** EVENED / reach ** (1 - EVENED)
        self.inverse = (1 / scale).index_fill(0, self.kept, 0.0)
        return (weight * scale).index_fill(1, self.kept, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        even = x if self.inverse is None else x * self.inverse
        largest = even.abs().amax(-1, keepdim=True).clamp_(min=1e-12)
        y = torch.ops.quantized.linear_dynamic(even / largest, self.packed, self.seven_bits).mul_(largest)
        if self.kept is not None:
            y = y.add_(x[..., self.kept] @ self.kept_weight)
        return y if self.bias is None else y.add_(self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8Linear:
        return self  # packed weights cannot be copied, and never change


def has_vnni() -> bool:
    """Whether the CPU multiplies eight bits exactly; False where torch cannot tell."""
    tell = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(tell and tell())


def int8(model: Model, images: Tensor | None = None) -> Model:
    """A copy for inference on a CPU with the linear maps of its blocks in int8; the head stays as it is.

    images: (B, C, H, W) or clips, as the model reads them. Two dozen of the kind to be expected bring the
    answers closer to those of the model, at a little more time.
    """
    made: Any = copy.deepcopy(model).cpu().eval()
    host = made.host if isinstance(made, AdaptiveModel) else made
    if isinstance(made, AdaptiveModel):
        for block in host.blocks:  # keys and values are asked of more tokens than queries
            block.attn.qkv = SplitLinear(block.attn.qkv)
    maps = [m for block in host.blocks for m in block.modules() if isinstance(m, nn.Linear)]
    largest = {} if images is None else largest_inputs(made, maps, images)
    for block in host.blocks:
        for module in list(block.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child, largest.get(child)))
    return made


@torch.no_grad()
def largest_inputs(model: nn.Module, maps: list[nn.Linear], images: Tensor) -> dict[nn.Module, Tensor]:
    """The largest activation (D,) in front of every linear map, a mean over images; no rare one rules."""
    found: dict[nn.Module, Tensor] = {}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        own = inputs[0].abs().flatten(0, -2).amax(0) / len(images)
        found[module] = found[module] + own if module in found else own

    handles = [linear.register_forward_pre_hook(watch) for linear in maps]
    try:
        for image in images:
            model(image[None])
    finally:
        for handle in handles:
            handle.remove()
    return found
