"""The ViT gives the numbers of timm's VisionTransformer on the golden fixtures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden import Fixture, fixtures, require
from torch.testing import assert_close

import framecast as fc

LATER = {"timesformer", "xvit", "deit_joint_video"}


def build(fixture: Fixture) -> torch.nn.Module:
    config = fixture.config
    size = config["img_size"]
    return fc.import_checkpoint(
        "vit",
        fixture.part("state"),
        num_heads=config["heads"],
        image_size=size if isinstance(size, int) else tuple(size),
        gelu="tanh" if "tanh" in config["act"] else "erf",
        norm_eps=config["ln_eps"],
    )


@pytest.mark.parametrize("fixture", fixtures("vit"))
def test_vit(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    if fixture.kind in LATER:
        pytest.skip(f"kind {fixture.kind} comes with the video ViTs")
    assert fixture.kind == "vit", f"unknown kind {fixture.kind}"
    model = build(fixture)
    tolerance = fixture.meta["tolerance"]
    given, expected, mid = fixture.part("in"), fixture.part("out"), fixture.part("mid")

    image = given["image"].requires_grad_()
    logits = model(image)
    assert_close(logits, expected["logits"], atol=tolerance["logits_atol"], rtol=0)
    for name, value in mid.items():
        if name == "tokens_final_norm":
            tokens = model.forward_features(image)
        else:
            tokens = model.forward_features(image, layer=int(name.removeprefix("block").removesuffix("_out")))
        assert_close(tokens, value, atol=tolerance["mid_atol"], rtol=0)
    exact = model.double()(image.detach().double())
    assert_close(exact, expected["logits_float64"], atol=tolerance["float64_atol"], rtol=0)

    gradients = fixture.part("grad")
    if gradients:
        model = build(fixture)
        loss = F.cross_entropy(model(image), given["target"])
        loss.backward()
        assert_close(loss, expected["loss"], atol=1e-5, rtol=0)
        near = {"rtol": tolerance["grad_rtol"], "atol": tolerance["grad_atol"]}
        assert_close(image.grad, fixture.part("grad_input")["image"], **near)
        ours = {name: p.grad for name, p in model.named_parameters()}
        assert ours.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert_close(ours[name], gradient, **near)
