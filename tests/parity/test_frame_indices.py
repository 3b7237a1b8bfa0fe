"""Frame numbers of sparse, segment and trimmed sampling against those of the original loaders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import roots

from framecast.data.clip_sampling import clip_indices, segments, sparse_ranges, sparse_train, trimmed

FILES = [path for root in roots() for path in sorted((root / "videomamba").glob("frame_indices*.json"))]


@pytest.fixture(params=FILES or [None], ids=str)
def rows(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param is None:
        message = f"no videomamba/frame_indices.json in {[str(r) for r in roots()]}; set FRAMECAST_GOLDEN"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return json.loads(Path(request.param).read_text())


def test_every_part_of_the_file_is_known(rows: dict[str, Any]) -> None:
    assert set(rows) <= {"note", "val_test", "train_ranges", "lvu_trimmed_test", "ssv2_test"}


def test_validation_and_test_clips(rows: dict[str, Any]) -> None:
    assert rows["val_test"]
    for row in rows["val_test"]:
        found = clip_indices(
            "sparse",
            row["video_frames"],
            row["num_frames"],
            clip=row["clip"],
            num_clips=row["test_num_segment"],
        )
        assert found.tolist() == row["idx"], row


def test_training_draws_from_the_same_ranges(rows: dict[str, Any]) -> None:
    torch.manual_seed(0)
    for row in rows["train_ranges"]:
        ranges = sparse_ranges(row["video_frames"], row["num_frames"])
        assert ranges.tolist() == row["ranges"]
        draws = np.stack([sparse_train(row["video_frames"], row["num_frames"]) for _ in range(600)])
        assert draws.min(0).tolist() == ranges[:, 0].tolist()
        assert draws.max(0).tolist() == ranges[:, 1].tolist()


def test_trimmed_windows_use_the_rule_inside_them(rows: dict[str, Any]) -> None:
    for row in rows["lvu_trimmed_test"]:
        window = row["video_frames"], row["start"], row["end"]
        found = trimmed(*window, row["num_frames"], row["clip"], row["test_num_segment"])
        assert found.tolist() == row["idx"], row


def test_starts_and_centres_of_segments(rows: dict[str, Any]) -> None:
    for row in rows["ssv2_test"]["rows"]:
        clips = row["test_num_segment"]
        found = [segments(row["video_frames"], row["num_frames"], c, clips) for c in range(clips)]
        assert all(len(one) == row["num_frames"] for one in found)
        for c, one in enumerate(found):
            assert one.tolist() == row["all_sorted"][c::clips], row
