"""Checkpoints of a run: sharded, written completely or not at all, verified before they are read.

    checkpoints/step-000120/     model, optimiser and averages (torch.distributed.checkpoint: any number
                                 of processes can read what any other number has written)
                 rng-00000.pt    random generators, one file per process
                 state.json      step, best metric, counters, recipe
                 manifest.json   size and sha256 of every file
    checkpoints/latest           name of the newest one, for people and scripts

A checkpoint is written as step-000120.tmp, flushed and renamed by rank 0 when all ranks are done. The
newest folder counts; a damaged one is set aside with a warning and the one before it is used, which
costs time but changes no result. Checkpoints are for going on with one's own run: to hand on a model,
pass on the run's model/ folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from framecast.tasks.ranks import together
from framecast.train.distributed import World, gather_objects, wait_for_all
from framecast.train.optim import AveragedWeights
from framecast.train.rng import restore_rng, rng_state
from framecast.writing import publish_folder, write_file


class Checkpoints:
    """The checkpoint folder of one run."""

    def __init__(self, folder: Path, world: World, *, keep_last: int) -> None:
        self.folder, self.world, self.keep_last = folder, world, keep_last
        with together():
            if world.is_main:
                folder.mkdir(parents=True, exist_ok=True)
                for leftover in [*folder.glob("*.tmp"), *folder.glob("*.old")]:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        names = [path.name for path in self.folder.glob("step-*") if path.name[5:].isdigit()]
        return sorted(int(name[5:]) for name in names)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    # ------------------------------------------------------------------ writing

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Write `tensors` (this rank's shards) and `state` (JSON) as the checkpoint of state["step"].

        Raises OSError on every rank when one rank cannot write; the checkpoints before stay as they are.
        """
        final = self.path(state["step"])
        temporary = final.with_name(final.name + ".tmp")
        self._together("prepare", temporary, lambda: temporary.mkdir(exist_ok=True))
        self._together("write", temporary, lambda: self._write(tensors, temporary))
        sums = self._together("read back", temporary, lambda: self._sums(temporary))
        if self.world.is_main:
            sums = dict(sorted((name, entry) for part in sums for name, entry in part.items()))
        self._together("finish", temporary, lambda: self._publish(temporary, final, state, sums))
        return final

    def _write(self, tensors: dict[str, Tensor], temporary: Path) -> None:
        with warnings.catch_warnings():  # "assuming a single process": we know
            warnings.simplefilter("ignore", UserWarning)
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary), no_dist=self.world.size == 1)
        with open(temporary / f"rng-{self.world.rank:05d}.pt", "wb") as file:
            torch.save(rng_state(), file)
            file.flush()
            os.fsync(file.fileno())

    def _sums(self, folder: Path) -> dict[str, list[Any]]:
        """Size and sha256 of this rank's share of the files."""
        names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
        return {name: _fingerprint(folder / name) for name in names[self.world.rank :: self.world.size]}

    def _publish(self, temporary: Path, final: Path, state: dict[str, Any], sums: Any) -> None:
        if not self.world.is_main:
            return
        write_file(temporary / "state.json", json.dumps(state, indent=1))
        sums["state.json"] = _fingerprint(temporary / "state.json")
        write_file(temporary / "manifest.json", json.dumps(sums, indent=1))
        publish_folder(temporary, final)
        write_file(self.folder / "latest", final.name + "\n")
        for step in self.steps()[: -self.keep_last]:
            shutil.rmtree(self.path(step), ignore_errors=True)

    def _together(self, verb: str, temporary: Path, action: Callable[[], Any]) -> list[Any]:
        """Run the action on all ranks; if it fails on one, clean up and raise on all."""
        value, problem = None, None
        try:
            value = action()
        except (OSError, RuntimeError) as error:
            problem = _reason(error)
        except CheckpointException as error:  # a BaseException that wraps those of all ranks
            cause = next(cause for cause, _ in error.failures.values())
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            problem = _reason(cause)
        results = gather_objects((value, problem), self.world)
        problems = [problem for _, problem in results if problem]
        if problems:
            if self.world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            code, text = problems[0]
            kept = (
                f"the checkpoint of step {self.steps()[-1]} is intact"
                if self.steps()
                else "there is none yet"
            )
            advice = "free space" if code == errno.ENOSPC else "put it right"
            raise OSError(
                code or errno.EIO,
                f"cannot {verb} checkpoint {temporary.with_suffix('')} ({text}); {kept}; {advice} and start "
                "the same command again to go on from there",
            )
        return [value for value, _ in results]

    # ------------------------------------------------------------------ reading

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint, None if there is none at all. Same answer on all ranks.

        Damaged ones are renamed to *.damaged with a warning. ValueError if every one is damaged.
        """
        damaged = []
        for step in reversed(self.steps()):
            path = self.path(step)
            found = [text for part in gather_objects(self._damage(path), self.world) for text in part]
            if not found:
                if damaged and self.world.is_main:
                    for name, text in damaged:
                        warnings.warn(
                            f"checkpoint {name} is damaged ({text}); it is set aside as {name}.damaged and "
                            f"the run goes on from the one before it, {path.name}",
                            stacklevel=2,
                        )
                        shutil.rmtree(self.folder / f"{name}.damaged", ignore_errors=True)
                        os.rename(self.folder / name, self.folder / f"{name}.damaged")
                    write_file(self.folder / "latest", path.name + "\n")
                wait_for_all(self.world)
                return path
            damaged.append((path.name, found[0]))
        if damaged:
            listed = ", ".join(f"{name}: {text}" for name, text in damaged)
            raise ValueError(
                f"no checkpoint in {self.folder} can be read ({listed}); restore one from a backup, or "
                "delete the folder to start from the beginning"
            )
        return None

    def _damage(self, path: Path) -> list[str]:
        """What is wrong with this rank's share of the files."""
        try:
            sums = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ["manifest.json is missing"]
        except ValueError:
            return ["manifest.json is not JSON"]
        problems = []
        for name in sorted(sums)[self.world.rank :: self.world.size]:
            if not (path / name).is_file():
                problems.append(f"{name} is missing")
            elif (path / name).stat().st_size != sums[name][0]:
                size = (path / name).stat().st_size
                problems.append(f"{name} has {size} bytes instead of {sums[name][0]}")
            elif _fingerprint(path / name) != sums[name]:
                problems.append(f"{name} was changed: its sha256 differs")
        return problems


