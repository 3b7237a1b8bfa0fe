"""Linear maps in eight bits for CPUs, also of models that sample tokens.

torch's dynamic quantisation keeps weights as int8 and rounds activations while they run. It takes whole
linear maps, whereas sampling asks keys and values of more tokens than queries; so the map to q, k and v is
cut first.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import nn

from framecast.backbones.adaptive_blocks import SplitLinear
from framecast.backbones.adaptive_model import AdaptiveModel

Model = TypeVar("Model", bound=nn.Module)


def int8(model: Model) -> Model:
    """A copy for inference on a CPU with linear maps in int8; the head stays as it is."""
    try:
        from torch.ao.quantization import quantize_dynamic  # ty: ignore[deprecated]
    except ImportError:
        raise ImportError(f"torch {torch.__version__} has no dynamic quantisation any more") from None

    made: Any = copy.deepcopy(model).cpu().eval()
    host = made.host if isinstance(made, AdaptiveModel) else made
    for block in host.blocks:
        if isinstance(made, AdaptiveModel):
            block.attn.qkv = SplitLinear(block.attn.qkv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has announced to move this elsewhere
            quantize_dynamic(block, {nn.Linear}, dtype=torch.qint8, inplace=True)  # ty: ignore[deprecated]
    return made
