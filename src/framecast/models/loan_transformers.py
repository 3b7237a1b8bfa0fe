"""The Transformers that LOAN was compared with: a 3-D Swin and a TimeSformer for windows of daily maps
(baselines of Shams Eddin, Roscher, Gall, TGRS 2023, https://arxiv.org/abs/2212.08208, after Liu et al.,
https://arxiv.org/abs/2106.13230, and Bertasius et al., https://arxiv.org/abs/2102.05095).

Both read the static maps once more on every day, before the dynamic ones, and know no day of the year.
As in the release: the Swin averages runs of its last maps as they lie in memory, channels side by side, so
that each pooled number mixes all channels (`mixed_pooling`); it merges half of the (day, row) neighbours
only; windows that were clipped to the map take the first rows of the table of relative positions; and no norm
stands before its head (a declared one is never applied; its 256 numbers are left out here). The TimeSformer
has no final norm either.
Shapes: B batch, V dynamic and S static variables, T days, H and W cells, D width, N tokens of a window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from framecast.backbones.timesformer import DividedBlock
from framecast.models.loan import check_windows
from framecast.nn.embeddings import PatchEmbed
from framecast.nn.shifted_windows import PatchMerging3d, ShiftedWindowBlock3d
from framecast.nn.transformer import Block, init_transformer
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model


@dataclass(frozen=True)
class SwinConfig:
    num_dynamic: int = 10
    num_static: int = 15
    num_days: int = 10
    window_cells: int = 25  # side of the window round a cell
    num_classes: int = 2
    embed_width: int = 32  # of the first stage, twice as much in each following one
    depths: tuple[int, ...] = (2, 2, 8)
    heads: tuple[int, ...] = (2, 4, 8)
    attention_window: tuple[int, int, int] = (3, 5, 5)  # days, rows, columns
    mlp_ratio: float = 4.0
    dropout: float = 0.3
    drop_path: float = 0.3  # rate of the last block, linear over depth
    mixed_pooling: bool = True  # False = each channel is averaged over its cells


@dataclass(frozen=True)
class DangerTimesformerConfig:
    num_dynamic: int = 10
    num_static: int = 15
    num_days: int = 10
    window_cells: int = 25
    num_classes: int = 2
    width: int = 96
    depth: int = 10
    num_heads: int = 6
    patch_size: int = 4  # cells; rows and columns that fill no patch are left out
    mlp_ratio: float = 4.0
    attention: Literal["joint", "divided", "space_only"] = "joint"
    drop_path: float = 0.3


def stacked(dynamic: Tensor, static: Tensor) -> Tensor:
    """(B, V, T, H, W) and (B, S, H, W) -> (B, S + V, T, H, W)."""
    return torch.cat([static[:, :, None].expand(-1, -1, dynamic.shape[2], -1, -1), dynamic], dim=1)


class SwinStage(nn.Module):
    """Blocks on maps of one size; all stages but the first halve the maps before."""

    def __init__(
        self, width: int, num_heads: int, config: SwinConfig, drop_path: list[float], *, merge: bool
    ) -> None:
        super().__init__()
        c = config
        self.merge = PatchMerging3d(width) if merge else nn.Identity()
        width = 2 * width if merge else width
        days, rows, columns = (side // 2 for side in c.attention_window)
        self.blocks = nn.Sequential(
            *(
                ShiftedWindowBlock3d(
                    width,
                    num_heads,
                    c.attention_window,
                    (days, rows, columns) if i % 2 else (0, 0, 0),
                    mlp_ratio=c.mlp_ratio,
                    dropout=c.dropout,
                    drop_path=rate,
                )
                for i, rate in enumerate(drop_path)
            )
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, W, D)
        return self.blocks(self.merge(x))


class DangerSwin(nn.Module):
    """Windows of dynamic and static maps to log-probabilities (B, C) for the cell in the middle."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = c = config
        if len(c.depths) != len(c.heads):
            raise ValueError(f"depths {c.depths} and heads {c.heads} must name the same number of stages")
        self.embed = nn.Linear(c.num_static + c.num_dynamic, c.embed_width)
        self.embed_norm = nn.LayerNorm(c.embed_width)
        self.drop = nn.Dropout(c.dropout)
        rates = torch.linspace(0, c.drop_path, sum(c.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        width = c.embed_width
        for i, (depth, num_heads) in enumerate(zip(c.depths, c.heads, strict=True)):
            first = sum(c.depths[:i])
            self.stages.append(SwinStage(width, num_heads, c, rates[first : first + depth], merge=i > 0))
            width = 2 * width if i else width
        self.head = nn.Linear(width, c.num_classes)
        init_transformer(self)

    def feature_maps(self, dynamic: Tensor, static: Tensor) -> list[Tensor]:
        """Maps after the embedding and after each stage, (B, T', H', W', D')."""
        check_windows(self.config, dynamic, static)
        x = self.embed(rearrange(stacked(dynamic, static), "b c t h w -> b t h w c"))
        features = [self.embed_norm(x)]
        x = self.drop(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, dynamic: Tensor, static: Tensor, day: Tensor | None = None) -> Tensor:
        """dynamic (B, V, T, H, W), static (B, S, H, W) -> (B, C); the day is not used."""
        x = self.feature_maps(dynamic, static)[-1]
        if self.config.mixed_pooling:  # D runs of T' H' W' numbers, which hold all channels alike
            return self.head(x.reshape(x.shape[0], x.shape[-1], -1).mean(2)).log_softmax(1)
        return self.head(x.mean((1, 2, 3))).log_softmax(1)


class DangerTimesformer(nn.Module):
    """Windows of dynamic and static maps to log-probabilities (B, C) for the cell in the middle."""

    def __init__(self, config: DangerTimesformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.grid = c.window_cells // c.patch_size
        self.patch_embed = PatchEmbed(c.patch_size, c.width, c.num_static + c.num_dynamic)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, c.width))
        in_time = c.attention != "space_only"
        self.time_embed = nn.Parameter(torch.zeros(1, c.num_days, c.width)) if in_time else None
        self.blocks = nn.ModuleList(
            (DividedBlock if c.attention == "divided" else Block)(
                c.width,
                c.num_heads,
                mlp_ratio=c.mlp_ratio,
                norm_eps=1e-5,
                drop_path=c.drop_path * i / max(c.depth - 1, 1),
            )
            for i in range(c.depth)
        )
        self.head = nn.Linear(c.width, c.num_classes)
        init_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for block in self.blocks[1:]:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)

    def embed(self, dynamic: Tensor, static: Tensor) -> Tensor:
        """-> tokens (B, 1 + T N, D), day by day; for "space_only" (B T, 1 + N, D)."""
        check_windows(self.config, dynamic, static)
        cells = self.grid * self.config.patch_size
        maps = rearrange(stacked(dynamic, static)[..., :cells, :cells], "b c t h w -> (b t) c h w")
        cls = self.cls_token + self.pos_embed[:, :1]
        x = self.patch_embed(maps) + self.pos_embed[:, 1:]
        if self.time_embed is not None:
            x = (x.unflatten(0, (-1, self.config.num_days)) + self.time_embed[:, :, None]).flatten(1, 2)
        return torch.cat([cls.expand(x.shape[0], -1, -1), x], dim=1)

    def tokens(self, dynamic: Tensor, static: Tensor, *, num_out: int | None = None) -> Tensor:
        """Tokens after the last block, day by day; only the first `num_out` where that is given."""
        c = self.config
        options = {"num_frames": c.num_days} if c.attention == "divided" else {}
        x = self.embed(dynamic, static)
        for i, block in enumerate(self.blocks):
            x = block(x, num_out if i == c.depth - 1 else None, **options)
        return x.unflatten(0, (-1, c.num_days)).mean(1) if c.attention == "space_only" else x

    def forward(self, dynamic: Tensor, static: Tensor, day: Tensor | None = None) -> Tensor:
        """dynamic (B, V, T, H, W), static (B, S, H, W) -> (B, C); the day is not used."""
        tokens = self.tokens(dynamic, static, num_out=1)
        return self.head(tokens[:, 0]).log_softmax(1)


