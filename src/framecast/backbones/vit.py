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
from typing import Any, Literal

import torch
from torch import Tensor, nn

from framecast.backbones.vit_layouts import OFFICIAL
from framecast.nn.embeddings import PatchEmbed, Resampling, patch_grid, resample_positions
from framecast.nn.transformer import Block, Gelu, init_transformer
from framecast.registry import checked_overrides, register_model

__all__ = ["OFFICIAL", "VisionTransformer", "VitConfig"]

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
    pre_logits: bool = False  # linear map and tanh before the head, in the ImageNet-21k weights of 2020
    drop_path: float = 0.0  # rate of the last block, linear over depth
    resampling: Resampling = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of the images that it was trained on, 0..1
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def grid(self) -> tuple[int, int]:
        return patch_grid(self.image_size, self.patch_size)


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
        self.pre_logits = nn.Linear(c.width, c.width) if c.pre_logits else None
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
        init_transformer(self)
        for table in (self.pos_embed, self.cls_token, self.dist_token, self.reg_token):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "dist_token", "reg_token"}

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the input to the head, for rates that fall with depth."""
        embeddings = ["patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token"]
        top = ["norm", "fc_norm", "pre_logits", "head", "head_dist"]
        return [embeddings, *([f"blocks.{i}"] for i in range(self.config.depth)), top]

    def embed(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, P + N, D)
        c = self.config
        grid = (images.shape[-2] // c.patch_size, images.shape[-1] // c.patch_size)
        positioned = 1 + c.distilled
        patches = self.patch_embed(images)
        tokens = [token for token in (self.cls_token, self.dist_token) if token is not None]
        prefix = [token.expand(images.shape[0], -1, -1) for token in tokens]
        x = torch.cat([*prefix, patches], dim=1)
        x = x + resample_positions(self.pos_embed, c.grid, grid, num_prefix=positioned, mode=c.resampling)
        if self.reg_token is None:
            return x
        registers = self.reg_token.expand(images.shape[0], -1, -1)
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
        pooled = self.fc_norm(pooled)
        if self.pre_logits is not None:
            pooled = torch.tanh(self.pre_logits(pooled))
        logits = self.head(pooled)
        if self.head_dist is not None:  # DeiT averages its two heads at test time
            logits = (logits + self.head_dist(tokens[:, 1])) / 2
        return logits

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        # only the prefix tokens are classified, so the last block answers for no others
        wanted = self.num_prefix_tokens if self.config.pooling == "cls" else None
        x = self.embed(images)
        for i, block in enumerate(self.blocks):
            x = block(x, wanted if i == self.config.depth - 1 else None)
        return self.forward_head(self.norm(x))


# Named sizes ----------------------------------------------------------------------------------------


def _vit(config: VitConfig, overrides: dict[str, Any]) -> VisionTransformer:
    return VisionTransformer(replace(config, **checked_overrides(VitConfig, overrides, "a ViT")))


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=5_717_416,
    system="vit",
)
def vit_tiny(**overrides: Any) -> VisionTransformer:
    """ViT Ti/16 (= DeiT-Ti): 5.7 M parameters, 1.25 GMACs at 224 pixels."""
    return _vit(VitConfig(width=192, depth=12, num_heads=3), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=22_050_664,
)
def vit_small(**overrides: Any) -> VisionTransformer:
    """ViT S/16 (= DeiT-S): 22 M parameters, 4.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=384, depth=12, num_heads=6), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=22_878_952,
)
def vit_small_patch32(**overrides: Any) -> VisionTransformer:
    """ViT S/32: 23 M parameters, 1.14 GMACs at 224 pixels."""
    return _vit(VitConfig(width=384, depth=12, num_heads=6, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=86_567_656,
)
def vit_base(**overrides: Any) -> VisionTransformer:
    """ViT B/16 (= DeiT-B): 87 M parameters, 17.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=768, depth=12, num_heads=12), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=88_224_232,
)
def vit_base_patch32(**overrides: Any) -> VisionTransformer:
    """ViT B/32: 88 M parameters, 4.4 GMACs at 224 pixels."""
    return _vit(VitConfig(width=768, depth=12, num_heads=12, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=304_326_632,
)
def vit_large(**overrides: Any) -> VisionTransformer:
    """ViT L/16: 304 M parameters, 61.6 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1024, depth=24, num_heads=16), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=306_535_400,
)
def vit_large_patch32(**overrides: Any) -> VisionTransformer:
    """ViT L/32: 307 M parameters, 15.4 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1024, depth=24, num_heads=16, patch_size=32), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2010.11929",
    params=632_045_800,
)
def vit_huge(**overrides: Any) -> VisionTransformer:
    """ViT H/14: 632 M parameters, 167 GMACs at 224 pixels."""
    return _vit(VitConfig(width=1280, depth=32, num_heads=16, patch_size=14), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2012.12877",
    params=5_910_800,
)
def deit_tiny_distilled(**overrides: Any) -> VisionTransformer:
    """DeiT-Ti with a distillation token and its head: 5.9 M parameters."""
    return _vit(VitConfig(width=192, depth=12, num_heads=3, distilled=True), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2012.12877",
    params=22_436_432,
)
def deit_small_distilled(**overrides: Any) -> VisionTransformer:
    """DeiT-S with a distillation token and its head: 22 M parameters."""
    return _vit(VitConfig(width=384, depth=12, num_heads=6, distilled=True), overrides)


@register_model(
    tags=["backbone", "image", "vit", "recognition"],
    paper="https://arxiv.org/abs/2012.12877",
    params=87_338_192,
)
def deit_base_distilled(**overrides: Any) -> VisionTransformer:
    """DeiT-B with a distillation token and its head: 87 M parameters."""
    return _vit(VitConfig(width=768, depth=12, num_heads=12, distilled=True), overrides)


@register_model(
    tags=["backbone", "image", "vit", "dinov2", "recognition"],
    paper="https://arxiv.org/abs/2304.07193",
    params=22_056_192,
)
def vit_small_dinov2(**overrides: Any) -> VisionTransformer:
    """DINOv2 ViT S/14: features only, LayerScale, positions for 518 pixels."""
    base = VitConfig(
        width=384, depth=12, num_heads=6, patch_size=14, image_size=518, num_classes=0, layer_scale=True
    )
    return _vit(base, overrides)


@register_model(
    tags=["backbone", "image", "vit", "dinov2", "recognition"],
    paper="https://arxiv.org/abs/2304.07193",
    params=86_579_712,
)
def vit_base_dinov2(**overrides: Any) -> VisionTransformer:
    """DINOv2 ViT B/14: features only, LayerScale, positions for 518 pixels."""
    base = VitConfig(
        width=768, depth=12, num_heads=12, patch_size=14, image_size=518, num_classes=0, layer_scale=True
    )
    return _vit(base, overrides)
