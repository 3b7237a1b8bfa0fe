"""Saved models, and official weights brought into ours with every tensor accounted for.

A saved model is a folder: `model.safetensors`, `config.json` (name, config, card), `README.md`.
Foreign files are never executed: pickles are read with `weights_only=True`, arrays without pickle.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import framecast
from framecast.official import OfficialLayout
from framecast.registry import create_model, did_you_mean, entries
from framecast.structures import Provenance


@dataclass
class ModelCard:
    """What a saved model knows beside its weights."""

    task: str = ""  # "segmentation", …; empty for a bare backbone
    classes: tuple[str, ...] = ()
    features: Provenance | None = None  # how the features were made that the model was trained on
    sample_rate: int = 1  # every n-th feature vector is read
    source: str = ""  # file or recipe that the weights come from
    licence: str = ""
    notes: dict[str, Any] = field(default_factory=dict)  # scores, protocol, import report, …

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelCard:
        known = {f.name for f in fields(cls)}
        card = cls(**{k: v for k, v in values.items() if k in known})
        card.classes = tuple(card.classes)
        if isinstance(card.features, dict):
            card.features = Provenance.from_json(card.features)
        return card


@dataclass
class ImportReport:
    """Where every tensor of an official checkpoint went."""

    system: str
    layout: str
    source: str
    sha256: str
    licence: str
    matched: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # release key -> reason
    missing: list[str] = field(default_factory=list)  # ours, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not ours
    mismatched: list[str] = field(default_factory=list)  # other shape

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [
            f"{self.system} weights in the layout of {self.layout}, licence: {self.licence}",
            f"{len(self.matched)} tensors matched, {len(self.resampled)} of them resampled, "
            f"{len(self.ignored)} ignored by rule, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape",
        ]
        lines += [f"  ignored {key}: {why}" for key, why in self.ignored.items()]
        for title in ("resampled", "missing", "unexpected", "mismatched"):
            names = getattr(self, title)
            lines += [f"  {title}: {name}" for name in names[:8]]
            lines += [f"  … and {len(names) - 8} more {title}"] if len(names) > 8 else []
        return "\n".join(lines)


# Saving and loading our own models ------------------------------------------------------------------


def save(model: nn.Module, folder: str | Path, card: ModelCard | None = None) -> Path:
    """Write a registered model into a folder that `load` reads; an older saved model there is replaced.

    The folder appears complete or not at all. Raises FileExistsError when the folder holds other things.
    """
    folder = Path(folder)
    card = card or getattr(model, "card", None) or ModelCard()
    name = getattr(model, "registered_name", None)
    if name is None:
        raise ValueError(
            f"{type(model).__name__} was not made by create_model, load or import_checkpoint; only those can be saved"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds files that are not a saved model; choose an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        state = {k: t.detach().cpu().contiguous() for k, t in model.state_dict().items()}
        save_file(state, new / "model.safetensors", metadata={"format": "pt"})
        about = {"framecast": framecast.__version__, "model": name, "config": asdict(model.config)}  # ty: ignore
        _write(new / "config.json", json.dumps(about | {"card": card.to_json()}, indent=2))
        _write(new / "README.md", _readme(name, model, card))
        new.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old / "model")
            os.replace(new, folder)
            shutil.rmtree(old)
        else:
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


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
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        f"---\nlibrary_name: framecast\n---\n# {name}\n\n| | |\n|---|---|\n{table}\n\n"
        "```python\nimport framecast as fc\n\nmodel = fc.load(\"this folder or hub id\")\n```\n"
    )


def load(path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """Load a saved model folder, the model of a run folder, or a hub id ("owner/name"), in eval mode.

    The model carries its `ModelCard` as `model.card`.
    """
    folder = _model_folder(path)
    about = read_about(folder)
    model = create_model(about["model"], **_tuples(about["config"]))
    weights = folder / "model.safetensors"
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} cannot be read as safetensors ({error}); save the model again") from None
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"{weights} does not fit {about['model']}: missing {missing[:4]}, unexpected {unexpected[:4]}")
    model.card = ModelCard.from_json(about.get("card", {}))
    return model.to(device).eval()


def read_about(folder: Path) -> dict[str, Any]:
    """The `config.json` of a saved model: model name, config and card."""
    path = folder / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(about["model"], str) and isinstance(about["config"], dict)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, AssertionError, TypeError):
        raise ValueError(f"{path} is not the config of a saved framecast model; save the model again") from None
    return about


def _model_folder(path: str | Path) -> Path:
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            if not (candidate / "model.safetensors").is_file():
                raise FileNotFoundError(f"{candidate} has config.json but no model.safetensors; the copy is incomplete")
            return candidate
    if folder.exists():
        raise FileNotFoundError(
            f"{folder} is neither a saved model (config.json + model.safetensors) nor a run folder with model/ in it"
        )
    if str(path).count("/") == 1 and not str(path).startswith((".", "/")):
        from huggingface_hub import snapshot_download

        wanted = ["config.json", "model.safetensors", "README.md"]
        try:
            return Path(snapshot_download(str(path), allow_patterns=wanted))
        except Exception as error:  # the hub raises many kinds; all mean the same to the user
            raise FileNotFoundError(
                f"{path} is neither a folder here nor a model that the hub gives ({type(error).__name__})"
            ) from None
    raise FileNotFoundError(f"{path} does not exist; pass a run folder, a saved model folder or a hub id owner/name")


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


# Official checkpoints -------------------------------------------------------------------------------


def import_checkpoint(system: str, source: str | Path | dict[str, Tensor], **config: Any) -> nn.Module:
    """Build a model from an official checkpoint; the model carries the `ImportReport` as `import_report`.

    system: "ltcontext", "mstcn", "vit", … source: a file (safetensors, pickle of tensors, ONNX), a
    "package:name/path" inside an installed package, or a state dict. config: fields of our config that
    the file cannot tell, for example `window=64`. Missing, unexpected or misshapen tensors raise ValueError.
    """
    state, settings, name, sha256 = _open_source(source)
    layout = _layout_of(system, state, name)
    model, report = _translate(layout, state, settings, config)
    report.system, report.source, report.sha256 = system, name, sha256
    if not report.complete:
        raise ValueError(f"{name} does not fit {layout.model}:\n{report}")
    model.import_report = report
    model.card = ModelCard(source=f"{name} (sha256 {sha256[:16]})", licence=layout.licence)
    return model.eval()


def systems() -> dict[str, str]:
    """Systems whose official checkpoints can be imported, with the module that knows their layout."""
    return {entry.system: entry.module for entry in entries("model").values() if entry.system}


def _layout_of(system: str, state: dict[str, Tensor], name: str) -> OfficialLayout:
    known = systems()
    if system not in known:
        raise ValueError(
            f"no official checkpoints are known for {system!r}{did_you_mean(system, known)}; known: {', '.join(known)}"
        )
    layouts = importlib.import_module(known[system]).OFFICIAL
    for layout in layouts:
        if layout.applies(state):
            return layout
    shown = ", ".join(sorted(state)[:3])
    raise ValueError(
        f"{name} is not a {system} checkpoint: its tensors are named {shown}, … and none of the known layouts "
        f"({', '.join(layout.name for layout in layouts)}) has such names"
    )


def _translate(
    layout: OfficialLayout, state: dict[str, Tensor], settings: dict[str, Any], config: dict[str, Any]
) -> tuple[nn.Module, ImportReport]:
    report = ImportReport("", layout.name, "", "", layout.licence)
    state = layout.prepare(dict(state))
    try:
        resolved = layout.read_config(state, settings) | config
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"tensors that tell the model's size are missing or misshapen ({error})") from None
    model = create_model(layout.model, **resolved)
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        reason = layout.reason_to_ignore(key)
        translated = layout.translate(key)
        if reason is not None:
            report.ignored[key] = reason
        elif translated is None:
            report.unexpected.append(key)
        else:
            ours[translated] = tensor
    if layout.resample is not None:
        report.resampled = layout.resample(ours, asdict(model.config))  # ty: ignore
    wanted = model.state_dict()
    for key, tensor in wanted.items():
        if key not in ours:
            report.missing.append(key)
        elif tuple(ours[key].shape) != tuple(tensor.shape):
            report.mismatched.append(f"{key}: {tuple(ours[key].shape)} in the file, {tuple(tensor.shape)} in the model")
        else:
            report.matched.append(key)
    report.unexpected += [key for key in ours if key not in wanted]
    if report.complete:
        model.load_state_dict({key: ours[key] for key in wanted})
    return model, report


# Reading foreign files ------------------------------------------------------------------------------


def _open_source(source: str | Path | dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any], str, str]:
    """State dict, settings stored beside it, a name for messages, sha256 of the file."""
    if isinstance(source, dict):
        return source, {}, "state dict", ""
    path = package_file(str(source)) if str(source).startswith("package:") else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; pass a checkpoint file")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}, str(source), sha256
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as safetensors ({error})") from None
    if path.suffix == ".onnx":
        from framecast.onnx_weights import read_onnx_weights

        return read_onnx_weights(path), {}, str(source), sha256
    state, settings = _unwrap(_read_pickle(path), path)
    return state, settings, str(source), sha256


def package_file(address: str) -> Path:
    """The path of "package:name/inner/path", a file that an installed package ships; nothing is imported."""
    package, _, inner = address.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{address}: no installed package {package!r}; install it with pip first")
    home = Path(spec.submodule_search_locations[0]).resolve()
    path = (home / inner).resolve()
    if not path.is_relative_to(home):
        raise ValueError(f"{address} points outside the package")
    return path


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:160]
        raise ValueError(
            f"{path} cannot be read as a checkpoint of plain tensors ({reason}); "
            "files with other objects are refused, since reading them would run their code"
        ) from None


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Find the state dict inside the usual containers, drop the prefixes of wrappers, read embedded settings."""
    settings: dict[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("cfg"), str):
        import yaml

        settings = yaml.safe_load(content["cfg"]) or {}
    for name in ("model_state", "model", "state_dict", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path} holds no state dict (a table of named tensors)")
    state = dict(content)
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state, settings