# Official layouts -------------------------------------------------------------------------------------

NUM_STATIC = 15  # no tensor tells static maps from dynamic ones; the release has 15


def _prepare_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A convolution over single cells is a linear map of them."""
    return {k: t.flatten(1) if k == "patch_embed.proj.weight" else t for k, t in state.items()}


def _read_swin(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    width, channels = state["patch_embed.proj.weight"].shape
    blocks = [key.split(".") for key in state if key.endswith("norm1.weight")]
    depths = tuple(
        1 + max(int(block[3]) for block in blocks if block[1] == stage)
        for stage in sorted({block[1] for block in blocks})
    )
    bias = "layers.{}.blocks.0.attn.relative_position_bias_table"
    return {
        "num_static": NUM_STATIC,
        "num_dynamic": channels - NUM_STATIC,
        "embed_width": width,
        "depths": depths,
        "heads": tuple(state[bias.format(i)].shape[1] for i in range(len(depths))),
        "num_classes": state["head.weight"].shape[0],
    }


def _read_timesformer(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    width, channels, patch_size = state["patch_embed.proj.weight"].shape[:3]
    times = state.get("time_embed")
    attention = "divided" if "blocks.0.temporal_fc.weight" in state else "joint"
    return {
        "num_static": NUM_STATIC,
        "num_dynamic": channels - NUM_STATIC,
        "width": width,
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "patch_size": patch_size,
        "num_days": 10 if times is None else times.shape[1],
        "attention": "space_only" if times is None else attention,
        "num_classes": state["head.weight"].shape[0],
    }


OFFICIAL = (
    OfficialLayout(
        name="LOAN's 3-D Swin",
        model="loan_swin3d",
        detect=r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table",
        licence="MIT (c) 2023 Hakam Shams",
        keys={
            r"patch_embed\.proj\.(.*)": r"embed.\1",
            r"patch_embed\.norm\.(.*)": r"embed_norm.\1",
            r"layers\.(\d+)\.downsample\.(.*)": r"stages.\1.merge.\2",
            r"layers\.(\d+)\.(blocks\..*)": r"stages.\1.\2",
            r"(head\..*)": r"\1",
        },
        read_config=_read_swin,
        ignored={
            r"norm\.(weight|bias)": "declared by the release, never applied",
            r".*relative_position_index": "computed",
        },
        prepare=_prepare_swin,
        head=r"head\..*",
    ),
    OfficialLayout(
        name="LOAN's TimeSformer",
        model="loan_timesformer",
        detect=r"patch_embed\.proj\.weight",
        licence="MIT (c) 2023 Hakam Shams",
        keys={r"(.*)": r"\1"},
        read_config=_read_timesformer,
        head=r"head\..*",
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


@register_model(
    tags=["earth", "danger"],
    paper="https://arxiv.org/abs/2212.08208",
    params=1_785_214,
    system="loan_transformers",
)
def loan_swin3d(**overrides: Any) -> DangerSwin:
    """3-D Swin on windows of dynamic and static maps, a baseline of LOAN."""
    own = checked_overrides(SwinConfig, overrides, "loan_swin3d")
    return DangerSwin(replace(SwinConfig(), **own))


@register_model(tags=["earth", "danger"], paper="https://arxiv.org/abs/2212.08208", params=1_161_698)
def loan_timesformer(**overrides: Any) -> DangerTimesformer:
    """TimeSformer on windows of dynamic and static maps, a baseline of LOAN."""
    own = checked_overrides(DangerTimesformerConfig, overrides, "loan_timesformer")
    return DangerTimesformer(replace(DangerTimesformerConfig(), **own))
