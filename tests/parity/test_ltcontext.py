"""LTContext and MS-TCN give the numbers of the official release on the golden fixtures."""

from __future__ import annotations

import importlib

import pytest
import torch
from golden import Fixture, fixtures, require
from torch.testing import assert_close

import framecast as fc
from framecast.tasks.segmentation_loss import smoothed_cross_entropy

GRADIENT = {"rtol": 2e-3, "atol": 1e-5}
LOGITS = {"rtol": 1e-4, "atol": 2e-5}


def build(fixture: Fixture) -> torch.nn.Module:
    config, state = fixture.config, fixture.part("state")
    if fixture.kind == "mstcn":
        return fc.import_checkpoint("mstcn", state, strict_padding=False)
    return fc.import_checkpoint(
        "ltcontext",
        state,
        window=config["windowed_attn_w"],
        stride=config["long_term_attn_g"],
        num_heads=config["num_attn_heads"],
        dilation_base=config["conv_dilation_factor"],
        norm="instance" if config["instance_norm_actually_applied"] else "none",
        strict_padding=False,
    )


def translate(system: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official gradients under our names, through the table that the weights went through."""
    module = {"ltcontext": "framecast.models.ltcontext", "mstcn": "framecast.models.mstcn"}[system]
    (layout,) = importlib.import_module(module).OFFICIAL
    return {layout.translate(key): t for key, t in layout.prepare(dict(tensors)).items()}


@pytest.mark.parametrize("fixture", fixtures("ltcontext"))
def test_ltcontext(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in ("ltcontext", "mstcn"), f"unknown kind {fixture.kind}"
    model = build(fixture)
    given, expected = fixture.part("in"), fixture.part("out")
    mask = given["masks"][:, 0]

    with torch.no_grad():
        logits = model(given["features"], mask)
    assert_close(logits, expected["logits"], **LOGITS)
    assert torch.equal(logits[-1].argmax(1)[mask], expected["pred"][mask])

    logits = model(given["features"], mask)  # the differentiable path
    assert_close(logits, expected["logits"], **LOGITS)
    loss, parts = smoothed_cross_entropy(
        logits,
        given["targets"],
        smoothing=fixture.config["mse_fraction"],
        clip=fixture.config["mse_clip"],
        ignore_index=fixture.config["ignore_idx"],
        average="frames",
    )
    assert_close(loss.reshape(1), expected["loss"], rtol=1e-5, atol=1e-5)
    if "loss_ce" in expected:
        assert_close(parts["cross_entropy"].reshape(1), expected["loss_ce"], rtol=1e-5, atol=1e-5)

    gradients = translate(fixture.kind, fixture.part("grad"))
    if gradients:
        loss.backward()
        ours = {name: p.grad for name, p in model.named_parameters()}
        assert ours.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert_close(ours[name], gradient, **GRADIENT)


@pytest.mark.parametrize("fixture", fixtures("ltcontext"))
def test_official_layout_is_complete(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    report = build(fixture).import_report
    assert report.complete
    assert len(report.matched) == len(translate(fixture.kind, fixture.part("state")))
