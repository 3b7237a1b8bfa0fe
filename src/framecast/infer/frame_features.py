"""A video to a feature track: a frame-wise backbone over its frames.

Frames are decoded by a thread of its own while the backbone works on the batch before.

Shapes: B frames in a batch, P prefix tokens, N patches, D width of the backbone, C channels, T time steps.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.video import iter_clips
from framecast.structures import FeatureTrack, Provenance

Item = TypeVar("Item")
Backbone = Any  # a module of framecast.backbones: forward_features, num_prefix_tokens, stride, config
HASH_DIGITS = 16
READ_AHEAD = 3  # batches decoded before they are needed


@dataclass(frozen=True)
class FeatureSettings:
    """What features to take of which frames."""

    backbone: str  # registered name
    weights: str = ""  # where the model factory finds trained weights, "" = random ones
    layer: int | None = None  # block after which tokens are read, None = after the last norm
    pooling: Literal["cls", "mean", "cls+mean"] = "cls"
    image_size: tuple[int, int] = (224, 224)  # (height, width) to which frames are resized
    step_s: float | None = None  # seconds between frames, None = every frame
    batch_size: int = 32
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # to compute in; 16 bits crawl on a CPU
    stored: Literal["float16", "float32"] = "float16"  # of the values on disk

    def __post_init__(self) -> None:
        if self.pooling not in ("cls", "mean", "cls+mean"):
            raise ValueError(f"unknown pooling {self.pooling!r}; it is 'cls', 'mean' or 'cls+mean'")
        if self.dtype not in ("float32", "bfloat16", "float16") or self.stored not in ("float16", "float32"):
            raise ValueError(
                f"cannot compute in {self.dtype!r} and store {self.stored!r}; compute in float32, "
                "bfloat16 or float16, store float16 or float32"
            )
        if self.batch_size < 1 or (self.step_s is not None and not self.step_s > 0):
            raise ValueError(f"batch_size {self.batch_size} and step_s {self.step_s} must be positive")


def weights_hash(model: nn.Module) -> str:
    """First 16 digits of the sha256 over names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:HASH_DIGITS]


def video_hash(path: str | os.PathLike[str]) -> str:
    """First 16 digits of the sha256 over the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]


def provenance_of(model: Backbone, settings: FeatureSettings, *, of_video: str = "") -> Provenance:
    """How tracks made by this model with these settings are described; checks that the two fit."""
    stride = model.stride
    if any(side % stride or side < stride for side in settings.image_size):
        near = tuple(max(stride, round(side / stride) * stride) for side in settings.image_size)
        raise ValueError(
            f"{settings.backbone} reads images in patches of {stride} pixels; image size "
            f"{settings.image_size} does not divide into them, {near} does"
        )
    if "cls" in settings.pooling and not model.num_prefix_tokens:
        raise ValueError(f"{settings.backbone} has no class token; use pooling='mean'")
    return Provenance(
        backbone=settings.backbone,
        weights=weights_hash(model),
        layer=settings.layer,
        pooling=settings.pooling,
        image_size=tuple(settings.image_size),
        mean=tuple(model.config.mean),
        std=tuple(model.config.std),
        step_s=settings.step_s,
        weights_source=settings.weights,
        video_hash=of_video,
    )


def extract_features(
    model: Backbone,
    path: str | os.PathLike[str],
    settings: FeatureSettings,
    device: str | torch.device = "cpu",
    *,
    provenance: Provenance | None = None,
) -> FeatureTrack:
    """Features (C, T) of one video; C is D, or 2 D for "cls+mean".

    provenance: `provenance_of(model, settings)` where it is known already, saves hashing the weights.
    Raises as `iter_clips` for a video that cannot be read, ValueError for non-finite features.
    """
    encoder = FrameEncoder(model, settings, device, provenance=provenance)
    provenance = replace(encoder.provenance, video_hash=video_hash(path))
    vectors: list[np.ndarray] = []
    times: list[np.ndarray] = []
    clips = iter_clips(
        path, frames_per_clip=settings.batch_size, step_s=settings.step_s, size=settings.image_size
    )
    for clip in read_ahead(clips, READ_AHEAD):
        vectors.append(encoder(clip.frames))
        times.append(clip.times)
    values = np.ascontiguousarray(np.concatenate(vectors).T)
    return FeatureTrack(encoder.stored(values, str(path)), np.concatenate(times), provenance, str(path))


class FrameEncoder:
    """What is done to every batch of frames: normalise, run the backbone, pool, and store what comes out."""

    def __init__(
        self,
        model: Backbone,
        settings: FeatureSettings,
        device: str | torch.device = "cpu",
        *,
        provenance: Provenance | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.settings = settings
        self.provenance = provenance or provenance_of(self.model, settings)
        self.mean = torch.tensor(self.provenance.mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(self.provenance.std, device=self.device).view(3, 1, 1)

    def __call__(self, frames: Tensor) -> np.ndarray:  # (B, 3, H, W) uint8 -> (B, C) float32
        with torch.inference_mode(), _precision(self.settings, self.device):
            frames = frames.to(self.device, non_blocking=True).contiguous()
            images = (frames.float() / 255 - self.mean) / self.std
            tokens = self.model.forward_features(images, self.settings.layer)
            pooled = pool_tokens(tokens, self.settings.pooling, self.model.num_prefix_tokens)
            return pooled.float().cpu().numpy()

    def stored(self, values: np.ndarray, source: str) -> np.ndarray:
        """The values as they are stored; ValueError where they are not finite or too large for that."""
        if not np.isfinite(values).all():
            raise ValueError(
                f"{source}: {self.settings.backbone} gives non-finite features; compute in float32"
            )
        with np.errstate(over="ignore"):
            stored = values.astype(self.settings.stored)
        if not np.isfinite(stored).all():
            reach = float(np.abs(values).max())
            raise ValueError(
                f"{source}: features reach {reach:.3g}, too large for float16; use stored='float32'"
            )
        return stored


def pool_tokens(tokens: Tensor, pooling: str, num_prefix_tokens: int) -> Tensor:  # (B, P + N, D) -> (B, C)
    """One vector per frame: the class token, the mean of the patch tokens, or both."""
    parts = []
    if "cls" in pooling:
        parts.append(tokens[:, 0])
    if "mean" in pooling:
        parts.append(tokens[:, num_prefix_tokens:].mean(dim=1))
    return torch.cat(parts, dim=1)


def _precision(settings: FeatureSettings, device: torch.device) -> Any:
    if settings.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, settings.dtype))


def read_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Go through `items` in a thread of its own, at most `depth` ahead; its errors are raised here."""
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # whatever it is, it belongs to the reader
            put((None, error))

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # ty: ignore[invalid-yield]
            del item  # else two batches are alive while the next one is waited for
    finally:
        stopped.set()
        thread.join()
