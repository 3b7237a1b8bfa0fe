"""Bad input: a table of commands that must fail well, and what failing well means.

A case prepares something wrong in an empty working folder and returns the command. Whatever a user gets wrong
ends in one line that names the culprit, and leaves nothing half-written. `test_bad_*.py` hold the cases.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_world import World, framecast
from torch import Tensor

Command = list[object]
Prepare = Callable[[World, Path], Command]
NOISE = np.random.default_rng(0).bytes(4000)


@dataclass(frozen=True)
class Case:
    name: str
    culprit: str  # regex that the line on standard error matches
    prepare: Prepare
    code: int = 1
    leaves: str = ""  # folder in which whole files may be new: what was good among the bad
    full_disk: bool = False


class Cases(list[Case]):
    """The cases of one file, collected by a decorator."""

    def add(self, name: str, culprit: str, **options: Any) -> Callable[[Prepare], Prepare]:
        def collect(prepare: Prepare) -> Prepare:
            assert name not in {case.name for case in self}
            self.append(Case(name, culprit, prepare, **options))
            return prepare

        return collect


def check(case: Case, world: World, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command of a case in the folder `here` and compare what lies there before and after."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    command = case.prepare(world, here)
    before = listing(here, world.root)
    if case.full_disk:
        monkeypatch.setattr(os, "fsync", disk_is_full)
    done = framecast(*command)
    after = listing(here, world.root)

    assert done.code == case.code, done
    assert "Traceback" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert re.search(case.culprit, lines[0]), lines[0]
    assert "a bug" not in lines[0]

    new = [Path(path) for path in after if after[path] != before.get(path)]
    where_allowed = here / case.leaves if case.leaves else None
    stray = [path for path in new if where_allowed is None or not path.is_relative_to(where_allowed)]
    assert not stray, "left behind"
    assert not [path for path in new if re.search(r"tmp|partial|\.old|/\.", str(path.relative_to(here)))]
    assert before.keys() <= after.keys(), "removed"


def listing(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below the folders."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)
        for folder in folders
        for path in folder.rglob("*")
    }


def disk_is_full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Things that are wrong --------------------------------------------------------------------------------


def write(name: str, content: bytes | str = b"") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


class Harm:
    """Unpickling it would create the file `harm`, which counts as something left behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def changed_copy(source: Path, name: str, change: Callable[[dict[str, Tensor]], object]) -> str:
    """A copy of a saved model whose tensors are changed."""
    shutil.copytree(source, name)
    state = load_file(f"{name}/model.safetensors")
    change(state)
    save_file(state, f"{name}/model.safetensors")
    return name


def data_copy(w: World) -> Path:
    return Path(shutil.copytree(w.data, "data"))


def of_subset(w: World, subset: str) -> str:
    """A video of split 1."""
    return (w.data / "splits" / f"{subset}.split1.bundle").read_text().split("\n")[0].removesuffix(".txt")


# Commands ---------------------------------------------------------------------------------------------


def label_free(w: World, *inputs: object) -> Command:
    return ["predict", *inputs, "--unsupervised", *w.backbone, "--out", "out"]


def with_model(w: World, *inputs: object) -> Command:
    return ["predict", *inputs, "--model", w.run, "--out", "out"]
