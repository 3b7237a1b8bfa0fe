"""Feature tracks on disk: one vector per time step of a video, with how they were made.

`<video>.npy` holds (C, T) float16 or float32 and `<video>.json` beside it the provenance and the time of
every step; `<video>.safetensors` holds both in one file. Files made elsewhere, for example the published
I3D features, have no provenance and may be (T, C); what is known of the data tells which.

Legend: C channels, T time steps.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from framecast.structures import FeatureTrack, Provenance
from framecast.writing import write_file

FEATURE_SUFFIXES = (".npy", ".safetensors")
FORMAT = "framecast-features-1"  # marks our side files; another JSON of the same name is none of ours
CHUNK = 1 << 24  # values checked for NaN at a time


def save_track(track: FeatureTrack, path: str | os.PathLike[str]) -> None:
    """Write a track as .npy with a .json beside it, or as one .safetensors file, completely or not at all.

    Raises ValueError for other suffixes, for values that are not (C, T) float16 or float32, and for NaN.
    """
    path = Path(path)
    values = np.ascontiguousarray(track.values)
    if values.ndim != 2 or 0 in values.shape or values.dtype not in (np.float16, np.float32):
        raise ValueError(
            f"{path}: a feature track is (channels, steps) in float16 or float32, got {values.dtype} "
            f"of shape {values.shape}"
        )
    if track.times is not None and track.times.shape != values.shape[1:]:
        raise ValueError(f"{path}: {values.shape[1]} feature vectors but {len(track.times)} times")
    _check_finite(values, path)
    about: dict[str, Any] = {
        "format": FORMAT,
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "provenance": track.provenance.to_json() if track.provenance else None,
        "source": track.source,
    }
    if path.suffix == ".npy":
        about["times"] = track.times.tolist() if track.times is not None else None
        # values without their provenance would pass for features made elsewhere: they come last
        path.unlink(missing_ok=True)
        write_file(path.with_suffix(".json"), json.dumps(about))
        write_file(path, lambda file: np.save(file, values, allow_pickle=False))
    elif path.suffix == ".safetensors":
        arrays = {"features": values}
        if track.times is not None:
            arrays["times"] = np.ascontiguousarray(track.times, dtype=np.float64)
        write_file(path, safetensors_bytes(arrays, metadata={"about": json.dumps(about)}))
    else:
        raise ValueError(f"{path}: feature tracks are written as .npy or .safetensors, not {path.suffix!r}")


def load_track(
    path: str | os.PathLike[str], *, feature_dim: int | None = None, num_frames: int | None = None
) -> FeatureTrack:
    """Read a track as (C, T); .npy files are memory-mapped.

    Files with provenance say which axis is time. For others `feature_dim` (C) or `num_frames` (T, within
    2 % or 8 steps, as extractors lose a few frames) decides, and a file for which they do not is refused.
    Raises FileNotFoundError, or ValueError naming the file, also for NaN and inf (at the first position).
    """
    path = Path(path)
    values, about = _read(path)
    if values.ndim == 3 and 1 in values.shape:  # (1, T, C) and the like
        values = values.squeeze(values.shape.index(1))
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path}: holds an array of shape {values.shape}; features are (channels, steps)")
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.dtype not in (np.float16, np.float32):
        raise ValueError(f"{path}: holds {values.dtype}; features are float16 or float32")
    if about is None:
        if _time_axis(path, values.shape, feature_dim, num_frames) == 0:
            values = values.T
    elif feature_dim is not None and values.shape[0] != feature_dim:
        raise ValueError(
            f"{path}: has {values.shape[0]} channels where {feature_dim} are expected; extract features with "
            "the backbone that the model was trained on"
        )
    _check_finite(values, path)
    provenance, times, source = _read_about(path, about, values.shape)
    return FeatureTrack(values, times, provenance, source or str(path))


def read_provenance(path: str | os.PathLike[str]) -> Provenance | None:
    """How the track in a file was made, without reading its values; None = made elsewhere."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    about = _about_beside(path) if path.suffix == ".npy" else _open_safetensors(path, values=False)[1]
    return _read_about(path, about, None)[0]


