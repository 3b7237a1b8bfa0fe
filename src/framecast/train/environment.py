"""What a run was made with: versions, machine in words, state of the source code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from framecast.registry import PACKAGE

PACKAGES = ("framecast", "torch", "torchvision", "numpy", "einops", "safetensors", "pydantic", "av")


def describe_environment(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Everything is text or a number, ready for JSON; unknown things are None."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": describe_machine(),
        "device": str(device),
        "processes": num_processes,
        "threads": torch.get_num_threads(),
        "git": git_state(PACKAGE),
    }


def describe_machine() -> str:
    """For example '16-core AMD EPYC 9334, 126 GiB memory, 4 × NVIDIA H100, Linux'."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    words = [f"{os.cpu_count()}-core {_processor()}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        words.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory")
    words += [f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus)] or ["no GPU"]
    return ", ".join([*words, platform.system()])


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None where the code is not in a git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody's repository without being part of it.
    commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "registry.py") else None
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no", "."))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
