"""Released weights of image ViTs: timm, DeiT, DINOv2 (also in Hugging Face names), and the JAX originals.

The video models that start from an image ViT read the same names with the functions here.
"""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from framecast.nn.embeddings import patch_grid, resample_positions
from framecast.official import OfficialLayout

NUM_HEADS = {1280: 16}  # ViT-H by its width; heads are 64 wide in the others, and shapes do not tell
IMAGE_VIT = r"blocks\.0\.attn\.qkv\.weight"  # a tensor of every image ViT


def read_vit_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from tensor shapes; `settings` are not needed."""
    return read_trunk(state) | {
        "pooling": "mean" if "fc_norm.weight" in state else "cls",
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "distilled": "dist_token" in state,
        "num_registers": state["reg_token"].shape[1] if "reg_token" in state else 0,
        "pre_logits": "pre_logits.weight" in state,
    }


def read_trunk(state: dict[str, Tensor]) -> dict[str, Any]:
    """What every Transformer over patches has, from the shapes of its tensors."""
    kernel = state["patch_embed.proj.weight"]
    width, patch_size = kernel.shape[0], kernel.shape[-1]
    head = state.get("head.weight")
    side = round((state["pos_embed"].shape[1] - 1 - ("dist_token" in state)) ** 0.5)
    return {
        "width": width,
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "num_heads": NUM_HEADS.get(width, max(width // 64, 1)),
        "patch_size": patch_size,
        "image_size": side * patch_size,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": 0 if head is None else head.shape[0],
    }


def resample_pos_embed(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    """Bring a position table of a square grid to the grid of the model."""
    num_prefix = 1 + config.get("distilled", False)
    grid = patch_grid(config["image_size"], config["patch_size"])
    table = state.get("pos_embed")
    if table is None:
        return []  # reported as missing
    if config.get("num_registers") and isqrt(table.shape[1]) ** 2 == table.shape[1]:
        # timm's models with registers give the class token no position of its own
        table = state["pos_embed"] = torch.cat([torch.zeros_like(table[:, :num_prefix]), table], dim=1)
    num_patches = table.shape[1] - num_prefix
    if num_patches == grid[0] * grid[1]:
        return []
    side = isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"pos_embed has {num_patches} positions, which are no square grid; pass image_size")
    state["pos_embed"] = resample_positions(
        table, (side, side), grid, num_prefix=num_prefix, mode=config["resampling"]
    )
    return ["pos_embed"]


# Hugging Face ---------------------------------------------------------------------------------------


def _join_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face keeps q, k and v apart; we keep them in one matrix, in this order."""
    joined = {key.removeprefix("backbone.").removeprefix("dinov2."): t for key, t in state.items()}
    for key in [k for k in joined if ".attention.attention.query." in k]:
        parts = [joined.pop(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        joined[key.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(parts)
    return joined


HF_KEYS = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.patch_embeddings\.projection\.(.*)": r"patch_embed.proj.\1",
    r"encoder\.layer\.(\d+)\.attn\.qkv\.(.*)": r"blocks.\1.attn.qkv.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    r"encoder\.layer\.(\d+)\.(norm\d|mlp\.fc\d)\.(.*)": r"blocks.\1.\2.\3",
    r"layernorm\.(.*)": r"norm.\1",
}


def _read_hf_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    renamed = {HUGGING_FACE.translate(key) or key: t for key, t in state.items()}
    return read_vit_config(renamed, settings)


# JAX ------------------------------------------------------------------------------------------------


JAX_BLOCK = r"Transformer/encoderblock_(\d+)/"
JAX_KEYS = {
    "cls": "cls_token",
    r"Transformer/posembed_input/pos_embedding": "pos_embed",
    r"embedding/(weight|bias)": r"patch_embed.proj.\1",
    JAX_BLOCK + r"LayerNorm_0/(weight|bias)": r"blocks.\1.norm1.\2",
    JAX_BLOCK + r"LayerNorm_2/(weight|bias)": r"blocks.\1.norm2.\2",
    JAX_BLOCK + r"MultiHeadDotProductAttention_1/qkv/(weight|bias)": r"blocks.\1.attn.qkv.\2",
    JAX_BLOCK + r"MultiHeadDotProductAttention_1/out/(weight|bias)": r"blocks.\1.attn.proj.\2",
    JAX_BLOCK + r"MlpBlock_3/Dense_0/(weight|bias)": r"blocks.\1.mlp.fc1.\2",
    JAX_BLOCK + r"MlpBlock_3/Dense_1/(weight|bias)": r"blocks.\1.mlp.fc2.\2",
    r"Transformer/encoder_norm/(weight|bias)": r"norm.\1",
    r"(pre_logits|head)/(weight|bias)": r"\1.\2",
}


def _from_jax(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """JAX keeps matrices input first and heads apart: as PyTorch has them, q, k and v joined."""
    state = {re.sub(r"^(opt/target|params)/", "", key): tensor for key, tensor in state.items()}
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition("/")
        module, _, part = layer.rpartition("/")
        if part in ("key", "value"):
            continue
        if part == "query":  # kernels (D, H, d), biases (H, d)
            parts = [state[f"{module}/{p}/{kind}"].flatten(-2) for p in ("query", "key", "value")]
            tensor, layer = torch.cat(parts, dim=-1), f"{module}/qkv"
        elif part == "out" and kind == "kernel":  # (H, d, D)
            tensor = tensor.flatten(0, 1)
        if kind == "kernel":  # (P, P, 3, D) or (in, out)
            tensor = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
        kind = {"kernel": "weight", "scale": "weight"}.get(kind, kind)
        out[f"{layer}/{kind}" if layer else kind] = tensor
    return out


def _read_jax_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    renamed = {JAX.translate(key) or key: t for key, t in state.items()}
    half = (0.5, 0.5, 0.5)
    return read_vit_config(renamed, settings) | {"gelu": "tanh", "mean": half, "std": half}


# All ------------------------------------------------------------------------------------------------


TIMM = OfficialLayout(
    name="timm / DeiT / DINOv2",
    model="vit_tiny",
    detect=IMAGE_VIT,
    licence="as stated by the release (timm, DeiT and DINOv2 weights: Apache-2.0)",
    keys={
        r"register_tokens": "reg_token",
        r"pre_logits\.fc\.(.*)": r"pre_logits.\1",
        r"(.*)": r"\1",
    },
    ignored={r"mask_token": "only used while pre-training"},
    read_config=read_vit_config,
    resample=resample_pos_embed,
    head=r"head(_dist)?\..*",
)
HUGGING_FACE = OfficialLayout(
    name="Hugging Face DINOv2",
    model="vit_small_dinov2",
    detect=r"(backbone\.|dinov2\.)?encoder\.layer\.0\.attention\.attention\.query\.weight",
    licence="Apache-2.0 (DINOv2, Meta AI)",
    keys=HF_KEYS,
    ignored={
        r"embeddings\.mask_token": "only used while pre-training",
        r"(?!embeddings\.|encoder\.|layernorm\.).*": "not a part of the backbone",
    },
    read_config=_read_hf_config,
    prepare=_join_qkv,
    resample=resample_pos_embed,
    head=r"head\..*",
)
JAX = OfficialLayout(
    name="JAX ViT / augreg",
    model="vit_tiny",
    detect=r"(opt/target/|params/)?Transformer/encoderblock_0/LayerNorm_0/scale",
    licence="Apache-2.0 (ViT and augreg weights, Google)",
    keys=JAX_KEYS,
    read_config=_read_jax_config,
    prepare=_from_jax,
    resample=resample_pos_embed,
    head=r"head\..*",
)
OFFICIAL = (TIMM, HUGGING_FACE, JAX)
