"""A task that trains in milliseconds: label each of 8 vectors, with dropout and random augmentation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framecast.train.recipe import ModelSettings
from framecast.train.segmentation_recipe import SegmentationDataSettings, SegmentationRecipe


class TinyData:
    def __init__(self, num_samples: int, *, augment: bool = False) -> None:
        rng = np.random.default_rng(7)
        self.features = rng.normal(size=(num_samples, 6))
        self.labels = (self.features @ np.random.default_rng(8).normal(size=(6, 3))).argmax(1)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        features = self.features[index]
        if self.augment:
            features = features * (1 + 0.1 * random.random()) + 0.1 * np.random.normal(size=6)  # noqa: NPY002
        return {"video": f"v{index}", "features": features, "labels": self.labels[index]}


class TinyModel(nn.Module):
    def __init__(self, dropout: float, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.norm: nn.Module = nn.BatchNorm1d(16) if batch_norm else nn.Identity()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        for block in self.blocks:
            x = x + self.dropout(block(x))
        return self.head(x)


class TinyTask:
    def __init__(
        self,
        num_samples: int = 10,
        *,
        dropout: float = 0.2,
        augment: bool = True,
        batch_norm: bool = False,
        bad_video: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.train_data = TinyData(num_samples, augment=augment)
        self.eval_data: TinyData | None = TinyData(13)
        if bad_video is not None:
            self.train_data.features[bad_video] = np.nan
        self.dropout, self.batch_norm, self.dtype = dropout, batch_norm, dtype

    def build_model(self) -> TinyModel:
        return TinyModel(self.dropout, batch_norm=self.batch_norm).to(self.dtype)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "video": [s["video"] for s in samples],
            "features": torch.tensor(np.stack([s["features"] for s in samples]), dtype=self.dtype),
            "labels": torch.tensor([s["labels"] for s in samples]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        logits = model(batch["features"])
        loss = nn.functional.cross_entropy(logits, batch["labels"])
        return loss, {"accuracy": (logits.argmax(1) == batch["labels"]).double().mean().item()}

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """One sample at a time, dealt out over the processes: not all have equally many."""
        assert self.eval_data is not None
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        sums = torch.zeros(3, dtype=torch.float64)
        for i in range(rank, len(self.eval_data), size):
            batch = self.collate([self.eval_data[i]])
            logits = model(batch["features"].to(device)).cpu()
            loss = nn.functional.cross_entropy(logits, batch["labels"])
            sums += torch.tensor([logits.argmax(1).item() == batch["labels"].item(), loss.item(), 1])
        if size > 1:
            dist.all_reduce(sums)
        return {"accuracy": (sums[0] / sums[2]).item(), "loss": (sums[1] / sums[2]).item()}

    def card(self) -> dict[str, Any]:
        return {"task": "tiny", "classes": ["a", "b", "c"]}


def tiny_recipe(**changes: Any) -> SegmentationRecipe:
    """3 steps per epoch of 10 samples: batches of 4, 4 and 2."""
    values: dict[str, Any] = {
        "name": "tiny",
        "model": ModelSettings(name="tiny"),
        "data": SegmentationDataSettings(root="none"),
        "epochs": 3,
        "batch_size": 4,
        "optim": {"lr": 0.01, "weight_decay": 0.01},
        "log_every": 1,
    }
    return SegmentationRecipe.model_validate(values | changes)


def save_tiny(model: nn.Module, folder: Path, card: dict[str, Any]) -> None:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")
