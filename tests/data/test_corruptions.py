"""The common corruptions: what they promise on an image that looks natural."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from framecast.data.corruption_parts import Draws, convolve, gaussian_matrix, motion_kernels, smooth
from framecast.data.corruptions import (
    CORRUPTIONS,
    GROUPS,
    SEVERITIES,
    choose_corruptions,
    compress_jpeg,
    corrupt,
    corruption_seed,
)
from framecast.data.corruptions_blur import disc, shuffled_places

NAMES = tuple(CORRUPTIONS)
# Where the published settings do not get worse at every step in this measure: elastic moves most at 1 and 2,
# frost covers no more at 4, pixelate meets every second pixel evenly at 2, glass exchanges less often at 4,
# zoom leaves out steps at 3 and 5.
STEPS = {"elastic": (3, 5), "frost": (1, 3), "pixelate": (1, 5), "glass": (1, 3, 5), "zoom": (1, 2, 4)}


def scene(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """(3, H, W) uint8 with the spectrum of photographs (amplitude 1 / frequency) and a coloured box."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.fft.rfft2(torch.randn(3, height, width, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).clamp(
        min=1 / width
    )
    picture = torch.fft.irfft2(noise / frequency.clamp(min=1 / width), s=(height, width))
    picture = 0.5 + 0.16 * (picture - picture.mean()) / picture.std()
    box = torch.tensor([0.2, -0.1, 0.1])[:, None, None]
    picture[:, height // 4 : height // 2, width // 3 : width // 2] += box
    return picture.clamp(0, 1).mul(255).round().byte()


def psnr(one: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(255**2 / (one.float() - other.float()).square().mean().clamp(min=1e-6)))


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_repetition(name: str) -> None:
    images = torch.stack([scene(48, 40, seed=i) for i in range(2)])
    kept = images.clone()
    once, again = (corrupt(images, name, 3, [11, 12]) for _ in range(2))
    assert (once.shape, once.dtype) == (images.shape, torch.uint8)
    assert torch.equal(once, again)
    assert torch.equal(images, kept), "the input is left alone"
    assert not torch.equal(once, images)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    images = torch.stack([scene(seed=i) for i in range(3)])
    together = corrupt(images, name, 4, [5, 6, 7])
    for i, seed in enumerate((5, 6, 7)):
        alone = corrupt(images[i : i + 1], name, 4, [seed])[0]
        assert (together[i].int() - alone.int()).abs().max() <= 1  # of 255: rounding of matrix products


@pytest.mark.parametrize("name", NAMES)
def test_all_frames_of_a_clip_are_changed_alike(name: str) -> None:
    still = scene().expand(3, -1, -1, -1)
    frames = corrupt(still, name, 3, 9)
    assert (frames.int() - frames[:1].int()).abs().max() <= 1
    if name in ("contrast", "defocus", "zoom", "brightness", "pixelate", "jpeg"):
        return  # nothing random in them
    images = corrupt(still, name, 3, [9, 10, 11])
    assert (images[0].int() - frames[0].int()).abs().max() <= 1
    assert (images[1].int() - images[0].int()).abs().max() > 1


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("name", NAMES)
def test_higher_severities_distort_more(name: str, size: int) -> None:
    image = scene(size, size)[None]
    seeds = range(1 if size > 64 else 3)
    quality = [
        sum(psnr(corrupt(image, name, s, [corruption_seed(str(i), name)]), image) for i in seeds)
        for s in STEPS.get(name, SEVERITIES)
    ]
    assert all(before > after for before, after in pairwise(quality)), quality


@pytest.mark.parametrize("name", sorted({*GROUPS["blur"], "snow", "frost", "fog", "elastic"}))
def test_lengths_go_with_the_size(name: str) -> None:
    """A picture of half the size loses about as much as the picture itself, seen at half the size."""
    large = scene(224, 224)[None].float()
    small = torch.nn.functional.avg_pool2d(large, 2).round().byte()
    seen = torch.nn.functional.avg_pool2d(corrupt(large.byte(), name, 5, [3]).float(), 2).round().byte()
    assert abs(psnr(corrupt(small, name, 5, [3]), small) - psnr(seen, small)) < 2.5


@pytest.mark.parametrize("shape", [(16, 16), (33, 70), (260, 230)])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_will_do(name: str, shape: tuple[int, int]) -> None:
    assert corrupt(scene(*shape)[None], name, 5, [0]).shape == (1, 3, *shape)


def test_black_and_white_stay_finite() -> None:
    for value in (0, 255):
        flat = torch.full((1, 3, 32, 32), value, dtype=torch.uint8)
        for name in NAMES:
            assert corrupt(flat, name, 5, [1]).shape == flat.shape
        for name in ("contrast", "defocus", "glass", "motion", "zoom", "elastic", "pixelate"):
            assert (corrupt(flat, name, 5, [1]).int() - value).abs().max() <= 1


def test_noise_has_the_published_strength() -> None:
    grey = torch.full((1, 3, 128, 128), 128, dtype=torch.uint8)
    noisy = corrupt(grey, "gaussian", 2, [0]).float() / 255
    assert noisy.std() == pytest.approx(0.12, rel=0.02)
    shot = corrupt(grey, "shot", 2, [0]).float() / 255  # Poisson of 25 x, over 25
    assert shot.mean() == pytest.approx(128 / 255, abs=0.003)
    assert shot.std() == pytest.approx(math.sqrt(128 / 255 / 25), rel=0.03)
    impulse = corrupt(grey, "impulse", 3, [0])
    assert (impulse == 0).float().mean() == pytest.approx(0.045, rel=0.06)
    assert (impulse == 255).float().mean() == pytest.approx(0.045, rel=0.06)


def test_brightness_and_contrast_are_what_they_say() -> None:
    image = scene()[None]
    value = image.amax(1).float() / 255
    raised = corrupt(image, "brightness", 3, [0]).amax(1).float() / 255
    torch.testing.assert_close(raised, (value + 0.3).clamp(max=1), atol=1 / 255, rtol=0)
    flat = corrupt(image, "contrast", 2, [0]).float()
    assert flat.mean() == pytest.approx(image.float().mean(), abs=0.5)
    assert flat.std(dim=(-2, -1)) == pytest.approx(0.3 * image.float().std(dim=(-2, -1)), rel=0.02)


def test_glass_moves_pixels_and_loses_none() -> None:
    places = shuffled_places(Draws([1, 2]), 20, 30, distance=2, rounds=2)
    assert torch.equal(places.flatten(1).sort(1).values, torch.arange(600).expand(2, -1))
    rows, columns = places // 30 - torch.arange(20)[:, None], places % 30 - torch.arange(30)
    assert 0 < rows.abs().float().mean() < 4
    assert 0 < columns.abs().float().mean() < 4


def test_filters_agree_with_their_definition() -> None:
    x = torch.rand(2, 3, 12, 15, generator=torch.Generator().manual_seed(0))
    kernels = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(x, (2,) * 4, mode="reflect")
    wanted = [
        torch.nn.functional.conv2d(p[:, None], k[None, None])[:, 0]
        for p, k in zip(padded, kernels, strict=True)
    ]
    torch.testing.assert_close(convolve(x, kernels, "reflect"), torch.stack(wanted), atol=1e-5, rtol=1e-5)

    assert disc(3, 0.001).gt(0).sum() == 29  # points of the grid within 3 of the middle
    assert disc(10, 0.5, 1 / 7).sum() == pytest.approx(1)
    trail = motion_kernels(torch.tensor([0.0]), 3, 1e6)[0]
    middle = len(trail) // 2
    torch.testing.assert_close(trail[middle, middle : middle + 7], torch.full((7,), 1 / 7))

    torch.testing.assert_close(gaussian_matrix(9, 0.0), torch.eye(9))
    torch.testing.assert_close(gaussian_matrix(9, 50.0).sum(1), torch.ones(9))  # far wider than the picture
    spike = torch.zeros(1, 1, 41, 41)
    spike[..., 20, 20] = 1
    blurred = smooth(spike, 2.0)[0, 0, 20]
    assert blurred[22] / blurred[20] == pytest.approx(math.exp(-0.5), rel=1e-4)


def test_seeds_follow_from_names_alone() -> None:
    assert corruption_seed("dog/1.jpg", "fog") == corruption_seed("dog/1.jpg", "fog")
    others = [("dog/2.jpg", "fog", 0), ("dog/1.jpg", "snow", 0), ("dog/1.jpg", "fog", 1)]
    assert len({corruption_seed("dog/1.jpg", "fog"), *(corruption_seed(*o) for o in others)}) == 4
    assert corruption_seed("a", "fog") == 653248041875139915  # on every machine


def test_jpeg_by_quality() -> None:
    clip = torch.stack([scene(seed=i) for i in range(2)])
    quality = [psnr(compress_jpeg(clip, q), clip) for q in (100, 75, 50, 25, 18, 15, 10, 7)]
    assert quality == sorted(quality, reverse=True)
    assert torch.equal(compress_jpeg(clip, 18), corrupt(clip, "jpeg", 2, 0))
    assert torch.equal(compress_jpeg(clip[None], 18)[0], compress_jpeg(clip, 18))


def test_there_are_fifteen_in_four_groups() -> None:
    assert len(CORRUPTIONS) == 15
    assert {len(names) for names in GROUPS.values()} == {3, 4}
    assert all(len(c.settings) == len(SEVERITIES) for c in CORRUPTIONS.values())
    assert choose_corruptions("all") == NAMES
    assert choose_corruptions("jpeg, noise") == ("gaussian", "shot", "impulse", "jpeg")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: corrupt(x, "fogg", 1), "did you mean 'fog'"),
        (lambda x: corrupt(x, "fog", 6), "severity is 6"),
        (lambda x: corrupt(x.float(), "fog", 1), "expected uint8"),
        (lambda x: corrupt(x, "fog", 1, [1, 2, 3]), "3 seeds for 2 images"),
        (lambda x: compress_jpeg(x, 0), "quality is 0"),
        (lambda x: choose_corruptions("noise,blurr"), "did you mean 'blur'"),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
