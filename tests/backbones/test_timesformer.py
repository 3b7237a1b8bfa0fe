"""Laws of divided, joint and space-only attention, and where TimeSformer's weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from video_vit import clip, randomised

import framecast as fc

ATTENTION = ("divided", "joint", "space_only")
ORDER = [2, 0, 3, 1]


def without_drops(**config: Any) -> Any:
    return randomised("timesformer_base", num_frames=4, drop_path=0.0, **config)


@torch.no_grad()
def test_space_only_does_not_see_the_order_of_frames() -> None:
    model, x = without_drops(attention="space_only"), clip()
    assert_close(model(x[:, :, ORDER]), model(x))


@pytest.mark.parametrize("attention", ["divided", "joint"])
@torch.no_grad()
def test_time_is_known_from_the_table_of_times_alone(attention: str) -> None:
    model, x = without_drops(attention=attention), clip()
    before = model(x)
    assert (model(x[:, :, ORDER]) - before).abs().max() > 1e-3
    model.time_embed.copy_(model.time_embed[:, ORDER])
    assert_close(model(x[:, :, ORDER]), before)


@pytest.mark.parametrize("attention", ["divided", "space_only"])
@torch.no_grad()
def test_a_still_clip_reads_as_its_image(attention: str) -> None:
    """Without times, and with the temporal residual at its initial zero, divided attention is a ViT."""
    model = without_drops(attention=attention)
    state = model.state_dict()
    if attention == "divided":
        model.time_embed.zero_()
        for block in model.blocks:
            block.temporal_fc.weight.zero_()
            block.temporal_fc.bias.zero_()
    image = clip(frames=1)
    state = {key: t for key, t in state.items() if "temp" not in key and "time" not in key}
    vit = fc.import_checkpoint("vit", state, num_heads=3)
    assert_close(model(image.expand(-1, -1, 4, -1, -1)), vit(image[:, :, 0]))


@torch.no_grad()
def test_divided_without_temporal_residual_hears_other_frames_through_the_class_token() -> None:
    model, x = without_drops(depth=2), clip(batch=1)
    model.blocks[0].temporal_fc.weight.zero_()
    model.blocks[1].temporal_fc.weight.zero_()
    changed = x.clone()
    changed[:, :, 3] += 1
    patches = [model.forward_features(c, layer=0)[:, 1:].unflatten(1, (-1, 4)) for c in (x, changed)]
    assert_close(patches[0][:, :, :3], patches[1][:, :, :3])
    patches = [model.forward_features(c, layer=1)[:, 1:].unflatten(1, (-1, 4)) for c in (x, changed)]
    assert (patches[0] - patches[1])[:, :, :3].abs().max() > 1e-4


@pytest.mark.parametrize("attention", ATTENTION)
@torch.no_grad()
def test_other_clips_at_run_time(attention: str) -> None:
    """Tables are resampled to more frames and other image sizes, by their nearest rows."""
    model = without_drops(attention=attention)
    assert model(clip(frames=6, side=24)).shape == (2, 5)
    if attention == "divided":
        twice = clip().repeat_interleave(2, dim=2)  # nearest rows: every time stands twice
        assert_close(model(twice), model(clip()))


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_released_file_is_read(attention: str, tmp_path: Path) -> None:
    """Wrapped as {"model_state": ...}, every name behind "model."."""
    model = without_drops(attention=attention)
    wrapped = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"model_state": wrapped, "epoch": 15}, tmp_path / "TimeSformer.pyth")
    again: Any = fc.import_checkpoint("timesformer", tmp_path / "TimeSformer.pyth", num_heads=3)
    assert again.registered_name == "timesformer_base"
    assert again.config.attention == attention
    with torch.no_grad():
        assert torch.equal(again(clip()), model(clip()))


def test_longer_and_larger_at_import() -> None:
    model = without_drops()
    again: Any = fc.import_checkpoint(
        "timesformer", model.state_dict(), num_heads=3, num_frames=8, image_size=32
    )
    assert again.import_report.resampled == ["pos_embed", "time_embed"]
    with torch.no_grad():
        assert_close(again(clip(8, 32)), model(clip(8, 32)))


@pytest.mark.parametrize("attention", ATTENTION)
def test_it_starts_as_the_image_model(attention: str) -> None:
    """Image weights: attention along time starts as that in space, and adds nothing yet."""
    vit = randomised("vit_tiny")
    model: Any = fc.import_checkpoint(
        "timesformer", vit.state_dict(), num_heads=3, num_frames=4, attention=attention
    )
    times = [] if attention == "space_only" else ["time_embed"]
    silent = [f"blocks.{i}.temporal_fc.{part}" for i in (0, 1) for part in ("weight", "bias")]
    assert model.import_report.fresh == times + (silent if attention == "divided" else [])
    if attention == "divided":
        assert torch.equal(model.blocks[1].temporal_attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
        assert torch.equal(model.blocks[1].temporal_norm1.bias, vit.blocks[1].norm1.bias)
    image = clip(frames=1)
    frames = 1 if attention == "joint" else 4  # joint: with more frames the class token weighs less
    with torch.no_grad():
        assert_close(model(image.expand(-1, -1, frames, -1, -1)), vit(image[:, :, 0]))


def test_image_weights_for_other_classes_get_a_new_head() -> None:
    vit = randomised("vit_tiny")
    model: Any = fc.import_checkpoint("timesformer", vit.state_dict(), num_heads=3, num_classes=7)
    assert model.head.weight.shape == (7, 24)
    assert model.import_report.ignored == dict.fromkeys(
        ("head.weight", "head.bias"), "the head of other classes"
    )
    assert {"head.weight", "head.bias"} <= set(model.import_report.fresh)
    assert "left as initialised: time_embed" in str(model.import_report)


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reads clips \(B, 3, frames, H, W\), but got \(2, 3, 16, 16\)"):
        without_drops()(clip()[:, :, 0])
