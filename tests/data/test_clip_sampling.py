"""Laws of frame sampling; exact numbers are in tests/parity/test_frame_indices.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.data.clip_sampling import SAMPLINGS, clip_indices, dense, midpoints, trimmed_windows


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SAMPLINGS), st.integers(1, 400), st.integers(1, 64), st.integers(1, 2), st.integers(1, 20)
)
def test_indices_are_ascending_frames_of_the_video(
    sampling: str, video_frames: int, num_frames: int, num_clips: int, stride: int
) -> None:
    torch.manual_seed(video_frames)
    for clip in (None, *range(num_clips)):
        found = clip_indices(
            sampling, video_frames, num_frames, clip=clip, num_clips=num_clips, stride=stride
        )
        assert found.shape == (num_frames,)
        assert found.dtype == np.int64
        assert found.min() >= 0
        assert found.max() < video_frames
        assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_training_is_random_and_testing_is_not(sampling: str) -> None:
    torch.manual_seed(0)
    draws = {tuple(clip_indices(sampling, 300, 8)) for _ in range(5)}
    assert len(draws) == 5
    torch.manual_seed(3)
    first = clip_indices(sampling, 300, 8)
    torch.manual_seed(3)
    assert np.array_equal(clip_indices(sampling, 300, 8), first)
    assert np.array_equal(clip_indices(sampling, 300, 8, clip=0), clip_indices(sampling, 300, 8, clip=0))


def test_dense_windows() -> None:
    assert dense(300, 8, 32).tolist() == [0, 36, 72, 109, 145, 182, 218, 255]  # from the first frame on
    assert dense(100, 4, 10, centred=True).tolist() == [30, 43, 56, 69]  # in the middle
    assert dense(20, 4, 10).tolist() == [0, 13, 19, 19]  # stays on the last frame
    starts = [dense(300, 8, 16, c, 4)[0] for c in range(4)]
    assert starts == [0, 43, 86, 129]


def test_midpoints_lie_inside_the_parts() -> None:
    assert midpoints(41, 4).tolist() == [5, 15, 25, 35]


def test_windows_of_long_videos() -> None:
    assert trimmed_windows(3000, 25.0) == [(0, 1500), (400, 1900), (800, 2300), (1200, 2700), (1600, 2999)]
    assert trimmed_windows(100, 25.0) == [(0, 99)]


def test_what_makes_no_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'dense'"):
        clip_indices("dens", 10, 4)
    with pytest.raises(ValueError, match="from 0 to 3"):
        clip_indices("sparse", 10, 4, clip=4, num_clips=4)
    with pytest.raises(ValueError, match="at least 1"):
        clip_indices("sparse", 0, 4)
    with pytest.raises(ValueError, match="1 or 2 clips"):
        clip_indices("segments", 10, 4, clip=0, num_clips=3)
    with pytest.raises(ValueError, match="stride is 0"):
        clip_indices("dense", 10, 4, clip=0, stride=0)
