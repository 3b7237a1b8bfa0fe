"""ViT, TimeSformer, XViT and the joint space-time ViT give the numbers of their releases on the fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from golden import Fixture, fixtures, require
from torch import Tensor
from torch.testing import assert_close

import framecast as fc

ATTENTION = {"divided_space_time": "divided", "joint_space_time": "joint", "space_only": "space_only"}


def vit(fixture: Fixture) -> Any:
    config = fixture.config
    return fc.import_checkpoint(
        "vit",
        fixture.part("state"),
        num_heads=config["heads"],
        image_size=image_size(config["img_size"]),
        gelu="tanh" if "tanh" in config["act"] else "erf",
        norm_eps=config["ln_eps"],
    )


def timesformer(fixture: Fixture) -> Any:
    config = fixture.config
    return fc.import_checkpoint(
        "timesformer",
        {f"model.{key}": tensor for key, tensor in fixture.part("state").items()},  # as in released files
        num_heads=config["heads"],
        image_size=image_size(config["img_size"]),
        num_frames=config["num_frames"],
        attention=ATTENTION[config["attention_type"]],
        norm_eps=config["ln_eps"],
    )


def xvit(fixture: Fixture) -> Any:
    config = fixture.config
    blocks = config.get("shift_blocks")
    return fc.import_checkpoint(
        "xvit",
        fixture.part("state"),
        num_heads=config["heads"],
        image_size=image_size(config["img"]),
        num_frames=fixture.part("in")["clip"].shape[2],
        group_frames=config["segments"],
        shift_div=config["shift_div"],
        shift_blocks=None if blocks is None else tuple(blocks),
        temporal_heads=config["temporal_head"]["heads"],
    )


def joint(fixture: Fixture) -> Any:
    config = fixture.config
    return fc.import_checkpoint(
        "vit_joint",
        fixture.part("state"),
        num_heads=config["heads"],
        image_size=image_size(config["img"]),
        norm_eps=config["ln_eps"],
    )


BUILD: dict[str, Callable[[Fixture], Any]] = {
    "vit": vit,
    "timesformer": timesformer,
    "xvit": xvit,
    "deit_joint_video": joint,
}


def image_size(size: int | list[int]) -> int | tuple[int, int]:
    return size if isinstance(size, int) else (size[0], size[1])


def inner(model: Any, pixels: Tensor, name: str) -> Tensor:
    """The tokens that a fixture calls `name`, in the release's order."""
    final = name in ("tokens_final_norm", "frame_features")
    layer = None if final else int(name.removeprefix("block").removesuffix("_out"))
    config = model.config
    if getattr(config, "attention", "") == "space_only":  # we average over frames, the fixture does not
        kept: list[Tensor] = []
        handle = model.blocks[layer].register_forward_hook(lambda _module, _given, out: kept.append(out))
        model.forward_features(pixels)
        handle.remove()
        return kept[0]
    tokens = model.forward_features(pixels, layer=layer)
    if hasattr(config, "group_frames"):  # class tokens of all frames stand in front, there in their frame
        cls, patches = tokens.split([config.num_frames, tokens.shape[1] - config.num_frames], dim=1)
        patches = rearrange(patches, "b (t n) d -> (b t) n d", t=config.num_frames)
        return torch.cat([cls.flatten(0, 1)[:, None], patches], dim=1)
    return tokens


@pytest.mark.parametrize("fixture", fixtures("vit"))
def test_vit(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in BUILD, f"unknown kind {fixture.kind}"
    build = BUILD[fixture.kind]
    model = build(fixture)
    tolerance = fixture.meta["tolerance"]
    given, expected = fixture.part("in"), fixture.part("out")
    name, pixels = next((k, t.requires_grad_()) for k, t in given.items() if k in ("image", "clip"))

    assert_close(model(pixels), expected["logits"], atol=tolerance["logits_atol"], rtol=0)
    tokens = model.forward_features(pixels)
    assert_close(model.forward_head(tokens), expected["logits"], atol=tolerance["logits_atol"], rtol=0)
    for key, value in fixture.part("mid").items():
        assert_close(inner(model, pixels, key), value, atol=tolerance["mid_atol"], rtol=0)
    exact = model.double()(pixels.detach().double())
    assert_close(exact, expected["logits_float64"], atol=tolerance["float64_atol"], rtol=0)

    gradients = fixture.part("grad")
    if gradients:
        model = build(fixture)
        loss = F.cross_entropy(model(pixels), given["target"])
        loss.backward()
        assert_close(loss, expected["loss"], atol=1e-5, rtol=0)
        near = {"rtol": tolerance["grad_rtol"], "atol": tolerance["grad_atol"]}
        assert_close(pixels.grad, fixture.part("grad_input")[name], **near)
        ours = {key: p.grad for key, p in model.named_parameters()}
        assert ours.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert_close(ours[key], gradient, **near)
