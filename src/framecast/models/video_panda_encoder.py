"""Eyes that are a frozen image encoder, in the place of STAB: what Video-Panda is compared with.

Every frame goes through the encoder by itself. Its patch features are averaged over as many patches as make
one token of STAB and mapped to the language model's width by one linear map, which alone is trained, with a
token in front of each frame (of the encoder's class token, or of the mean of its patches) and one behind each
row. So a language model reads as many tokens as STAB gives it, laid out in the same way.
Shapes: B clips, T frames, S side of a frame, h and w tokens of a frame, D width of the encoder, L of the
language model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.backbones.stab_frames import VisualTokens, boxes_of
from framecast.registry import create_model


@dataclass(frozen=True)
class EncoderConfig:
    """Names as in StabConfig where they mean the same."""

    name: str = "vit_small_dinov2"  # a registered backbone that reads images
    config: dict[str, Any] = field(default_factory=dict)  # of the backbone
    layer: int | None = None  # whose features are taken, None = the last, normed
    llm_width: int = 4096
    image_size: int = 448
    num_frames: int = 8
    pool: int = 2
    row_token: bool = True
    clip_token: bool = False  # it knows of no other frame
    frame_token: bool = True
    mean: tuple[float, ...] = ()  # the backbone's
    std: tuple[float, ...] = ()


class FrozenEncoder(nn.Module):
    """Clips to tokens for a language model, as `Stab` gives them; the encoder stays as it is."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = create_model(config.name, **config.config).requires_grad_(False)
        own = self.encoder.config
        self.config = replace(config, mean=tuple(own.mean), std=tuple(own.std))
        if config.image_size % self.stride:
            raise ValueError(
                f"frames of {config.image_size} pixels cannot be cut into tokens of {self.stride}; set "
                f"stab.image_size to a multiple of {self.stride}"
            )
        self.projector = nn.Linear(self.encoder.feature_dim, config.llm_width)
        self.row_token = nn.Parameter(torch.randn(self.encoder.feature_dim)) if config.row_token else None

    @property
    def feature_dim(self) -> int:
        return self.config.llm_width

    @property
    def stride(self) -> int:
        """Pixels between two tokens."""
        return self.encoder.stride * self.config.pool

    def train(self, mode: bool = True) -> FrozenEncoder:
        """The encoder draws no dropout and keeps its statistics."""
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, clips: Tensor, valid: Tensor | None = None) -> list[VisualTokens]:
        """Tokens of every frame of every clip (B, 3, T, S, S), normalised; frames that are all margin have
        none. valid: (B, T, S, S), zero where a pixel is margin."""
        num_frames, rows, columns = clips.shape[2], *(side // self.stride for side in clips.shape[-2:])
        maps, context = self.features(clips.transpose(1, 2).flatten(0, 1), rows, columns)
        cells = maps.new_ones(maps.shape[:3])
        if valid is not None:
            cells = F.max_pool2d(valid.flatten(0, 1).float(), self.stride)
        frames, grids = [], []
        for features, first, box in zip(maps, context, boxes_of(cells > 0, "box"), strict=True):
            if box is None:
                frames.append(maps.new_zeros(0, self.config.llm_width))
                grids.append((0, 0))
                continue
            grid = features[box.top : box.top + box.rows, box.left : box.left + box.columns]
            if self.row_token is not None:
                ends = self.row_token.to(grid).expand(box.rows, 1, -1)
                grid = torch.cat([grid, ends], dim=1)
            frames.append(self.projector(torch.cat([first[None], grid.flatten(0, 1)])))
            grids.append(box.size)
        return [
            VisualTokens(tuple(frames[i : i + num_frames]), tuple(grids[i : i + num_frames]))
            for i in range(0, len(frames), num_frames)
        ]

    @torch.no_grad()
    def features(self, images: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Images (F, 3, S, S) -> (F, h, w, D) and, in front of each frame, (F, D); normed."""
        tokens = self.encoder.forward_features(images, self.config.layer)
        tokens = F.layer_norm(tokens, tokens.shape[-1:])  # blocks below the last are of any scale
        prefix = self.encoder.num_prefix_tokens
        fine = tokens[:, prefix:].unflatten(1, (rows * self.config.pool, columns * self.config.pool))
        maps = F.avg_pool2d(fine.permute(0, 3, 1, 2), self.config.pool).permute(0, 2, 3, 1)
        return maps, tokens[:, 0] if prefix else maps.mean((1, 2))
