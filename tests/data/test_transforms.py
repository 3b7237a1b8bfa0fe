"""Augmentation draws once for all frames; views are cut where the published protocols cut them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import InterpolationMode, v2

from framecast.data.rand_augment import RandAugment, parse_name
from framecast.data.transforms import (
    BatchMix,
    TransformSettings,
    cover,
    cut_box,
    normalise,
    take_views,
    train_transform,
)
from framecast.metrics.view_protocols import VIEW_PROTOCOLS, ViewProtocol, get_view_protocol

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
EVERYTHING = [
    {"scale": (0.2, 1.0)},
    {"scale": None, "hflip": 0.5},
    {"scale": None, "pad": 4},
    {"scale": None, "short_side": (30, 48)},
    {"rand_augment": "rand-m9-mstd0.5-inc1"},
    {"rand_augment": "rand-m7-n4-mstd0.5-inc1-p1", "augment_first": True},
    {"color_jitter": 0.4},
    {"channels": "bgr", "interpolation": "bilinear"},
]


def transform(**changes: object) -> torch.nn.Module:
    return train_transform(TransformSettings((24, 32), MEAN, STD, **changes))


@pytest.mark.parametrize("changes", EVERYTHING, ids=str)
def test_all_frames_of_a_clip_are_changed_alike(changes: dict[str, object]) -> None:
    clip = IMAGE.expand(4, -1, -1, -1)
    for seed in range(8):
        torch.manual_seed(seed)
        out = transform(**changes)(clip)
        assert out.shape == (4, 3, 24, 32)
        assert out.dtype == torch.float32
        assert_close(out, out[:1].expand(4, -1, -1, -1))
        torch.manual_seed(seed)  # an image is a clip of one frame
        assert_close(transform(**changes)(IMAGE), out[0], atol=0.06, rtol=0)


def test_augmentation_is_random_and_repeats_with_its_seed() -> None:
    pipeline = transform(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.5)
    torch.manual_seed(0)
    draws = [pipeline(IMAGE) for _ in range(4)]
    assert all(not torch.equal(draws[0], other) for other in draws[1:])
    torch.manual_seed(0)
    assert torch.equal(pipeline(IMAGE), draws[0])


def test_without_augmentation_training_sees_the_image_itself() -> None:
    pipeline = train_transform(TransformSettings((40, 56), MEAN, STD, scale=None, hflip=0))
    assert_close(pipeline(IMAGE), v2.functional.normalize(IMAGE / 255, list(MEAN), list(STD)))


def test_erasing_fills_one_rectangle_with_noise() -> None:
    pipeline = train_transform(TransformSettings((40, 56), MEAN, STD, scale=None, hflip=0, erasing=1.0))
    plain = train_transform(TransformSettings((40, 56), MEAN, STD, scale=None, hflip=0))
    torch.manual_seed(1)
    clip = IMAGE.expand(3, -1, -1, -1)
    changed = (pipeline(clip) != plain(clip)).any(1)  # (T, H, W)
    assert torch.equal(changed[0], changed[1])
    rows, columns = changed[0].any(1).nonzero(), changed[0].any(0).nonzero()
    box = changed[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert box.all()
    assert box.numel() == changed[0].sum()
    assert 0.01 < box.numel() / changed[0].numel() < 0.36


def test_bgr_swaps_channels_before_normalisation() -> None:
    swapped = normalise(IMAGE, MEAN, STD, "bgr")
    assert_close(swapped, normalise(IMAGE.flip(0), MEAN, STD))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": (0.0, 1.0)}, "range of areas"),
        ({"pad": 4}, "plain random crop"),
        ({"hflip": 1.5}, "probability"),
        ({"interpolation": "cubic"}, "bicubic, bilinear"),
        ({"channels": "rbg"}, "rgb, bgr"),
        ({"rand_augment": "rand-x9"}, "'x9' is not understood"),
        ({"rand_augment": "auto-m9"}, "not understood"),
        ({"rand_augment": "rand-m11"}, "m is from 0 to 10"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform(**changes)


def test_rand_augment_names() -> None:
    assert parse_name("rand-m9-mstd0.5-inc1") == {"m": 9, "mstd": 0.5, "inc": 1, "n": 2, "p": 0.5}
    assert parse_name("rand-m7-n4-mstd0.5-inc1")["n"] == 4
    assert torch.equal(RandAugment("rand-m9-p0")(IMAGE), IMAGE)
    torch.manual_seed(0)
    changed = [(RandAugment("rand-m9-n1-p0.5")(IMAGE) != IMAGE).any().item() for _ in range(200)]
    assert 60 < sum(changed) < 130  # half of the time, and torchvision's Identity changes nothing


# --- Views -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 56), (56, 40), (300, 301), (33, 200)])
def test_centre_view_equals_the_usual_pipeline(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    usual = v2.Compose([v2.Resize(256, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(224)])
    assert torch.equal(take_views(image, get_view_protocol("image/center-0.875"), 224)[0], usual(image))


@pytest.mark.parametrize("long", [32, 33, 45, 46, 47])
def test_three_crops_start_at_published_places(long: int) -> None:
    rows = torch.arange(32)[:, None].expand(32, long)
    columns = torch.arange(long).expand(32, long)
    for frames, axis in (
        (torch.stack([rows, columns, rows]), 1),
        (torch.stack([columns.T, rows.T, rows.T]), 0),
    ):
        views = take_views(frames.to(torch.uint8), get_view_protocol("kinetics/3x4"), 32)
        assert views.shape == (3, 3, 32, 32)
        starts = views[:, axis if axis else 0, 0, 0].tolist()
        assert starts == [j * (long - 32) // 2 for j in range(3)]


def test_direct_resize_keeps_the_whole_image() -> None:
    halves = torch.zeros(3, 40, 80, dtype=torch.uint8)
    halves[..., 40:] = 200
    view = take_views(halves, get_view_protocol("image/resize-384"), 224)
    assert view.shape == (1, 3, 384, 384)
    assert (view[0, 0, :, 0] == 0).all()
    assert (view[0, 0, :, -1] == 200).all()


@pytest.mark.parametrize("protocol", VIEW_PROTOCOLS.values(), ids=lambda p: p.name)
def test_every_protocol_gives_its_views(protocol: ViewProtocol) -> None:
    clip = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    frames = clip if protocol.kind == "video" else clip[0]
    views = take_views(frames, protocol, 24)
    side = protocol.image_size or 24
    assert views.shape == (protocol.crops, *frames.shape[:-2], side, side)


def test_cover_fits_one_side_exactly() -> None:
    for size in [(24, 24), (24, 40), (31, 17), (100, 100)]:
        for frame in (torch.zeros(3, 37, 53), torch.zeros(3, 53, 37), torch.zeros(3, 3, 999)):
            height, width = cover(frame, size, InterpolationMode.BILINEAR).shape[-2:]
            assert height >= size[0]
            assert width >= size[1]
            assert height == size[0] or width == size[1]


# --- Mixing ------------------------------------------------------------------------------------------------


def test_mixup_mixes_pixels_and_targets_by_the_same_share() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 3])
    pixels = labels.float().view(4, 1, 1, 1, 1).expand(4, 3, 2, 8, 8)  # clips whose pixels are their class
    mixed, targets = BatchMix(4, mixup=0.8)(pixels, labels)
    assert_close(targets.sum(1), torch.ones(4))
    assert_close((targets * torch.arange(4.0)).sum(1), mixed[:, 0, 0, 0, 0])
    assert not torch.equal(mixed, pixels)


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels() -> None:
    labels = torch.tensor([0, 1])
    pixels = labels.float().view(2, 1, 1, 1, 1).expand(2, 3, 2, 16, 16)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = BatchMix(2, cutmix=1.0)(pixels, labels)
        assert mixed.unique().tolist() in ([0.0, 1.0],)
        assert_close(targets[0, 1], mixed[0].mean())
        assert_close(targets[1, 1], mixed[1].mean())
        assert torch.equal(mixed[:, :1, :1].expand_as(mixed), mixed)  # the same in all frames and channels


def test_mixing_can_be_off_or_rare() -> None:
    labels, pixels = torch.tensor([2, 0, 1]), torch.rand(3, 3, 8, 8)
    same, targets = BatchMix(3, smoothing=0.1)(pixels, labels)
    assert same is pixels
    assert_close(targets[0], torch.tensor([0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3]))
    torch.manual_seed(0)
    mix = BatchMix(3, mixup=0.8, cutmix=1.0, prob=0.3)
    untouched = sum(mix(pixels, labels)[0] is pixels for _ in range(300))
    assert 180 < untouched < 240
    with pytest.raises(ValueError, match="0 = off"):
        BatchMix(3, mixup=-1)


def test_the_box_leaves_the_share_that_it_says() -> None:
    torch.manual_seed(0)
    for share in (0.0, 0.3, 0.9, 1.0):
        (rows, columns), left = cut_box(20, 30, share)
        area = len(range(20)[rows]) * len(range(30)[columns])
        assert left == pytest.approx(1 - area / 600)
        assert left >= share - 1e-9
