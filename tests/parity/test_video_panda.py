"""Video-Panda's vision part, the splicing of its tokens and its alignment give the release's numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from golden import Fixture, fixtures, require, roots
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.stab import cropped
from framecast.backbones.stab_frames import Box, boxes_of, valid_patches
from framecast.models.video_panda_alignment import released_alignment, teacher_frames
from framecast.nn.splicing import splice


def near(fixture: Fixture) -> dict[str, Any]:
    return {"rtol": 0.0, **fixture.meta["tolerance"]}


def parted(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The release's frames (T, 4, H, W) as a clip (1, 3, T, H, W) and its valid pixels (1, T, H, W)."""
    return frames[:, :3].transpose(0, 1)[None], frames[None, :, 3] != 0


def released(fixture: Fixture, **config: Any) -> Any:
    """The vision part; how many heads its clip attention has is not told by tensors."""
    if "temporal_heads" in fixture.meta:
        config["temporal_heads"] = fixture.meta["temporal_heads"]
    if "spatial_heads" in fixture.meta:
        config["num_heads"] = fixture.meta["spatial_heads"]
    if "chunk" in fixture.meta:
        config["chunk_frames"] = fixture.meta["chunk"]
    processor = fixture.meta["processor"]
    config |= {"pool": processor["conv_stride"], "image_size": processor["image_size"]}
    state = {k: t for k, t in fixture.part("state").items() if not k.startswith("embed_tokens")}
    model: Any = fc.import_checkpoint("video_panda", state, **config)
    assert model.config.patch_size == processor["patch_stride"]
    return model


def check_stab(fixture: Fixture) -> None:
    given, expected = fixture.part("in"), fixture.part("out")
    for changes in ({}, {"crop": "release"}):
        model = released(fixture, **changes)
        for v, about in enumerate(fixture.meta["videos"]):
            clips, valid = parted(given[f"{v}.frames"])
            for impl in ("auto", "reference"):
                with torch.no_grad():
                    (tokens,) = model.encode(clips, valid, impl=impl)
                assert [len(frame) for frame in tokens.frames] == about["tokens_per_frame"]
                for i, (frame, grid) in enumerate(zip(tokens.frames, tokens.grids, strict=True)):
                    assert_close(frame, expected[f"{v}.tokens.{i}"], **near(fixture))
                    assert list(grid) == expected[f"{v}.hw.{i}"].tolist()
            check_middle(model, clips, valid, fixture, fixture.part(f"mid.{v}"))


@torch.no_grad()
def check_middle(
    model: Any, clips: Tensor, valid: Tensor, fixture: Fixture, middle: dict[str, Tensor]
) -> None:
    """What the parts give; channels come second in the release."""
    patches = valid_patches(valid, clips, model.config.patch_size)
    mixed, clip = model.mix(clips, patches)
    if "lmhra1" in middle:
        chunks = model.embed(clips).unflatten(1, (-1, model.config.chunk_frames)).flatten(0, 1)
        mixing = model.mixing(chunks)
        assert_close(mixing.permute(0, 4, 1, 2, 3), middle["lmhra1"], **near(fixture))
        position = model.position(chunks + mixing)
        assert_close(position.permute(0, 4, 1, 2, 3), middle["dpe"], **near(fixture))
        assert_close(clip[:: model.config.chunk_frames], middle["gstra"][0], **near(fixture))
    corner = Box(0, 0, *(min(n, model.config.empty_patches) for n in mixed.shape[2:4]))
    boxes = [box or corner for box in boxes_of(patches.flatten(0, 1), model.config.crop)]
    for name, i in (("0", 0), ("last", len(boxes) - 1)):
        pooled = model.pooled(cropped(mixed.flatten(0, 1), boxes, [i]))
        if f"fused.{name}" in middle:
            context = model.context(pooled, None if clip is None else clip[[i]])
            assert_close(context, middle[f"fused.{name}"], **near(fixture))
        if name == "0":
            assert_close(pooled, middle["lsd.0"], **near(fixture))
            frame = model.frame_summary(model.frame_token[None], pooled)
            assert_close(frame, middle["fsra.0"][0], **near(fixture))


