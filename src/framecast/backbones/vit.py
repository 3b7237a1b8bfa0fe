"""Image ViT (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929), with DeiT and DINOv2 sizes.

An image is cut into patches, a class token is put in front, learned positions are added, and a pre-norm
Transformer encoder runs over the tokens. Tensor names are those of timm and DeiT.

Pooling "cls" classifies the class token after the final norm. "mean" averages the patch tokens of the last
block, without the class token, and norms the average (`fc_norm`), as timm's "avg" does.
Other image sizes: the position table is resampled to the new grid.
Shapes: B batch, H and W pixels, N patches, P prefix tokens (class, distillation, registers), D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn

from framecast.nn.embeddings import PatchEmbed, Resampling, resample_positions
from framecast.nn.transformer import Block, Gelu
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VitConfig:
    width: int = 192
    depth: int = 12
    num_heads: int = 3
    patch_size: int = 16
    image_size: int | tuple[int, int] = 224  # pixels (height, width) of the position table
    mlp_ratio: float = 4.0
    num_classes: int = 1000  # 0 = features only, no head
    pooling: Literal["cls", "mean"] = "cls"
    gelu: Gelu = "erf"
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    layer_scale: bool = False  # DINOv2
    distilled: bool = False  # DeiT's distillation token and second head
    num_registers: int = 0  # DINOv2 with registers; they carry no position
    drop_path: float = 0.0  # rate of the last block, linear over depth
    resampling: Resampling = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of the images that it was trained on, 0..1
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def grid(self) -> tuple[int, int]:
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height // self.patch_size, width // self.patch_size


class VisionTransformer(nn.Module):
    """Images to class scores; `forward_features` gives the tokens, also of an inner block."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = c = config
        positioned = 2 if c.distilled else 1
        num_patches = c.grid[0] * c.grid[1]
        self.patch_embed = PatchEmbed(c.patch_size, c.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, c.width)) if c.distilled else None
        self.reg_token = nn.Parameter(torch.zeros(1, c.num_registers, c.width)) if c.num_registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, positioned + num_patches, c.width))
        self.blocks = nn.ModuleList(
            Block(
                c.width,
                c.num_heads,
                mlp_ratio=c.mlp_ratio,
                qkv_bias=c.qkv_bias,
                gelu=c.gelu,
                norm_eps=c.norm_eps,
                layer_scale=c.layer_scale,
                drop_path=c.drop_path * i / max(c.depth - 1, 1),
            )
            for i in range(c.depth)
        )
        pooled_first = c.pooling == "mean"
        self.norm = nn.Identity() if pooled_first else nn.LayerNorm(c.width, eps=c.norm_eps)
        self.fc_norm = nn.LayerNorm(c.width, eps=c.norm_eps) if pooled_first else nn.Identity()
        self.head = nn.Linear(c.width, c.num_classes) if c.num_classes else nn.Identity()
        self.head_dist = nn.Linear(c.width, c.num_classes) if c.distilled and c.num_classes else None
        self.init_weights()

    @property
    def feature_dim(self) -> int:
        return self.config.width

    @property
    def stride(self) -> int:
        return self.config.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        return 1 + self.config.distilled + self.config.num_registers

    def init_weights(self) -> None:
        """DeiT: linear maps, positions and tokens ~ truncated normal 0.02, biases 0; patch conv as torch."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in (self.pos_embed, self.cls_token, self.dist_token, self.reg_token):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def embed(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, P + N, D)
        c = self.config
        grid = (images.shape[-2] // c.patch_size, images.shape[-1] // c.patch_size)
        positioned = 1 + c.distilled
        patches = self.patch_embed(images)
        prefix = [t.expand(len(images), -1, -1) for t in (self.cls_token, self.dist_token) if t is not None]
        x = torch.cat([*prefix, patches], dim=1)
        x = x + resample_positions(self.pos_embed, c.grid, grid, num_prefix=positioned, mode=c.resampling)
        if self.reg_token is None:
            return x
        registers = self.reg_token.expand(len(images), -1, -1)
        return torch.cat([x[:, :positioned], registers, x[:, positioned:]], dim=1)

    def forward_features(self, images: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (B, P + N, D): after the final norm, or as block `layer` (0-based) leaves them."""
        if layer is not None and not 0 <= layer < self.config.depth:
            raise ValueError(f"layer {layer} asked of a ViT with blocks 0..{self.config.depth - 1}")
        x = self.embed(images)
        for block in self.blocks if layer is None else self.blocks[: layer + 1]:
            x = block(x)
        return self.norm(x) if layer is None else x

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, P + N, D) -> (B, classes)
        pooled = tokens[:, 0] if self.config.pooling == "cls" else tokens[:, self.num_prefix_tokens :].mean(1)
        logits = self.head(self.fc_norm(pooled))
        if self.head_dist is not None:  # DeiT averages its two heads at test time
            logits = (logits + self.head_dist(tokens[:, 1])) / 2
        return logits

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        return self.forward_head(self.forward_features(images))


# Official layouts -----------------------------------------------------------------------------------


