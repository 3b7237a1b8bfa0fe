"""Pixels on their way into a recognition model: augmentation while training, named views when testing.

Built from torchvision's transforms v2. Images are (3, H, W), clips (T, 3, H, W), uint8 RGB; every random
number is drawn once for all frames of a clip, from torch's generator.

    transform = train_transform(TransformSettings(224, mean, std, rand_augment="rand-m9-mstd0.5-inc1"))
    pixels = transform(image)                        # (3, 224, 224) float, normalised
    views = normalise(take_views(clip, get_view_protocol("kinetics/3x4"), 224), mean, std)

Order: crop, flip, RandAugment or colour jitter, normalisation, erasing (DeiT); with `augment_first`
RandAugment sees the whole frame before the crop (VideoMamba's video recipes). Resizing averages over areas
when it shrinks (antialias), which the video releases do not.

Legend: B batch, T frames, K classes, h and w of the model's input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as vision

from framecast.data.rand_augment import RandAugment
from framecast.metrics.view_protocols import ViewProtocol

Channels = Literal["rgb", "bgr"]
ImageSize = int | tuple[int, int]  # a square's side, or (height, width)
MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


@dataclass(frozen=True)
class TransformSettings:
    """What training does to an image or, alike for all its frames, to a clip; every part can be off."""

    image_size: ImageSize  # of the model's input
    mean: Sequence[float]
    std: Sequence[float]
    scale: tuple[float, float] | None = (0.08, 1.0)  # area of the random resized crop, None = no such crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of that crop
    short_side: tuple[int, int] | None = None  # without `scale`: range of the short side before a random crop
    pad: int = 0  # without `scale`: pixels of black border before the random crop
    hflip: float = 0.5  # probability
    rand_augment: str | None = None  # for example "rand-m9-mstd0.5-inc1", see rand_augment.py
    color_jitter: float = 0.0  # strength; ignored where rand_augment is on, as in timm
    erasing: float = 0.0  # probability that a rectangle becomes noise
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    channels: Channels = "rgb"
    augment_first: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("interpolation", self.interpolation, tuple(MODES)),
            ("channels", self.channels, ("rgb", "bgr")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
        for name in ("hflip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a probability, from 0 to 1")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {self.scale}; it is a range of areas such as (0.08, 1.0)")
        if self.scale is not None and (self.pad or self.short_side):
            raise ValueError(
                "pad and short_side belong to the plain random crop; set scale to null with them"
            )


def train_transform(settings: TransformSettings) -> nn.Module:
    """Module from uint8 (3, H, W) or (T, 3, H, W) to normalised float of the same axes at the image size."""
    crop: list[nn.Module] = [_RandomCrop(settings)]
    if settings.hflip:
        crop.append(v2.RandomHorizontalFlip(settings.hflip))
    colours: list[nn.Module] = []
    if settings.rand_augment:
        fill = tuple(round(255 * m) for m in _in_rgb(settings.mean, settings.channels))
        colours.append(RandAugment(settings.rand_augment, fill=fill))
    elif settings.color_jitter:
        colours.append(v2.ColorJitter(*[settings.color_jitter] * 3))
    parts = [*colours, *crop] if settings.augment_first else [*crop, *colours]
    parts.append(Normalise(settings.mean, settings.std, settings.channels))
    if settings.erasing:
        parts.append(RandomErasing(settings.erasing))
    return nn.Sequential(*parts)


class _RandomCrop(nn.Module):
    """A random resized crop, or a resize and a plain random crop; answers at the image size."""

    def __init__(self, settings: TransformSettings) -> None:
        super().__init__()
        self.settings = settings
        self.size = height_width(settings.image_size)
        self.mode = MODES[settings.interpolation]
        self.resized = v2.RandomResizedCrop(
            self.size, settings.scale or (1.0, 1.0), settings.ratio, interpolation=self.mode, antialias=True
        )

    def forward(self, frames: Tensor) -> Tensor:
        if self.settings.scale is not None:
            return self.resized(frames)
        if self.settings.short_side is not None:
            low, high = self.settings.short_side
            frames = vision.resize(frames, [int(torch.randint(low, high + 1, ()))], self.mode, antialias=True)
        if self.settings.short_side is None or _smaller(frames, self.size):
            frames = cover(frames, self.size, self.mode)
        frames = vision.pad(frames, [self.settings.pad] * 4) if self.settings.pad else frames
        top, left = (
            int(torch.randint(have - want + 1, ()))
            for have, want in zip(frames.shape[-2:], self.size, strict=True)
        )
        return vision.crop(frames, top, left, *self.size)


class Normalise(nn.Module):
    """uint8 pixels to the numbers a model was trained on."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: Channels = "rgb") -> None:
        super().__init__()
        self.mean, self.std, self.channels = tuple(mean), tuple(std), channels

    def forward(self, frames: Tensor) -> Tensor:
        return normalise(frames, self.mean, self.std, self.channels)


def normalise(
    frames: Tensor, mean: Sequence[float], std: Sequence[float], channels: Channels = "rgb"
) -> Tensor:
    """(..., 3, H, W) uint8 to float, (x / 255 - mean) / std; mean and std are in the order of `channels`."""
    if channels == "bgr":
        frames = frames.flip(-3)
    shift, scale = (
        torch.tensor(values, dtype=torch.float32, device=frames.device).view(-1, 1, 1)
        for values in (mean, std)
    )
    return frames.float().div_(255).sub_(shift).div_(scale)


