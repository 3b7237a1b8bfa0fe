"""What a recognition model is given: augmented samples for training, named views for evaluation.

    samples = RecognitionSamples(data, train_transform(settings), num_frames=8)
    views = RecognitionViews(data, "kinetics/3x4", image_size=224, mean=mean, std=std, num_frames=8)

Legend: k repeats, V views, T frames of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.clip_sampling import check_sampling, clip_indices
from framecast.data.images import IMAGE_SUFFIXES
from framecast.data.recognition import RecognitionData
from framecast.data.recognition_layouts import Kind, Listing, RecognitionItem
from framecast.data.transforms import Channels, ImageSize, normalise, take_views
from framecast.data.video import SUFFIXES
from framecast.metrics.view_protocols import ViewProtocol, default_view_protocol, get_view_protocol


class RecognitionSamples:
    """Training samples: `[i]` is {"pixels": (k, 3, H, W) or (k, 3, T, H, W), "label", "source"}.

    k = repeats is always there: a sample is decoded once and augmented k times. num_frames: T of the clips,
    None = single images (of videos: one frame). sampling, stride: rule of clip_sampling.py. fps: rate at
    which frames are counted, None = that of the file. Randomness comes from torch's generator.
    """

    def __init__(
        self,
        data: RecognitionData,
        transform: nn.Module,
        *,
        num_frames: int | None = None,
        sampling: str = "sparse",
        stride: int = 16,
        fps: float | None = None,
        repeats: int = 1,
    ) -> None:
        check_sampling(sampling)
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}; a sample is augmented at least once")
        _check_clips(data.kind, num_frames)
        self.data, self.transform = data, transform
        self.num_frames, self.sampling, self.stride, self.fps = num_frames, sampling, stride, fps
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = self._pixels(index)
        views = torch.stack([self.transform(pixels) for _ in range(self.repeats)])
        return {
            "pixels": views.transpose(1, 2) if views.dim() == 5 else views,  # (k, T, 3, …) -> (k, 3, T, …)
            "label": self.data.label(index),
            "source": self.data.source(index),
        }

    def _pixels(self, index: int) -> Tensor:
        """uint8 (3, H, W), or (T, 3, H, W) at random places in time."""
        if self.data.kind == "image":
            return self.data.image(index)
        frames = self.data.num_frames(index, self.fps)
        numbers = clip_indices(self.sampling, frames, self.num_frames or 1, stride=self.stride)
        clip = self.data.frames(index, numbers, self.fps)
        return clip if self.num_frames is not None else clip[0]


class RecognitionViews:
    """Views for evaluation: `[i]` is {"pixels": (V, 3, H, W) or (V, 3, T, H, W), "label", "source"}.

    V = protocol.num_views, clip by clip, crops inside. corrupt: applied to the uint8 crops (..., 3, H, W) of
    an item before normalisation, with its source.
    """

    def __init__(
        self,
        data: RecognitionData,
        protocol: ViewProtocol | str,
        *,
        image_size: ImageSize,
        mean: Sequence[float],
        std: Sequence[float],
        num_frames: int | None = None,
        channels: Channels = "rgb",
        corrupt: Callable[[Tensor, str], Tensor] | None = None,
    ) -> None:
        _check_clips(data.kind, num_frames)
        self.data, self.num_frames = data, num_frames
        self.protocol = get_view_protocol(protocol) if isinstance(protocol, str) else protocol
        self.image_size, self.mean, self.std, self.channels = image_size, mean, std, channels
        self.corrupt = corrupt
        if self.protocol.kind != data.kind:
            instead = default_view_protocol(data.kind).name
            raise ValueError(
                f"protocol {self.protocol.name} is for {self.protocol.kind}s and {data.root} holds "
                f"{data.kind}s; take for example {instead}"
            )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source = self.data.source(index)
        crops = torch.cat([take_views(clip, self.protocol, self.image_size) for clip in self._clips(index)])
        if self.corrupt is not None:
            crops = self.corrupt(crops, source)
        pixels = normalise(crops, self.mean, self.std, self.channels)
        return {
            "pixels": pixels.transpose(1, 2) if pixels.dim() == 5 else pixels,
            "label": self.data.label(index),
            "source": source,
        }

    def _clips(self, index: int) -> list[Tensor]:
        """uint8 image (3, H, W) or clips (T, 3, H, W), all decoded in one pass."""
        if self.data.kind == "image":
            return [self.data.image(index)]
        rule, length = self.protocol, self.num_frames or 1
        frames = self.data.num_frames(index, rule.fps)
        numbers = np.concatenate(
            [
                clip_indices(rule.sampling, frames, length, clip=c, num_clips=rule.clips, stride=rule.stride)
                for c in range(rule.clips)
            ]
        )
        clips = self.data.frames(index, numbers, rule.fps).split(length)
        return [clip if self.num_frames is not None else clip[0] for clip in clips]


def _check_clips(kind: Kind, num_frames: int | None) -> None:
    if num_frames is not None and (kind == "image" or num_frames < 1):
        raise ValueError(
            f"num_frames is {num_frames} and the data are {kind}s; leave it out for images, "
            "give at least 1 for videos"
        )


def load_views(
    path: str | Path,
    protocol: ViewProtocol | str | None = None,
    *,
    image_size: ImageSize,
    mean: Sequence[float],
    std: Sequence[float],
    num_frames: int | None = None,
    channels: Channels = "rgb",
) -> Tensor:
    """(V, 3, H, W) or (V, 3, T, H, W) views of one image or video file, for prediction."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, *SUFFIXES) and path.exists():
        raise ValueError(f"{path}: is neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a video")
    kind: Kind = "image" if suffix in IMAGE_SUFFIXES else "video"
    rule = get_view_protocol(protocol) if isinstance(protocol, str) else protocol
    rule = rule or default_view_protocol(kind)
    if rule.kind != kind:
        raise ValueError(f"{path}: is no {rule.kind}, and protocol {rule.name} looks at {rule.kind}s")
    listing = Listing(path.parent, "folders", ("",), [RecognitionItem(path, 0)], kind)
    data = RecognitionData(listing, listing.items, "all", held_back=False)
    views = RecognitionViews(
        data,
        rule,
        image_size=image_size,
        mean=mean,
        std=std,
        num_frames=num_frames,
        channels=channels,
    )
    return views[0]["pixels"]
