"""XViT's exchange of channels along time, its groups of frames, and where its weights come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from video_vit import clip, randomised

import framecast as fc
from framecast.backbones.xvit import shift_in_time


def model_of(**config: Any) -> Any:
    small = {"num_frames": 4, "group_frames": 2, "time_steps": 2, "temporal_heads": 3, "head_width": 16}
    return randomised("xvit_base", **small | config)


def frames_reached(model: Any, changed_frame: int) -> list[int]:
    """Frames whose tokens after the last block change when one frame of the clip changes."""
    x = clip(batch=1)
    other = x.clone()
    other[:, :, changed_frame] += 1
    with torch.no_grad():
        difference = model.forward_features(x) - model.forward_features(other)
    patches = difference[:, model.num_prefix_tokens :].unflatten(1, (4, -1))
    return [t for t in range(4) if patches[:, t].abs().max() > 1e-6]


def test_shift_takes_channels_from_the_neighbours() -> None:
    x = torch.arange(1.0, 4)[:, None, None].expand(3, 1, 8)  # (T, N, C), frame number as value
    after, before, same = shift_in_time(x, 3, 4).split([2, 2, 4], dim=-1)
    assert after[:, 0, 0].tolist() == [2, 3, 0]
    assert before[:, 0, 1].tolist() == [0, 1, 2]
    assert torch.equal(same, x[..., 4:])


def test_groups_of_frames_do_not_see_each_other() -> None:
    model = model_of()
    assert frames_reached(model, 0) == [0, 1]
    assert frames_reached(model, 2) == [2, 3]
    with torch.no_grad():
        other = clip()
        other[:, :, 3] += 1
        assert (model(clip()) - model(other)).abs().max() > 1e-4  # they meet in the temporal head


@pytest.mark.parametrize(("depth", "reached"), [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3])])
def test_each_block_reaches_one_frame_further(depth: int, reached: list[int]) -> None:
    model = model_of(group_frames=None, depth=depth)
    assert frames_reached(model, 0) == reached
    assert frames_reached(model_of(group_frames=None, depth=depth, shift_blocks=[0]), 0) == [0, 1]


@torch.no_grad()
def test_a_group_is_a_shorter_clip() -> None:
    model = model_of()
    short = model_of(num_frames=2)
    short.load_state_dict(model.state_dict())
    tokens, part = model.forward_features(clip()), short.forward_features(clip()[:, :, 2:])
    assert_close(tokens[:, 2:4], part[:, :2])
    assert_close(tokens[:, 4 + 2 * 4 :], part[:, 2:])


def released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the names of the release."""
    heads = {"head.cls_token": "consensus.cls_token", "head.blocks.": "consensus.temporal_encoder."}
    heads |= {"head.norm.": "consensus.mlp_head.0.", "head.mlp.0.": "consensus.mlp_head.1."}
    heads |= {"head.mlp.3.": "consensus.mlp_head.4.", "time_embed": "base_model.temp_embed"}
    out = {}
    for key, tensor in state.items():
        prefix = next((p for p in heads if key.startswith(p)), None)
        name = f"base_model.{key}" if prefix is None else heads[prefix] + key.removeprefix(prefix)
        out[name] = tensor
    return out | {"new_fc.weight": torch.zeros(5, 24), "new_fc.bias": torch.zeros(5)}


def test_released_names() -> None:
    model = model_of()
    again: Any = fc.import_checkpoint(
        "xvit", released(model.state_dict()), num_heads=3, num_frames=4, group_frames=2, temporal_heads=3
    )
    assert again.import_report.ignored == dict.fromkeys(
        ("new_fc.weight", "new_fc.bias"), "not used by the release itself"
    )
    with torch.no_grad():
        assert torch.equal(again(clip()), model(clip()))


def test_image_weights_leave_the_temporal_head_new() -> None:
    vit = randomised("vit_tiny")
    model: Any = fc.import_checkpoint("xvit", vit.state_dict(), num_heads=3, temporal_heads=3, num_frames=8)
    report = model.import_report
    assert set(report.fresh) == {"time_embed", *(k for k in model.state_dict() if k.startswith("head."))}
    assert torch.equal(model.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)


def test_frames_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="clip has 6 frames; this XViT reads clips of 4"):
        model_of()(clip(frames=6))
    with pytest.raises(ValueError, match="num_frames 12 is not a multiple of group_frames 8"):
        fc.create_model("xvit_base", num_frames=12)