def check_assembly(fixture: Fixture) -> None:
    given, expected, state = fixture.part("in"), fixture.part("out"), fixture.part("state")
    table = state["embed_tokens.weight"]
    model = released(fixture, temporal_heads=heads_of(fixture))
    blocks = []
    for i, lengths in enumerate(fixture.meta["feature_lens"]):
        frames = given[f"frames.{i}"] if f"frames.{i}" in given else given[f"image.{i}"]
        with torch.no_grad():
            (tokens,) = model.encode(*parted(frames))
        assert [len(frame) for frame in tokens.frames] == lengths
        blocks.append(tokens.frames)
    spliced = splice(
        given["input_ids"],
        blocks,
        lambda ids: table[ids],
        mask=given["attention_mask"],
        labels=given["labels"],
        padding=fixture.meta["padding_side"],
    )
    assert torch.equal(spliced.mask, expected["attention_mask"])
    assert spliced.labels is not None
    assert torch.equal(spliced.labels, expected["labels"])
    assert_close(spliced.embeddings, expected["inputs_embeds"], **near(fixture))
    for row, own, spans in zip(spliced.embeddings, blocks, spliced.spans, strict=True):
        for (first, length), block in zip(spans, own, strict=True):
            assert torch.equal(row[first : first + length], block)


def heads_of(fixture: Fixture) -> int:
    return fixture.meta.get("temporal_heads", 4)  # as all tiny fixtures have, says their README


def check_distill(fixture: Fixture) -> None:
    about, given, expected = fixture.meta, fixture.part("in"), fixture.part("out")
    size = about["processor"]
    hidden = given["hidden_states"].requires_grad_()
    model = released_alignment(fixture.part("state"), num_layers=about["num_layer"], num_heads=about["heads"])
    assert model.config.layer_step == about["layer_rate"]
    blocks = [[torch.zeros(n, hidden.shape[-1]) for n in lengths] for lengths in about["feature_lens"]]
    spliced = splice(given["input_ids"], blocks, lambda ids: torch.zeros(len(ids), hidden.shape[-1]))
    grid = size["image_size_teacher"] // size["patch_stride_teacher"]
    features = given["teacher_patch_features"].unflatten(2, (grid, grid))
    clips, valid = parted(given["teacher_images"])
    patches = valid_patches(valid, clips, size["patch_stride_teacher"])[0]
    teacher = [
        teacher_frames(own, seen)
        for own, seen in zip(features, patches.split(features.shape[1]), strict=True)
    ]
    grids = [[tuple(grid) for grid in frames] for frames in about["patch_hw"]]
    loss = model.loss(hidden.unbind(2), spliced.spans, grids, teacher)
    assert_close(loss, expected["loss"], **near(fixture))
    loss.backward()
    for key, gradient in fixture.part("grad").items():
        sample = int(key.removeprefix("hidden_states_sample"))
        assert hidden.grad is not None
        assert_close(hidden.grad[sample][: len(gradient)], gradient, **near(fixture))


CHECKS = {"stab": check_stab, "assembly": check_assembly, "distill": check_distill}


@pytest.mark.parametrize("fixture", fixtures("video_panda"))
def test_video_panda(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    CHECKS[fixture.kind](fixture)


def layouts() -> list[Any]:
    found = [path for root in roots() for path in sorted((root / "video_panda").glob("*layout*.json"))]
    return [pytest.param(path, id=path.stem) for path in found] or [pytest.param(None, id="no golden folder")]


@pytest.mark.parametrize("path", layouts())
@pytest.mark.parametrize("names", ["videos", "images", "both"])
def test_released_layout(path: Any, names: str) -> None:
    """Every tensor of the release has its place, by either of its names; nothing is computed."""
    if path is None:
        require(None)
    shapes = json.loads(path.read_text())
    images = {
        key.replace("video_tower", "vision_tower").replace("video_projector", "mm_projector"): shape
        for key, shape in shapes.items()
    }
    shapes = {"videos": shapes, "images": images, "both": shapes | images}[names]
    with torch.device("meta"):
        model: Any = fc.import_checkpoint("video_panda", {k: torch.empty(s) for k, s in shapes.items()})
    report = model.import_report
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    assert sorted(report.matched) == sorted(model.state_dict())
    assert set(report.ignored.values()) == {"built by the release and never run"}
    assert model.registered_name == "video_panda_stab"
    assert sum(p.numel() for p in model.parameters()) == 45_066_578
