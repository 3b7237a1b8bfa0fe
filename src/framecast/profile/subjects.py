"""What is profiled: a registered model or a trained run, with the size of its input.

Sizes are one to three numbers: `224` and `224x320` images (height x width), `8x224` and `8x224x320` clips
(frames first), `2048x5000` and `5000` features (channels x frames).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framecast.backbones.adaptive import adaptive
from framecast.checkpoints import load, model_folder, read_about
from framecast.registry import create_model, did_you_mean, entries

DEFAULT_FRAMES = 5000  # of a feature sequence, where no size is given


@dataclass(frozen=True)
class Subject:
    """A model that can be built on any device, and the shape of one input."""

    name: str  # in tables
    model: str  # registered name
    config: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()  # (3, H, W), (3, T, H, W) or (C, T), without the batch
    folder: str = ""  # saved model whose weights are taken, "" = random ones
    adaptive: dict[str, Any] | None = None  # how it samples tokens, where it was made to

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Subject:
        return replace(cls(**values), shape=tuple(values["shape"]))

    @property
    def samples(self) -> bool:
        """Whether the model leaves tokens out."""
        return self.adaptive is not None or "ats" in entries("model")[self.model].tags

    @property
    def input_text(self) -> str:
        """For example "224x224", "8x224x224" or "2048x5000"."""
        return "x".join(map(str, self.shape if len(self.shape) == 2 else self.shape[1:]))

    def build(self, device: str) -> nn.Module:
        """The model in eval mode; on "meta" only its shapes."""
        if self.folder and device != "meta":
            return load(self.folder, device)
        with torch.device(device):
            model = create_model(self.model, **self.config).eval()
            return model if self.adaptive is None else adaptive(model, **self.adaptive)

    def random_input(self, batch: int, device: str) -> Tensor:
        if device == "meta":
            return torch.empty(batch, *self.shape, device="meta")
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(0)).to(device)


def find_subject(name: str, size: str | None = None) -> Subject:
    """The subject of a registered name, a run folder or a saved model folder.

    size: of the input, None = the model's own. Raises ValueError where nothing is called so or the model
    cannot read inputs of that size.
    """
    numbers = None if size is None else read_size(size)
    if name in entries("model"):
        return _registered(name, numbers)
    path = Path(name)
    if not path.exists():
        near = did_you_mean(name, entries("model"))
        raise ValueError(
            f"nothing is called {name!r}{near}; name a registered model (`framecast list`) or a run folder"
        )
    folder = model_folder(_member(path))
    about = read_about(folder)
    model, config = about["model"], about["config"]
    known = Subject(name, model, config, folder=str(folder), adaptive=about.get("adaptive"))
    shape, changes = input_shape(model, known.build("meta"), numbers)
    if "feature_dim" in changes:
        read = config.get("feature_dim")
        raise ValueError(f"{name} reads features of {read} channels, not {shape[0]}; give {read}x{shape[1]}")
    return replace(known, shape=shape)


def _registered(name: str, numbers: tuple[int, ...] | None) -> Subject:
    shape, changes = input_shape(name, Subject(name, name).build("meta"), numbers)
    return Subject(name, name, changes, shape)


def _member(path: Path) -> Path:
    """The first trained run of a study over splits and seeds, or the folder itself."""
    if (path / "model").exists() or not (path / "summary.json").is_file():
        return path
    return next((p.parent for p in sorted(path.glob("*/model"))), path)


def read_size(text: str) -> tuple[int, ...]:
    """ "8x224" -> (8, 224)."""
    if not re.fullmatch(r"[1-9]\d{0,8}([xX×][1-9]\d{0,8}){0,2}", text):
        raise ValueError(
            f"--input {text!r} is no size; write 224 or 224x320 for images, 8x224 for clips, "
            "2048x5000 for features (channels x frames)"
        )
    return tuple(int(number) for number in re.split("[xX×]", text))


def input_shape(
    name: str, model: nn.Module, numbers: tuple[int, ...] | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of one input, and the settings in which the model must differ to read it."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "feature_dim"):
        shape = _feature_shape(name, config.feature_dim, numbers)
        return shape, {} if shape[0] == config.feature_dim else {"feature_dim": shape[0]}
    if not hasattr(config, "image_size"):
        raise ValueError(f"{name} does not say what it reads (config.feature_dim or config.image_size)")
    own_frames: int | None = getattr(config, "num_frames", None)
    reads_clips = hasattr(config, "num_frames")
    reads_images = not reads_clips or "image" in entries("model")[name].tags
    frames, size = _pixel_size(name, numbers, reads_clips=reads_clips)
    size = size or _pair(config.image_size)
    if numbers is None or (frames is None and not reads_images):
        frames = own_frames
    changes: dict[str, Any] = {}
    if size != _pair(config.image_size):
        changes["image_size"] = size[0] if size[0] == size[1] else size
    if frames != own_frames:
        changes["num_frames"] = frames
    return (3, *size) if frames is None else (3, frames, *size), changes


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def _pixel_size(
    name: str, numbers: tuple[int, ...] | None, *, reads_clips: bool
) -> tuple[int | None, tuple[int, int] | None]:
    """(frames, (height, width)) of a size in numbers; None for what they leave open."""
    if numbers is None:
        return None, None
    if len(numbers) == 1:
        return None, (numbers[0], numbers[0])
    if reads_clips:
        return numbers[0], (numbers[1], numbers[-1])
    if len(numbers) == 2:
        return None, (numbers[0], numbers[1])
    text = "x".join(map(str, numbers))
    raise ValueError(f"{name} reads images, and {text} is the size of a clip; write 224 or 224x320")


def _feature_shape(name: str, channels: int, numbers: tuple[int, ...] | None) -> tuple[int, int]:
    match numbers:
        case None:
            return channels, DEFAULT_FRAMES
        case (frames,):
            return channels, frames
        case (channels, frames):
            return channels, frames
    text = "x".join(map(str, numbers))
    raise ValueError(f"{name} reads features, and {text} is no size of them; write 2048x5000")
