"""Weights made elsewhere: found in files, installed packages and on the hub, and read without running them.

Pickles are read with `weights_only=True`, which builds tensors and plain containers and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from framecast.weights import shipped_folder

SUFFIXES = (".safetensors", ".onnx", ".pt", ".pth", ".pyth", ".ckpt", ".bin", ".npz")
# where releases put their state dict
CONTAINERS = ("model_state", "model", "module", "state_dict", "teacher")
SHOWN = 4  # names of tensors in a message
WRAPPERS = ("module.", "_orig_mod.")  # prefixes of DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class ForeignWeights:
    """Named tensors of a release, and what is known of where they come from."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)  # that the release stores beside the tensors
    name: str = "state dict"  # for messages
    sha256: str = ""  # of the file


def read_weights(source: str | Path | dict[str, Tensor]) -> ForeignWeights:
    """Named tensors of a file (safetensors, ONNX, npz, pickle), "package:name/path", hub id or state dict.

    Raises FileNotFoundError where there is no such file, ValueError where it holds anything but tensors.
    """
    if isinstance(source, dict):
        return ForeignWeights(source)
    path = locate(source)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        return ForeignWeights(read_safetensors(path), {}, str(source), sha256)
    if path.suffix == ".onnx":
        from framecast.onnx_weights import read_onnx_weights

        return ForeignWeights(read_onnx_weights(path), {}, str(source), sha256)
    if path.suffix == ".npz":
        return ForeignWeights(_read_npz(path), {}, str(source), sha256)
    content = _read_pickle(path)
    return ForeignWeights(_state_dict(content, path), _settings(content, path), str(source), sha256)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); copy it again") from None


def _read_npz(path: Path) -> dict[str, Tensor]:
    """NumPy archives, as the JAX releases are; NumPy knows no bfloat16 and keeps it as two raw bytes."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        return {
            key: torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
            if array.dtype == np.dtype("V2")
            else torch.from_numpy(array)
            for key, array in arrays.items()
        }
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        raise ValueError(f"{path} cannot be read as an archive of plain arrays ({reason})") from None


# Finding ----------------------------------------------------------------------------------------------


def locate(source: str | Path) -> Path:
    """The file that a path, a "package:name/path" or a hub id stands for."""
    text = str(source)
    path = package_file(text) if text.startswith("package:") else Path(source)
    if not path.exists() and is_hub_id(text):
        path = hub_folder(text) / "model.safetensors"
    if path.is_dir():
        raise ValueError(f"{source} is a folder; pass the file of the weights in it")
    if not path.is_file():
        raise FileNotFoundError(f"{source} does not exist; pass a file of weights")
    return path


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


def find_folder(path: str | Path) -> Path:
    """A folder that is there, the model of that name which ships with framecast, or one from the hub."""
    folder = Path(path)
    if folder.exists():
        return folder
    shipped = shipped_folder(str(path))
    return shipped or (hub_folder(str(path)) if is_hub_id(str(path)) else folder)


def is_hub_id(text: str) -> bool:
    """Whether "owner/name" can only mean a model of the hub: not a file name, and no local folder "owner"."""
    owner, _, name = text.partition("/")
    plain = re.compile(r"\w[\w.-]*")
    return (
        bool(plain.fullmatch(owner) and plain.fullmatch(name))
        and not name.endswith(SUFFIXES)
        and not Path(owner).exists()
    )


def hub_folder(address: str) -> Path:
    """Local copy of a hub model's weights and config; FileNotFoundError where the hub does not give them."""
    import huggingface_hub

    wanted = ["config.json", "model.safetensors", "README.md"]
    try:
        return Path(huggingface_hub.snapshot_download(address, allow_patterns=wanted))
    except Exception as error:  # the hub raises many kinds; all mean the same to the user
        raise FileNotFoundError(
            f"{address} is not here, and the hub does not give it ({type(error).__name__}); check the name "
            "and the connection, or pass a local file or folder"
        ) from None


# Pickles ----------------------------------------------------------------------------------------------


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes torch stumble over
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a checkpoint of plain tensors ({reason}); files with other objects "
            "are refused, since reading them would run their code"
        ) from None


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The named tensors inside the usual containers, without the prefixes of wrappers."""
    for name in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    state = dict(content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(k, str) and isinstance(t, Tensor) for k, t in state.items()):
        raise ValueError(f"{path} holds no state dict (a table of named tensors)")
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _settings(content: Any, path: Path) -> dict[str, Any]:
    """Settings that a release stores as YAML text beside its tensors."""
    text = content.get("cfg") if isinstance(content, dict) else None
    if not isinstance(text, str):
        return {}
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: its settings are not YAML ({' '.join(str(error).split())})") from None
    return settings if isinstance(settings, dict) else {}


# Comparing --------------------------------------------------------------------------------------------


@dataclass
class Fit:
    """How named tensors compare with those that a model has."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # ours, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not ours
    mismatched: list[str] = field(default_factory=list)  # other shape

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def problems(self) -> str:
        """ "2 missing (head.weight, head.bias), 1 unexpected (neck.weight)" """
        parts = []
        for title in ("missing", "unexpected", "mismatched"):
            names = getattr(self, title)
            parts += [f"{len(names)} {title} ({shown(names)})"] if names else []
        return ", ".join(parts)


def shown(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "") or "none"


def compare(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Fit:
    """Which tensors of `state` a model with the tensors `wanted` can take."""
    fit = Fit(unexpected=[key for key in state if key not in wanted])
    for key, tensor in wanted.items():
        if key not in state:
            fit.missing.append(key)
        elif state[key].shape != tensor.shape:
            given, expected = tuple(state[key].shape), tuple(tensor.shape)
            fit.mismatched.append(f"{key}: {given} in the file, {expected} in the model")
        else:
            fit.matched.append(key)
    return fit
