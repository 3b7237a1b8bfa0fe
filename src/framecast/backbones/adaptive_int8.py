"""Linear maps in eight bits for CPUs, also of models that sample tokens.

Weights are rounded once, one scale for each output; activations while the model runs, one scale for each
token, so that its answer hardly depends on its batch mates. The product is torch's (FBGEMM, oneDNN).
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


class Int8Linear(nn.Module):
    """A linear map for inference: weights (D', D) in int8, activations (..., D) rounded token by token."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12).double() / 127
        points = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has announced to move this elsewhere
            rounded = torch.quantize_per_channel(weight, scale, points, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), False)
        # Without VNNI two products are added in 16 bits, where eight bits of both could overflow.
        self.seven_bits = not has_vnni()

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12)
        y = torch.ops.quantized.linear_dynamic(x / largest, self.packed, self.seven_bits).mul_(largest)
        return y if self.bias is None else y.add_(self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> Int8Linear:
        return self  # packed weights cannot be copied, and never change


def has_vnni() -> bool:
    """Whether the CPU multiplies eight bits exactly; False where torch cannot tell."""
    tell = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(tell and tell())


def int8(model: Model) -> Model:
    """A copy for inference on a CPU with the linear maps of its blocks in int8; the head stays as it is."""
    made: Any = copy.deepcopy(model).cpu().eval()
    host = made.host if isinstance(made, AdaptiveModel) else made
    for block in host.blocks:
        if isinstance(made, AdaptiveModel):
            # Keys and values are asked of more tokens than queries.
            block.attn.qkv = SplitLinear(block.attn.qkv)
        for module in list(block.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
    return made
