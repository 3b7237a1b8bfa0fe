"""The joint space-time ViT: tubelets, tables of times, and image weights inflated into it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from video_vit import clip, randomised

import framecast as fc


@torch.no_grad()
def test_time_is_known_from_the_table_of_times_alone() -> None:
    model, x, order = randomised("vit_tiny_joint", num_frames=4), clip(), [2, 0, 3, 1]
    before = model(x)
    assert (model(x[:, :, order]) - before).abs().max() > 1e-3
    model.temporal_pos_embedding.copy_(model.temporal_pos_embedding[:, order])
    assert_close(model(x[:, :, order]), before)


@torch.no_grad()
def test_it_is_joint_timesformer_with_another_patch_embedding() -> None:
    model = randomised("vit_tiny_joint", num_frames=4)
    state = model.state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    state["time_embed"] = state.pop("temporal_pos_embedding")
    other = fc.import_checkpoint("timesformer", state, num_heads=3)
    assert_close(other(clip()), model(clip()))


@pytest.mark.parametrize("inflation", ["centre", "mean"])
@pytest.mark.parametrize("tubelet", [1, 2])
def test_inflated_image_weights(tubelet: int, inflation: str) -> None:
    """A still clip gives the patch tokens of its image, and one tubelet of it the scores."""
    vit = randomised("vit_tiny")
    config = {"num_heads": 3, "num_frames": 4, "tubelet": tubelet, "inflation": inflation}
    model: Any = fc.import_checkpoint("vit_joint", vit.state_dict(), **config)
    assert model.import_report.fresh == ["temporal_pos_embedding"]
    assert model.patch_embed.proj.weight.shape == (24, 3, tubelet, 8, 8)
    image = clip(frames=1)
    with torch.no_grad():
        still = image.expand(-1, -1, 4, -1, -1)
        patches = vit.patch_embed(image[:, :, 0])
        assert_close(model.patch_embed(still), patches[:, None].expand(-1, 4 // tubelet, -1, -1))
        assert_close(model(still[:, :, :tubelet]), vit(image[:, :, 0]))


@torch.no_grad()
def test_clips_of_other_lengths_and_those_that_do_not_fit() -> None:
    model = randomised("vit_tiny_joint", num_frames=4, tubelet=2)
    assert model(clip(frames=6)).shape == (2, 5)
    assert model.forward_features(clip(frames=6)).shape == (2, 1 + 3 * 4, 24)
    with pytest.raises(ValueError, match="clip of 5 frames cannot be cut into tubelets of 2 frames"):
        model(clip(frames=5))
    with pytest.raises(ValueError, match="num_frames 5 is not a multiple of tubelet 2"):
        fc.create_model("vit_tiny_joint", num_frames=5, tubelet=2)


def test_longer_clips_at_import() -> None:
    model = randomised("vit_tiny_joint", num_frames=4, tubelet=2)
    again: Any = fc.import_checkpoint("vit_joint", model.state_dict(), num_heads=3, num_frames=8)
    assert again.import_report.resampled == ["temporal_pos_embedding"]
    with torch.no_grad():
        assert_close(again(clip(8)), model(clip(8)))