class RandomErasing(nn.Module):
    """A rectangle of 2 to 33 % of the area, aspect 0.3 to 3.3, becomes noise (Zhong et al., AAAI 2020).

    The same rectangle in all frames of a clip, other noise in each pixel ("pixel mode" of timm).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, frames: Tensor) -> Tensor:
        if torch.rand(()) >= self.probability:
            return frames
        height, width = frames.shape[-2:]
        for _ in range(10):
            area = height * width * float(torch.empty(()).uniform_(0.02, 1 / 3))
            aspect = math.exp(float(torch.empty(()).uniform_(math.log(0.3), -math.log(0.3))))
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < h < height and 0 < w < width:
                top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
                frames = frames.clone()
                patch = frames[..., top : top + h, left : left + w]
                patch.copy_(torch.randn(patch.shape))
                return frames
        return frames


# --- Mixing a batch ----------------------------------------------------------------------------------------


class BatchMix:
    """Mixup and CutMix: two samples of a batch become one, and so do their targets.

    Mixup (Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412) adds pixels, CutMix (Yun et al., ICCV
    2019, https://arxiv.org/abs/1905.04899) pastes a rectangle, the same one in all frames of a clip. As in
    DeiT one draw holds for the whole batch, and a sample is mixed with the one at the mirrored place, which
    is another one also where several augmentations of a sample lie side by side.

    mixup, cutmix: alpha of Beta(alpha, alpha), from which the share of the first sample is drawn, 0 = off.
    prob: of a batch to be mixed at all. switch: of CutMix where both are on. smoothing: of the targets.
    """

    def __init__(
        self,
        num_classes: int,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        prob: float = 1.0,
        switch: float = 0.5,
        smoothing: float = 0.0,
    ) -> None:
        if mixup < 0 or cutmix < 0:
            raise ValueError(f"mixup is {mixup} and cutmix {cutmix}; they are alphas >= 0, 0 = off")
        self.num_classes = num_classes
        self.mixup, self.cutmix = mixup, cutmix
        self.prob, self.switch, self.smoothing = prob, switch, smoothing

    def __call__(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B, ...), labels (B,) int -> mixed pixels (B, ...), targets (B, K) that sum to 1."""
        targets = self.targets(labels)
        if not (self.mixup or self.cutmix) or torch.rand(()) >= self.prob:
            return pixels, targets
        cut = self.cutmix > 0 and (self.mixup == 0 or bool(torch.rand(()) < self.switch))
        alpha = self.cutmix if cut else self.mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        others = pixels.flip(0)
        if cut:
            box, share = cut_box(pixels.shape[-2], pixels.shape[-1], share)
            pixels = pixels.clone()
            pixels[..., box[0], box[1]] = others[..., box[0], box[1]]
        else:
            pixels = pixels * share + others * (1 - share)
        return pixels, targets * share + targets.flip(0) * (1 - share)

    def targets(self, labels: Tensor) -> Tensor:
        """(B, K) float: 1 - smoothing for the class, and smoothing spread over all classes."""
        hard = F.one_hot(labels.long(), self.num_classes).float()
        return hard * (1 - self.smoothing) + self.smoothing / self.num_classes


def cut_box(height: int, width: int, share: float) -> tuple[tuple[slice, slice], float]:
    """A rectangle of 1 - share of the area around a random centre, cut at the border, and the share left."""
    h, w = int(height * (1 - share) ** 0.5), int(width * (1 - share) ** 0.5)
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(y - h // 2, 0), min(y + h // 2, height)
    left, right = max(x - w // 2, 0), min(x + w // 2, width)
    return (slice(top, bottom), slice(left, right)), 1 - (bottom - top) * (right - left) / (height * width)


# --- Views for evaluation ----------------------------------------------------------------------------------


def take_views(frames: Tensor, protocol: ViewProtocol, image_size: ImageSize) -> Tensor:
    """(crops, ..., 3, h, w) uint8 views of an image (3, H, W) or a clip (T, 3, H, W)."""
    height, width = height_width(protocol.image_size or image_size)
    mode = MODES[protocol.interpolation]
    if protocol.resize == "direct":
        return vision.resize(frames, [height, width], mode, antialias=True)[None]
    size = int(height / protocol.crop_ratio), int(width / protocol.crop_ratio)
    frames = cover(frames, size, mode)
    down, across = frames.shape[-2] - height, frames.shape[-1] - width
    if protocol.crops == 1:
        top, left = round(down / 2), round(across / 2)
        return frames[None, ..., top : top + height, left : left + width]
    places = [(j * down // 2, j * across // 2) for j in range(3)]
    return torch.stack([frames[..., t : t + height, s : s + width] for t, s in places])


def cover(frames: Tensor, size: tuple[int, int], mode: InterpolationMode) -> Tensor:
    """Resize, aspect kept, to the smallest size that covers `size`: one side fits, one may be longer."""
    height, width = frames.shape[-2:]
    if size[0] * width >= size[1] * height:
        new = [size[0], size[0] * width // height]
    else:
        new = [size[1] * height // width, size[1]]
    return frames if new == [height, width] else vision.resize(frames, new, mode, antialias=True)


def height_width(image_size: ImageSize) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise ValueError(f"image_size is {image_size}; it is a side or (height, width) in pixels")
    return height, width


def _smaller(frames: Tensor, size: tuple[int, int]) -> bool:
    return frames.shape[-2] < size[0] or frames.shape[-1] < size[1]


def _in_rgb(values: Sequence[float], channels: Channels) -> Sequence[float]:
    return values if channels == "rgb" else values[::-1]
