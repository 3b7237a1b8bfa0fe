"""Named ways to look at an image or a video when it is classified: clips, crops, how scores are averaged.

An accuracy without its protocol means little: more views cost more and score higher. `kinetics/3x4` reads
3 crops of 4 clips, so one prediction costs 12 forward passes.

Sources: DeiT (https://arxiv.org/abs/2012.12877), ViT (https://arxiv.org/abs/2010.11929), VideoMamba
(https://arxiv.org/abs/2403.06977), TimeSformer (https://arxiv.org/abs/2102.05095).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from framecast.registry import did_you_mean

Resize = Literal["short-side", "direct"]
Average = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class ViewProtocol:
    """What exactly a recognition score means."""

    name: str
    kind: Literal["image", "video"]
    clips: int = 1  # places in time
    crops: Literal[1, 3] = 1  # 1: the centre; 3: start, middle and end of the longer side
    resize: Resize = "short-side"  # "direct": to the input size whatever the aspect, nothing is cut away
    crop_ratio: float = 1.0  # input size over short side after resizing
    image_size: int | None = None  # of the input, None = the model's own
    sampling: str = "sparse"  # rule of framecast.data.clip_sampling
    stride: int = 16  # frames between those of a clip, for the dense samplings
    fps: float | None = None  # rate at which frames are counted, None = that of the file
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    average: Average = "probabilities"  # over the views: after or before the softmax
    description: str = ""

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.crops, (1, 3)),
            (self.resize, ("short-side", "direct")),
            (self.interpolation, ("bicubic", "bilinear")),
            (self.average, ("probabilities", "logits")),
        ):
            if value not in allowed:
                raise ValueError(f"protocol {self.name}: {value!r} is not one of {allowed}")
        if self.clips < 1 or not 0 < self.crop_ratio <= 1:
            raise ValueError(f"protocol {self.name}: it needs at least 1 clip and a crop ratio in (0, 1]")
        if self.crops == 3 and (self.resize == "direct" or self.crop_ratio != 1):
            raise ValueError(f"protocol {self.name}: 3 crops span the whole image, with crop_ratio 1")

    @property
    def num_views(self) -> int:
        return self.clips * self.crops

    def combine(self, logits: Any) -> np.ndarray:
        """(..., K) class probabilities from the logits (..., V, K) of the views (array or CPU tensor)."""
        scores = np.asarray(logits, dtype=np.float64)
        if scores.ndim < 2:
            raise ValueError(f"logits of views have shape (views, classes), got {scores.shape}")
        if self.average == "logits":
            return softmax(scores.mean(axis=-2))
        return softmax(scores).mean(axis=-2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x) / sum exp(x) over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


IMAGES = (
    ViewProtocol(
        "image/center-0.875",
        "image",
        crop_ratio=0.875,
        interpolation="bicubic",
        description="short side to input size / 0.875, bicubic; the centre (ImageNet as DeiT and VideoMamba)",
    ),
    ViewProtocol(
        "image/center-1.0",
        "image",
        interpolation="bicubic",
        description="short side to input size, bicubic; the centre (fine-tuning at high resolution)",
    ),
    ViewProtocol(
        "image/resize",
        "image",
        resize="direct",
        interpolation="bilinear",
        description="whole image to the input size, aspect not kept, bilinear",
    ),
    ViewProtocol(
        "image/resize-384",
        "image",
        resize="direct",
        image_size=384,
        interpolation="bilinear",
        description="whole image to 384 x 384, aspect not kept, bilinear (ImageNet as the original ViT)",
    ),
)
SPREAD = "scores averaged after the softmax"
VIDEOS = (
    ViewProtocol(
        "clip/1x1",
        "video",
        description="one clip spread over the video, centre crop: validation while training",
    ),
    ViewProtocol(
        "kinetics/3x4",
        "video",
        clips=4,
        crops=3,
        description=f"3 crops x 4 clips spread over the video, {SPREAD} (Kinetics as VideoMamba)",
    ),
    ViewProtocol(
        "breakfast-recipes/3x4",
        "video",
        clips=4,
        crops=3,
        description=f"3 crops x 4 clips spread over the video, {SPREAD} (Breakfast as VideoMamba)",
    ),
    ViewProtocol(
        "coin/3x10",
        "video",
        clips=10,
        crops=3,
        description=f"3 crops x 10 clips spread over the video, {SPREAD} (COIN as VideoMamba)",
    ),
    ViewProtocol(
        "ssv2/1x1",
        "video",
        sampling="segments",
        description="one clip of the centres of equal parts, centre crop: Something-Something while training",
    ),
    ViewProtocol(
        "ssv2/3x2",
        "video",
        clips=2,
        crops=3,
        sampling="segments",
        description=f"3 crops x 2 clips of starts and centres of equal parts, {SPREAD} "
        "(Something-Something as VideoMamba)",
    ),
    ViewProtocol(
        "timesformer/3x1",
        "video",
        crops=3,
        sampling="dense",
        stride=32,
        fps=30.0,
        average="logits",
        description="3 crops x 1 window from the first frame on, every 32nd frame at 30 frames per second, "
        "logits averaged (Kinetics as TimeSformer)",
    ),
    ViewProtocol(
        "timesformer/3x1-hr",
        "video",
        crops=3,
        sampling="dense",
        stride=16,
        fps=30.0,
        average="logits",
        description="the same, every 16th frame (TimeSformer-HR)",
    ),
    ViewProtocol(
        "timesformer/3x1-l",
        "video",
        crops=3,
        sampling="dense",
        stride=4,
        fps=30.0,
        average="logits",
        description="the same, every 4th frame (TimeSformer-L)",
    ),
    ViewProtocol(
        "timesformer/3x1-centred",
        "video",
        crops=3,
        sampling="dense-centred",
        stride=32,
        fps=30.0,
        average="logits",
        description="timesformer/3x1 with the window in the middle of the video",
    ),
    ViewProtocol(
        "timesformer-ssv2/3x1",
        "video",
        crops=3,
        sampling="midpoints",
        average="logits",
        description="3 crops x 1 clip of the middles of equal parts, logits averaged "
        "(Something-Something as TimeSformer)",
    ),
    ViewProtocol(
        "xvit/3x1",
        "video",
        crops=3,
        sampling="dense-centred",
        stride=16,
        description=f"3 crops x 1 window in the middle, every 16th frame, {SPREAD} (Kinetics as XViT)",
    ),
)
VIEW_PROTOCOLS: dict[str, ViewProtocol] = {p.name: p for p in (*IMAGES, *VIDEOS)}


def register_view_protocol(protocol: ViewProtocol) -> ViewProtocol:
    """Add a protocol under its name; a name that is taken by another one is refused."""
    if VIEW_PROTOCOLS.setdefault(protocol.name, protocol) != protocol:
        raise ValueError(
            f"protocol {protocol.name!r} is registered already, with other settings; choose another name"
        )
    return protocol


def get_view_protocol(name: str) -> ViewProtocol:
    """The protocol of that name; an unknown one is refused with the nearest known name."""
    if name not in VIEW_PROTOCOLS:
        near = did_you_mean(name, VIEW_PROTOCOLS)
        raise ValueError(f"unknown view protocol {name!r}{near}; there are {', '.join(VIEW_PROTOCOLS)}")
    return VIEW_PROTOCOLS[name]


def list_view_protocols(pattern: str = "*") -> list[str]:
    """Names of protocols that match a wildcard, for example `list_view_protocols("kinetics/*")`."""
    return fnmatch.filter(VIEW_PROTOCOLS, pattern)


def default_view_protocol(kind: Literal["image", "video"]) -> ViewProtocol:
    """One centre view: what training is validated with."""
    return VIEW_PROTOCOLS["image/center-0.875" if kind == "image" else "clip/1x1"]
