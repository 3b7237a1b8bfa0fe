"""Which frames of a video are read, how they fit into a square, and that nothing is mirrored unasked."""

from __future__ import annotations

import pytest
import torch

from framecast.backbones.stab import CLIP_MEAN, CLIP_STD
from framecast.data.letterbox import frame_positions, letterbox, letterboxed_size, mirrored


@pytest.mark.parametrize(
    ("video_frames", "rate", "expected"),
    [
        (300, 30.0, [0, 30, 60, 90, 150, 180, 210, 270]),  # ten seconds
        (60, 30.0, [0, 8, 16, 24, 32, 40, 48, 56]),
        (5, 30.0, [0, 1, 2, 3, 4]),
        (1, 30.0, [0]),
        (4, 0.2, [0, 1, 2, 3]),  # the release stops here with an error
    ],
)
def test_positions(video_frames: int, rate: float, expected: list[int]) -> None:
    assert frame_positions(video_frames, rate) == expected


def test_positions_are_always_some_of_the_video() -> None:
    for video_frames in range(1, 200):
        for rate in (0.1, 0.5, 1.0, 7.3, 29.97):
            positions = frame_positions(video_frames, rate)
            assert positions == sorted(set(positions))
            assert 0 <= positions[0] <= positions[-1] < video_frames
            assert min(8, video_frames) == len(positions)
    with pytest.raises(ValueError, match="no frames"):
        frame_positions(0, 25.0)
    with pytest.raises(ValueError, match="must be positive"):
        frame_positions(10, 0.0)


def test_sizes_are_whole_patches_of_the_teacher() -> None:
    assert letterboxed_size(480, 480) == (448, 448)
    assert letterboxed_size(720, 1280) == (252, 448)  # 9 of 16 units, exactly
    assert letterboxed_size(1920, 1080) == (448, 252)
    assert letterboxed_size(100, 1000) == (56, 448)  # rounded up
    assert letterboxed_size(720, 1280, 224, 14) == (126, 224)  # the teacher's, half of it


def test_frames_stand_in_the_middle_of_a_margin_of_the_mean_colour() -> None:
    frames = torch.full((3, 3, 90, 160), 255, dtype=torch.uint8)
    clip, valid = letterbox(frames, CLIP_MEAN, CLIP_STD, size=64, unit=4, num_frames=4)
    assert clip.shape == (3, 4, 64, 64)
    rows = valid[0].any(1).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (12, 47)  # 9 of 16 units, 3 before and 4 behind
    assert valid[0, 12:48].all()
    assert not valid[3].any()
    assert (clip[:, ~valid] == 0).all()
    white = (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert torch.allclose(clip[:, valid], white[:, None].expand(-1, int(valid.sum())))


def test_mirroring() -> None:
    student, teacher = torch.arange(4.0), torch.arange(2.0)
    generator = torch.Generator().manual_seed(0)
    seen: dict[str, set[tuple[bool, bool]]] = {"never": set(), "together": set(), "release": set()}
    for mirror, outcomes in seen.items():
        for _ in range(40):
            a, b = mirrored(student, teacher, mirror, generator)  # ty: ignore[invalid-argument-type]
            assert b is not None
            outcomes.add((bool(a[0] != 0), bool(b[0] != 0)))
    assert seen["never"] == {(False, False)}
    assert seen["together"] == {(False, False), (True, True)}
    assert len(seen["release"]) == 4


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 frames \(T, 3, H, W\)"):
        letterbox(torch.zeros(2, 3, 8, 8), CLIP_MEAN, CLIP_STD)
    with pytest.raises(ValueError, match="9 frames for a clip of 8"):
        letterbox(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), CLIP_MEAN, CLIP_STD, num_frames=8)
    with pytest.raises(ValueError, match="not cut into units"):
        letterboxed_size(4, 4, 448, 30)
