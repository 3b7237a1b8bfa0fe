"""Images as a model reads them, from files and folders: what the dial is turned on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framecast.backbones.adaptive_model import AdaptiveModel
from framecast.backbones.adaptive_vit import is_timm
from framecast.checkpoints import card_of
from framecast.data.files import find_files
from framecast.data.images import IMAGE_SUFFIXES
from framecast.data.recognition_samples import load_views
from framecast.data.video import SUFFIXES
from framecast.metrics.view_protocols import ViewProtocol, default_view_protocol, get_view_protocol
from framecast.recipes.build import open_recognition_data, view_protocol
from framecast.tasks.recognition import views_of
from framecast.train.config import load_recipe
from framecast.train.recognition_recipe import RecognitionDataSettings, RecognitionRecipe


def calibration_pixels(
    model: AdaptiveModel, source: Tensor | str | Path | Sequence[str | Path], limit: int
) -> Tensor:
    """(N, 3, H, W) or (N, 3, T, H, W), normalised; of files `limit`, evenly spread over all that are there.

    Of several views of a file the one in the middle is taken; a clip becomes its frames for an image model.
    """
    if isinstance(source, Tensor):
        pixels = source
        if pixels.ndim not in (4, 5) or pixels.shape[1] != 3 or not len(pixels):
            shape = tuple(pixels.shape)
            raise ValueError(f"images have the shape {shape}; (N, 3, H, W) or (N, 3, T, H, W) is expected")
        if not pixels.is_floating_point():
            raise ValueError(f"images are {pixels.dtype}; normalise them for the model, or pass files")
        return frames_apart(model, pixels)
    if limit < 1:
        raise ValueError(f"limit is {limit}; at least one image is needed")
    rule, looks = how_to_look(model)
    suffixes = IMAGE_SUFFIXES if rule.kind == "image" else SUFFIXES
    sources = [source] if isinstance(source, (str, Path)) else source
    found = [path for one in sources for path in find_files(one, suffixes, f"{rule.kind}s")]
    paths = list(dict.fromkeys(found))
    if not paths:
        raise ValueError(f"no {rule.kind}s are given to calibrate on; pass a folder of them")
    middle = rule.clips // 2 * rule.crops + rule.crops // 2
    chosen = [paths[i] for i in evenly(len(paths), limit)]
    return frames_apart(model, torch.stack([load_views(p, rule, **looks)[middle] for p in chosen]))


def run_pixels(model: Any, run: str | Path, data: str | Path | None, limit: int) -> Tensor:
    """The same of the training side of a run's own data, or of other data; labels are not used."""
    recipe = load_recipe(run) if (Path(run) / "config.yaml").is_file() else None
    if not isinstance(recipe, RecognitionRecipe) and data is None:
        raise ValueError(f"{run} has no recipe that names images; pass --images FOLDER with your own")
    settings = recipe.data if isinstance(recipe, RecognitionRecipe) else RecognitionDataSettings(root="")
    if data is not None:
        settings = settings.model_copy(update={"root": str(data)})
    opened = open_recognition_data(settings, "train")
    card, config = card_of(model), model.config
    rule = view_protocol(card.protocol, opened.kind)
    views = views_of(opened, config, rule, card.frames, channels=card.channels)
    middle = rule.clips // 2 * rule.crops + rule.crops // 2
    return torch.stack([views[i]["pixels"][middle] for i in evenly(len(views), limit)])


def evenly(number: int, limit: int) -> list[int]:
    """At most `limit` of so many, evenly spread."""
    count = min(limit, number)
    return [number * (2 * i + 1) // (2 * count) for i in range(count)]


def how_to_look(model: AdaptiveModel) -> tuple[ViewProtocol, dict[str, Any]]:
    """View protocol and the other arguments of `load_views`."""
    if is_timm(model.host):
        known = model.host.pretrained_cfg
        smooth = known["interpolation"] if known["interpolation"] in ("bicubic", "bilinear") else "bicubic"
        ratio = min(known["crop_pct"] or 1.0, 1.0)
        rule = ViewProtocol("timm", "image", crop_ratio=ratio, interpolation=smooth)
        size = model.host.patch_embed.img_size or known["input_size"][1:]
        return rule, {"image_size": tuple(size), "mean": known["mean"], "std": known["std"]}
    config, card = model.config, card_of(model)
    frames = card.frames if card.task else getattr(config, "num_frames", None)
    rule = (
        get_view_protocol(card.protocol)
        if card.protocol
        else default_view_protocol("image" if frames is None else "video")
    )
    looks = {"image_size": config.image_size, "mean": config.mean, "std": config.std}
    return rule, looks | {"num_frames": frames, "channels": card.channels}


def frames_apart(model: AdaptiveModel, pixels: Tensor) -> Tensor:
    """Of clips for an image model the frames, (N, 3, T, H, W) -> (N T, 3, H, W); else as they are."""
    reads_clips = getattr(model.config, "num_frames", None) is not None
    return pixels if pixels.ndim == 4 or reads_clips else pixels.transpose(1, 2).flatten(0, 1)
