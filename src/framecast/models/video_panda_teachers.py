"""Teachers from Hugging Face: the vision part of CLIP, SigLIP, DINOv2 and their like, read from a folder.

A teacher gives `forward_features(images, layer) -> (F, P + N, D)` like the backbones of this package, has
`stride`, `feature_dim` and `num_prefix_tokens`, and a config with `mean` and `std`. Weights are read from
safetensors and no code of the folder is run (extra `qa`).
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from framecast.backbones.stab import CLIP_MEAN, CLIP_STD
from framecast.models.language_models import transformers


class Pixels(NamedTuple):
    """How a teacher's pixels are normalised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class VisionTeacher(nn.Module):
    """A frozen vision transformer of the library; images may have any size of whole patches."""

    def __init__(self, model: Any, pixels: Pixels) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.config = pixels
        self.stride = int(model.config.patch_size)
        self.feature_dim = int(model.config.hidden_size)
        takes = inspect.signature(model.forward).parameters
        self.any_size = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        side = self.stride * 4
        if not self.any_size and isinstance(model.config.image_size, int):
            side = model.config.image_size
        with torch.no_grad():
            found = self.forward_features(torch.zeros(1, 3, side, side))
        self.num_prefix_tokens = found.shape[1] - (side // self.stride) ** 2

    def forward_features(self, images: Tensor, layer: int | None = None) -> Tensor:
        """Tokens (F, P + N, D): as the model gives them, or as block `layer` (0-based) leaves them."""
        out = self.model(pixel_values=images, output_hidden_states=layer is not None, **self.any_size)
        if layer is None:
            return out.last_hidden_state
        blocks = out.hidden_states[1:]
        if not 0 <= layer < len(blocks):
            raise ValueError(f"layer {layer} asked of a teacher with blocks 0..{len(blocks) - 1}")
        return blocks[layer]


def is_transformers_folder(path: str | Path) -> bool:
    """Whether the folder holds a model of the library and none of ours."""
    about = Path(path) / "config.json"
    if not about.is_file():
        return False
    try:
        return "model_type" in json.loads(about.read_text(encoding="utf-8"))
    except ValueError:
        return False


def read_vision_teacher(folder: str | Path) -> VisionTeacher:
    """A vision model of the library, or the vision half of one that reads texts, too.

    Its pixels are normalised as `preprocessor_config.json` says, or as CLIP's. Raises ValueError where the
    folder holds no vision transformer.
    """
    folder = Path(folder)
    try:
        model: Any = transformers().AutoModel.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{folder} cannot be read as a teacher: {lines[0]}") from None
    model = getattr(model, "vision_model", model)
    if not hasattr(model.config, "patch_size") or not hasattr(model.config, "hidden_size"):
        raise ValueError(f"{folder} holds {type(model).__name__}, which has no patches to be a teacher of")
    return VisionTeacher(model, _pixels(folder / "preprocessor_config.json"))


def _pixels(path: Path) -> Pixels:
    if not path.is_file():
        return Pixels(CLIP_MEAN, CLIP_STD)
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        return Pixels(tuple(stated["image_mean"]), tuple(stated["image_std"]))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} does not say image_mean and image_std; put them there") from None
