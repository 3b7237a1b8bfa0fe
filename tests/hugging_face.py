"""Writes a ViT of ours under the tensor names of transformers, as DINOv2 is found on the hub."""

from __future__ import annotations

import re

import torch
from torch import Tensor


def hugging_face(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Our names as transformers' Dinov2Model has them."""
    names = {
        r"cls_token": "embeddings.cls_token",
        r"pos_embed": "embeddings.position_embeddings",
        r"reg_token": "embeddings.register_tokens",
        r"patch_embed\.proj\.(.*)": r"embeddings.patch_embeddings.projection.\1",
        r"blocks\.(\d+)\.attn\.proj\.(.*)": r"encoder.layer.\1.attention.output.dense.\2",
        r"blocks\.(\d+)\.ls(\d)\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
        r"blocks\.(\d+)\.(norm\d|mlp\.fc\d)\.(.*)": r"encoder.layer.\1.\2.\3",
        r"norm\.(.*)": r"layernorm.\1",
    }
    out = {"embeddings.mask_token": torch.zeros_like(state["cls_token"][0])}
    for key, tensor in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(.*)", key):
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[f"encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = value
            continue
        pattern = next(pattern for pattern in names if re.fullmatch(pattern, key))
        out[re.sub(pattern, names[pattern], key)] = tensor
    return {prefix + key: tensor for key, tensor in out.items()}