def _reason(error: BaseException) -> tuple[int, str]:
    """(errno, text); torch's writer raises RuntimeError while it handles the disk's own error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.errno or errno.EIO, cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return errno.EIO, str(error).split("\n")[0]


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / "state.json").read_text(encoding="utf-8"))


def load_tensors(tensors: dict[str, Tensor], path: Path, world: World) -> None:
    """Fill the tensors (whole or sharded) in place; ValueError names what the checkpoint lacks."""
    stored = stored_tensors(path)
    for name, tensor in tensors.items():
        if name not in stored:
            raise ValueError(
                f"{path} has no tensor {name!r}: another model or optimiser wrote it; resume with the code "
                "that started the run"
            )
        if stored[name].size != tensor.size():
            raise ValueError(
                f"{path}: {name} has shape {tuple(stored[name].size)} there and {tuple(tensor.size())} in "
                "this model; resume with the code that started the run"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, storage_reader=_Reader(path), no_dist=world.size == 1)


def stored_tensors(path: Path) -> dict[str, TensorStorageMetadata]:
    """Name, type and full shape of every tensor in the checkpoint."""
    entries = _Reader(path).read_metadata().state_dict_metadata
    return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def load_rng(path: Path, world: World) -> bool:
    """Restore this rank's generators; False if the checkpoint has none for it."""
    file = path / f"rng-{world.rank:05d}.pt"
    if not file.is_file():
        return False
    restore_rng(torch.load(file, weights_only=True))
    return True


def training_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, averages: AveragedWeights | None
) -> dict[str, Tensor]:
    """Everything that training changes, by name: model.*, optim.PARAMETER.*, ema.*, updates.ema"""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optim.{name}.{key}"] = value
    if averages is not None:
        tensors["updates.ema"] = averages.updates
        tensors.update({f"ema.{name}": value for name, value in averages.weights.items()})
    return tensors


def prepare_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Give a fresh optimiser empty state tensors like the stored ones, ready to be filled."""
    stored = stored_tensors(path)
    for name, parameter in model.named_parameters():
        prefix = f"optim.{name}."
        for key in [key for key in stored if key.startswith(prefix) and "." not in key[len(prefix) :]]:
            entry = stored[key]
            if key == prefix + "step":  # counters stay on the CPU, but the fused kernel wants them beside
                place = parameter.device if optimizer.defaults.get("fused") else "cpu"
                value = torch.zeros(entry.size, dtype=entry.properties.dtype, device=place)
            else:  # moments are sharded like their parameter
                value = torch.zeros_like(parameter, dtype=entry.properties.dtype, requires_grad=False)
            optimizer.state[parameter][key[len(prefix) :]] = value


def _fingerprint(path: Path) -> list[Any]:
    """[bytes, sha256]"""
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


class _Reader(dcp.FileSystemReader):
    """Reads the table of contents with an unpickler that can build nothing but tables of contents."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _ContentsUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or dcp.metadata.StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


_CONTENTS = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath", "WindowsPath"},
}


class _ContentsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _CONTENTS.get(module, ()):
            return super().find_class(module, name)
        raise ValueError(
            f"checkpoint metadata asks for {module}.{name}, which no checkpoint of ours holds; not read"
        )
