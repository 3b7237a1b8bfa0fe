"""Saved models: a folder that any machine loads, complete or not at all.

A saved model is a folder: `model.safetensors`, `config.json` (name, config, card), `README.md`.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

import framecast
from framecast.registry import create_model
from framecast.structures import Provenance
from framecast.weight_files import (
    compare,
    find_folder,
    package_file,
    read_safetensors,
)
from framecast.weights import shipped_models

__all__ = ["ModelCard", "card_of", "load", "model_folder", "package_file", "read_about", "save"]

SAVED_FILES = {"config.json", "model.safetensors", "README.md", "tokenizer"}


@dataclass
class ModelCard:
    """What a saved model knows beside its weights."""

    task: str = ""  # "segmentation", "recognition", …; empty for a bare backbone
    classes: tuple[str, ...] = ()
    features: Provenance | None = None  # how the features were made that the model was trained on
    sample_rate: int = 1  # every n-th feature vector is read
    protocol: str = ""  # recognition: how an input is looked at
    frames: int | None = None  # recognition: of a clip, None = images
    channels: str = "rgb"  # recognition: order in which the model reads them
    source: str = ""  # file or recipe that the weights come from
    licence: str = ""
    notes: dict[str, Any] = field(default_factory=dict)  # scores, protocol, import report, …

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelCard:
        """Rebuild from `to_json`; unknown fields, of a later version, are left out."""
        known = {f.name for f in fields(cls)}
        card = cls(**{k: v for k, v in values.items() if k in known})
        card.classes = tuple(card.classes)
        if isinstance(card.features, dict):
            card.features = Provenance.from_json(card.features)
        return card


def card_of(model: nn.Module) -> ModelCard:
    """The card that a model carries since it was loaded or imported; an empty one for a new model."""
    card = getattr(model, "card", None)
    return card if isinstance(card, ModelCard) else ModelCard()


# Saving and loading our own models ------------------------------------------------------------------


def save(model: nn.Module, folder: str | Path, card: ModelCard | None = None) -> Path:
    """Write a registered model into a folder that `load` reads; an older saved model there is replaced.

    The folder appears complete or not at all. Raises FileExistsError where the folder holds anything else,
    OSError where the disk does not take the model; what was there before then stays.
    """
    folder = Path(os.path.abspath(folder))
    name = getattr(model, "registered_name", None)
    if name is None:
        raise ValueError(
            f"{type(model).__name__} was not made by create_model, load or import_checkpoint; "
            "only those can be saved"
        )
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        try:
            _write_model(model, name, card or card_of(model), new)
        except SafetensorError as error:  # its writer reports a full disk in its own words
            raise OSError(errno.EIO, f"cannot write {folder} ({error})") from None
        except OSError as error:
            raise OSError(error.errno, f"cannot write {folder} ({error.strerror or error})") from None
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
    return folder


def check_replaceable(folder: Path) -> None:
    """FileExistsError where anything but a saved model or an empty folder would be overwritten."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose a folder for the model")
    foreign = sorted({path.name for path in folder.iterdir()} - SAVED_FILES)
    if foreign:
        raise FileExistsError(
            f"{folder} holds {foreign[0]}, which is no part of a saved model; choose an empty folder"
        )
    if (folder / "config.json").exists():
        try:
            read_about(folder)
        except ValueError:
            raise FileExistsError(f"{folder} holds another program's model; choose an empty folder") from None


def _write_model(model: nn.Module, name: str, card: ModelCard, folder: Path) -> None:
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    about = {"framecast": framecast.__version__, **_how_to_build(model, name), "card": card.to_json()}
    (folder / "config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(_readme(name, model, card), encoding="utf-8")
    if (write := getattr(model, "write_files", None)) is not None:  # what is no tensor: a tokenizer
        write(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _how_to_build(model: Any, name: str) -> dict[str, Any]:
    """Name and config for `create_model`; of a model that was made adaptive those of its host, and how."""
    host_name = getattr(getattr(model, "host", None), "registered_name", None)
    if host_name is None:
        return {"model": name, "config": asdict(model.config)}
    sampling = model.config.sampling()
    return {"model": host_name, "config": asdict(model.host.config), "adaptive": sampling}


def _build(about: dict[str, Any]) -> Any:
    from framecast.backbones.adaptive import adaptive

    model = create_model(about["model"], **about["config"])
    return adaptive(model, **about["adaptive"]) if "adaptive" in about else model


def _readme(name: str, model: nn.Module, card: ModelCard) -> str:
    rows = {
        "model": name,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "task": card.task or "features",
        "classes": f"{len(card.classes)}",
        "features": card.features.backbone if card.features else "not recorded",
        "source": card.source or "not recorded",
        "licence of the weights": card.licence or "not recorded",
    }
    if dial := card.notes.get("calibration", {}).get("dial"):
        rows["tokens are sampled"] = dial
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        f"---\nlibrary_name: framecast\n---\n# {name}\n\n| | |\n|---|---|\n{table}\n\n"
        '```python\nimport framecast as fc\n\nmodel = fc.load("this folder or hub id")\n```\n'
    )


def load(path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """Load a saved model folder, the model of a run folder, a shipped model or a hub id, in eval mode.

    The model carries its `ModelCard` as `model.card`. Raises FileNotFoundError where there is no model,
    ValueError where its files are damaged or do not belong together.
    """
    folder = model_folder(path)
    about = read_about(folder)
    try:
        model = _build(about)
        model.card = ModelCard.from_json(about.get("card", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    weights = folder / "model.safetensors"
    state = read_safetensors(weights)
    fit = compare(state, model.state_dict())
    if not fit.complete:
        raise ValueError(f"{weights} does not fit {about['model']}: {fit.problems()}")
    model.load_state_dict(state)
    if (read := getattr(model, "read_files", None)) is not None:
        read(folder)
    return model.to(device).eval()


def model_folder(path: str | Path) -> Path:
    """The folder of the saved model itself, for a saved model, a run folder, a shipped model or a hub id."""
    folder = find_folder(path)
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            if not (candidate / "model.safetensors").is_file():
                raise FileNotFoundError(
                    f"{candidate} has config.json but no model.safetensors; the copy is incomplete"
                )
            return candidate
    if folder.exists():
        raise FileNotFoundError(
            f"{folder} is neither a saved model (config.json + model.safetensors) nor a run folder with "
            "model/ in it"
        )
    raise FileNotFoundError(
        f"{path} does not exist; pass a run folder, a saved model folder, a hub id owner/name, or one of the "
        f"models that ship with framecast: {', '.join(shipped_models())}"
    )


def read_about(folder: Path) -> dict[str, Any]:
    """The `config.json` of a saved model: model name, config and card."""
    path = folder / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        about = None
    if not (
        isinstance(about, dict)
        and isinstance(about.get("model"), str)
        and isinstance(about.get("config"), dict)
        and isinstance(about.get("card", {}), dict)
    ):
        raise ValueError(f"{path} is not the config of a saved framecast model; save the model again")
    return about
