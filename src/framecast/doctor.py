"""Looks at the machine and says what works, what does not, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Finding:
    subject: str
    verdict: Literal["good", "note", "bad"]
    found: str
    advice: str = ""


EXTRAS = {
    "torchcodec": "fast-video",
    "tensorboard": "log",
    "wandb": "log",
    "submitit": "slurm",
    "onnx": "export",
}


def examine() -> list[Finding]:
    """All findings; a check that itself breaks is a bad finding, never a traceback."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, _packages, _devices, _kernels, _decoders, _distributed, _disk,
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:
            found.append(Finding(check.__name__.strip("_"), "bad", f"{type(error).__name__}: {error}"))
    return found


def _python() -> Iterator[Finding]:
    yield Finding("python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    for name in ("torch", "torchvision", "numpy", "av"):
        yield Finding(name, "good", metadata.version(name))
    for name, extra in EXTRAS.items():
        try:
            yield Finding(name, "good", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "note", "not installed (optional)", f"pip install 'framecast[{extra}]'")


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("cpu", "good", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            yield Finding(f"cuda:{i}", "good", torch.cuda.get_device_name(i))
    else:
        yield Finding("cuda", "note", "no GPU; everything runs on the CPU")


def _kernels() -> Iterator[Finding]:
    from framecast.ops import native_library

    found = native_library.available()
    if not found:
        yield Finding(
            "native kernels", "note", "not built; the PyTorch paths are used, slower on long videos",
            "install a C++ compiler and run pip install --force-reinstall --no-deps framecast",
        )
        return
    yield Finding("native kernels", "good", found)
    for kernel, error in native_library.check():
        good = error < 1e-5
        yield Finding(
            f"kernel {kernel}", "good" if good else "bad", f"differs from its reference by {error:.1e} (relative)",
            "" if good else "set FRAMECAST_NATIVE=0 to switch the kernels off, and report this machine",
        )


def _decoders() -> Iterator[Finding]:
    from framecast.data.video import choose_backend, read_frames
    from framecast.data.video_torchcodec import why_not_torchcodec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.mp4"
        _write_test_video(path)
        frames = read_frames(path, [0.0, 0.5], backend="pyav").frames
        right = abs(float(frames[0].float().mean()) - 60) < 12 and abs(float(frames[1].float().mean()) - 180) < 12
        advice = "" if right else "reinstall the package av"
        yield Finding("video, PyAV", "good" if right else "bad", "decodes" if right else "wrong frames", advice)
        reason = why_not_torchcodec()
        if reason:
            yield Finding("video, torchcodec", "note", f"not used ({reason})")
        else:
            same = bool((read_frames(path, [0.0, 0.5], backend="torchcodec").frames == frames).all())
            yield Finding("video, torchcodec", "good" if same else "bad", "same frames" if same else "other frames")
    yield Finding("video backend", "good", choose_backend())


def _write_test_video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            grey = np.full((48, 64, 3), 60 if i < 5 else 180, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode())


def _distributed() -> Iterator[Finding]:
    import torch.distributed as dist

    backends = [name for name in ("gloo", "nccl") if getattr(dist, f"is_{name}_available")()]
    yield Finding("torch.distributed", "good" if backends else "bad", ", ".join(backends) or "no backend")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free > 2
    yield Finding("disk here", "good" if enough else "bad", f"{free:.0f} GB free", "" if enough else "free some space")
    if sys.version_info < (3, 11):
        yield Finding("python version", "bad", "older than 3.11", "install Python 3.11 or newer")
