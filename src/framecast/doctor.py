"""Looks at the machine and says what works, what does not, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
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
DARK, LIGHT = 60, 180  # grey levels of the test video's two halves


def examine() -> list[Finding]:
    """All findings; a check that itself breaks is a bad finding, never a traceback."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "devices": _devices,
        "native kernels": _kernels,
        "video": _decoders,
        "torch.distributed": _distributed,
        "disk here": _disk,
    }
    found: list[Finding] = []
    for subject, check in checks.items():
        try:
            found += check()
        except Exception as error:
            found.append(Finding(subject, "bad", f"{type(error).__name__}: {error}"))
    return found


def _python() -> Iterator[Finding]:
    what = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "good", what)


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

    library, reason = native_library.load()
    if library is None:
        found = f"{reason}; the PyTorch paths are used, slower on long videos"
        advice = "install a C++ compiler, then: pip install --force-reinstall --no-deps framecast"
        yield Finding("native kernels", "note", found, advice if "not built" in reason else "")
        return
    yield Finding("native kernels", "good", native_library.available())
    for kernel, error in native_library.check():
        differs = f"differs from its reference by {error:.1e} (relative)"
        if error < 1e-5:
            yield Finding(f"kernel {kernel}", "good", differs)
        else:
            advice = "set FRAMECAST_NATIVE=0 to switch the kernels off, and report this machine"
            yield Finding(f"kernel {kernel}", "bad", differs, advice)


def _decoders() -> Iterator[Finding]:
    from framecast.data.video import choose_backend, read_frames
    from framecast.data.video_torchcodec import why_not_torchcodec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.mp4"
        _write_test_video(path)
        frames = read_frames(path, [0.0, 0.5], backend="pyav").frames
        dark, light = (float(frame.float().mean()) for frame in frames)
        if abs(dark - DARK) < 12 and abs(light - LIGHT) < 12:
            yield Finding("video, PyAV", "good", "decodes")
        else:
            yield Finding("video, PyAV", "bad", "wrong frames", "reinstall the package av")
        reason = why_not_torchcodec()
        if reason:
            yield Finding("video, torchcodec", "note", f"not used ({reason})")
        elif (read_frames(path, [0.0, 0.5], backend="torchcodec").frames == frames).all():
            yield Finding("video, torchcodec", "good", "same frames")
        else:
            yield Finding("video, torchcodec", "bad", "other frames", "uninstall torchcodec")
    yield Finding("video backend", "good", choose_backend())


def _write_test_video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            grey = np.full((48, 64, 3), DARK if i < 5 else LIGHT, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode())


def _distributed() -> Iterator[Finding]:
    import torch.distributed as dist

    backends = [name for name in ("gloo", "nccl") if getattr(dist, f"is_{name}_available")()]
    yield Finding("torch.distributed", "good" if backends else "bad", ", ".join(backends) or "no backend")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free > 2:
        yield Finding("disk here", "good", f"{free:.0f} GB free")
    else:
        yield Finding("disk here", "bad", f"{free:.1f} GB free", "free some space")