def _time_axis(path: Path, shape: tuple[int, ...], feature_dim: int | None, num_frames: int | None) -> int:
    """Axis of a (C, T) or (T, C) array that is time, by what is known of the data."""
    known = []
    candidates = {0, 1}
    if feature_dim is not None:
        known.append(f"{feature_dim} channels")
        candidates &= {1 - axis for axis in (0, 1) if shape[axis] == feature_dim}
    if num_frames is not None:
        known.append(f"about {num_frames} steps")
        off = max(8, num_frames // 50)
        candidates &= {axis for axis in (0, 1) if abs(shape[axis] - num_frames) <= off}
    if len(candidates) == 1:
        return candidates.pop()
    if not known:
        raise ValueError(
            f"{path}: shape {shape} may be (channels, steps) or the reverse; pass feature_dim or num_frames"
        )
    if not candidates:
        raise ValueError(f"{path}: shape {shape} does not fit {' and '.join(known)}")
    raise ValueError(
        f"{path}: shape {shape} with {' and '.join(known)} does not tell time from channels; "
        f"pass {'num_frames' if num_frames is None else 'feature_dim'} too, or save it with save_track"
    )


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any] | None]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file; `framecast features` makes it from a video")
    if path.suffix == ".safetensors":
        return _open_safetensors(path, values=True)
    if path.suffix != ".npy":
        raise ValueError(f"{path}: feature files end in .npy or .safetensors")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False), _about_beside(path)
    except (ValueError, EOFError) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: is not a readable .npy file ({error}); extract it again") from None


def _open_safetensors(path: Path, *, values: bool) -> tuple[np.ndarray, dict[str, Any] | None]:
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            about = _parse(path, (file.metadata() or {}).get("about"))
            if about is not None and "times" in names:
                about["times"] = file.get_tensor("times")
            if not values:
                return np.empty(0), about
            if about is None and len(names) > 1 and "features" not in names:
                raise ValueError(
                    f"{path}: holds {len(names)} tensors; a track has one, or one named 'features'"
                )
            return file.get_tensor("features" if "features" in names else names[0]), about
    except (SafetensorError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: is not a readable .safetensors file ({error}); extract it again") from None


def _about_beside(path: Path) -> dict[str, Any] | None:
    side = path.with_suffix(".json")
    return _parse(side, side.read_bytes()) if side.is_file() else None


def _parse(path: Path, text: str | bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        about = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: is not readable JSON ({error}); extract the features again") from None
    return about if isinstance(about, dict) and about.get("format") == FORMAT else None


def _read_about(
    path: Path, about: dict[str, Any] | None, shape: tuple[int, ...] | None
) -> tuple[Provenance | None, np.ndarray | None, str]:
    if about is None:
        return None, None, ""
    if shape is not None and tuple(about["shape"]) != shape:
        raise ValueError(
            f"{path}: holds {shape} but its description says {tuple(about['shape'])}; extract it again"
        )
    times = about.get("times")
    if times is not None:
        times = np.asarray(times, dtype=np.float64)
        if shape is not None and times.shape != shape[1:]:
            raise ValueError(f"{path}: {shape[1]} feature vectors but {len(times)} times; extract it again")
    try:
        provenance = Provenance.from_json(about["provenance"]) if about.get("provenance") else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return provenance, times, str(about.get("source", ""))


def _check_finite(values: np.ndarray, path: Path) -> None:
    """Refuse NaN and inf, naming the first in time; a part of a memory-mapped file at a time."""
    width = max(1, CHUNK // values.shape[0])
    for start in range(0, values.shape[1], width):
        good = np.isfinite(values[:, start : start + width])
        if not good.all():
            step = int((~good).any(axis=0).argmax())
            channel = int((~good[:, step]).argmax())
            raise ValueError(
                f"{path}: {values[channel, start + step]} at channel {channel}, step {start + step}; "
                "features must be finite, extract them again"
            )