NUM_HEADS = {1280: 16}  # ViT-H by its width; heads are 64 wide in the others, and shapes do not tell


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes from tensor shapes; `settings` are not needed."""
    width, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    head = state.get("head.weight")
    distilled = "dist_token" in state
    side = round((state["pos_embed"].shape[1] - 1 - distilled) ** 0.5)
    return {
        "width": width,
        "depth": depth,
        "num_heads": NUM_HEADS.get(width, max(width // 64, 1)),
        "patch_size": patch_size,
        "image_size": side * patch_size,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": 0 if head is None else head.shape[0],
        "pooling": "mean" if "fc_norm.weight" in state else "cls",
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "distilled": distilled,
        "num_registers": state["reg_token"].shape[1] if "reg_token" in state else 0,
    }


def _resample_pos_embed(state: dict[str, Tensor], config: dict[str, Any]) -> list[str]:
    """Bring a position table of a square grid to the grid of the model."""
    c = VitConfig(**config)
    num_prefix = 1 + c.distilled
    table = state.get("pos_embed")
    if table is None:
        return []  # reported as missing
    if c.num_registers and isqrt(table.shape[1]) ** 2 == table.shape[1]:
        # timm's models with registers give the class token no position of its own
        table = state["pos_embed"] = torch.cat([torch.zeros_like(table[:, :num_prefix]), table], dim=1)
    num_patches = table.shape[1] - num_prefix
    if num_patches == c.grid[0] * c.grid[1]:
        return []
    side = isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"pos_embed has {num_patches} positions, which are no square grid; pass image_size")
    state["pos_embed"] = resample_positions(
        table, (side, side), c.grid, num_prefix=num_prefix, mode=c.resampling
    )
    return ["pos_embed"]


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
    renamed = {OFFICIAL[1].translate(key) or key: t for key, t in state.items()}
    return _read_config(renamed, settings)


OFFICIAL = (
    OfficialLayout(
        name="timm / DeiT / DINOv2",
        model="vit_tiny",
        detect=r"blocks\.0\.attn\.qkv\.weight",
        licence="as stated by the release (timm, DeiT and DINOv2 weights: Apache-2.0)",
        keys={r"register_tokens": "reg_token", r"(.*)": r"\1"},
        ignored={r"mask_token": "only used while pre-training"},
        read_config=_read_config,
        resample=_resample_pos_embed,
    ),
    OfficialLayout(
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
        resample=_resample_pos_embed,
    ),
)


# Named sizes ----------------------------------------------------------------------------------------


def _vit(config: VitConfig, overrides: dict[str, Any]) -> VisionTransformer:
    return VisionTransformer(replace(config, **checked_overrides(VitConfig, overrides, "a ViT")))


@register_model(
    tags=["backbone", "image", "vit"],
    paper="https://arxiv.org/abs/2010.11929",
    params=5_717_416,
    system="vit",
)
def vit_tiny(**overrides: Any) -> VisionTransformer:
    """ViT Ti/16 (= DeiT-Ti): 5.7 M parameters, 1.25 GMACs at 224 pixels."""
    return _vit(VitConfig(width=192, depth=12, num_heads=3), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=22_050_664
)
def vit_small(**overrides: Any) -> VisionTransformer:
    """ViT S/16 (= DeiT-S): 22 M parameters, 4.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=384, depth=12, num_heads=6), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=22_878_952
)
def vit_small_patch32(**overrides: Any) -> VisionTransformer:
    """ViT S/32: 23 M parameters, 1.14 GMACs at 224 pixels."""
    return _vit(VitConfig(width=384, depth=12, num_heads=6, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=86_567_656
)
def vit_base(**overrides: Any) -> VisionTransformer:
    """ViT B/16 (= DeiT-B): 87 M parameters, 17.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=768, depth=12, num_heads=12), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=88_224_232
)
def vit_base_patch32(**overrides: Any) -> VisionTransformer:
    """ViT B/32: 88 M parameters, 4.4 GMACs at 224 pixels."""
    return _vit(VitConfig(width=768, depth=12, num_heads=12, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=304_326_632
)
def vit_large(**overrides: Any) -> VisionTransformer:
    """ViT L/16: 304 M parameters, 61.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1024, depth=24, num_heads=16), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=306_535_400
)
def vit_large_patch32(**overrides: Any) -> VisionTransformer:
    """ViT L/32: 307 M parameters, 15.4 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1024, depth=24, num_heads=16, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit"], paper="https://arxiv.org/abs/2010.11929", params=632_045_800
)
def vit_huge(**overrides: Any) -> VisionTransformer:
    """ViT H/14: 632 M parameters, 167 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1280, depth=32, num_heads=16, patch_size=14), overrides)


@register_model(
    tags=["backbone", "image", "vit", "dinov2"], paper="https://arxiv.org/abs/2304.07193", params=22_056_192
)
def vit_small_dinov2(**overrides: Any) -> VisionTransformer:
    """DINOv2 ViT S/14: features only, LayerScale, positions for 518 pixels."""
    base = VitConfig(
        width=384, depth=12, num_heads=6, patch_size=14, image_size=518, num_classes=0, layer_scale=True
    )
    return _vit(base, overrides)


@register_model(
    tags=["backbone", "image", "vit", "dinov2"], paper="https://arxiv.org/abs/2304.07193", params=86_579_712
)
def vit_base_dinov2(**overrides: Any) -> VisionTransformer:
    """DINOv2 ViT B/14: features only, LayerScale, positions for 518 pixels."""
    base = VitConfig(
        width=768, depth=12, num_heads=12, patch_size=14, image_size=518, num_classes=0, layer_scale=True
    )
    return _vit(base, overrides)
