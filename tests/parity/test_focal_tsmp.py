"""Focal-TSMP gives the numbers of its release on the golden fixtures, of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from golden import Fixture, fixtures, require, roots
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.data.drought_weeks import (
    SCALING,
    DroughtWeek,
    channel_names,
    destandardise,
    judge_week,
    read_week,
)
from framecast.metrics.drought import DroughtMetrics
from framecast.models.focal_tsmp import OFFICIAL
from framecast.nn.map_layers import channels_first
from framecast.nn.perceptual import PerceptualDistance
from framecast.tasks.map_loss import map_loss
from framecast.weight_files import compare

DIFFERENCE = {"L1": "l1", "L2": "l2", "Huber": "huber"}


def settings(fixture: Fixture) -> dict[str, Any]:
    """What the tensors of a fixture do not tell."""
    c = fixture.meta["all_config"]
    out: dict[str, Any] = {
        "post_norm": (c["en_use_postln"], c["de_use_postln"]),
        "normalise_modulator": (c["en_normalize_modulator"], c["de_normalize_modulator"]),
        "pretrained_window": c["en_pretrained_window_sizes"][0],
        "up_sampling": c["de_up_sampling"],
    }
    if c["en_ape"]:
        cut = 2 * c["cut_lateral_boundary"]
        out["grid"] = (c["n_lat"] - cut, c["n_lon"] - cut)
    if c["en_channel_att"]:
        out |= {
            "channel_attention": c["en_channel_att_r"],
            "channel_pooling": tuple(c["en_channel_att_p"]),
        }
    return out


def check_model(fixture: Fixture) -> None:
    state = fixture.part("state")
    model: Any = fc.import_checkpoint("focal_tsmp", state, **settings(fixture))
    report = model.import_report
    assert report.complete
    heads = sum(".BT_block." in key or ".NDVI_block." in key for key in state)
    assert len(report.matched) + len(report.ignored) + heads // 2 == len(state)
    x, expected, inner = fixture.part("in")["x"], fixture.part("out"), fixture.part("mid")
    atol = fixture.meta["tolerance"]["atol"]
    for grad in (True, False):  # the readable path, and bands of rows
        with torch.set_grad_enabled(grad):
            given = x.clone()
            for level, ours in enumerate(model.encoder(given)):
                assert_close(channels_first(ours), inner[f"encoder.{level}"], rtol=0.0, atol=atol)
            answer = model(given)
        assert torch.equal(given, x)  # the release changes its input where it has channel attention
        for index, name in enumerate(model.config.targets):
            assert_close(answer[:, index], expected[name], rtol=0.0, atol=atol)


def check_loss(fixture: Fixture) -> None:
    c, given, expected = fixture.config, fixture.part("in"), fixture.part("out")
    widths = tuple(0 if width == "M" else width for width in fixture.meta["vgg_widths"])
    network = PerceptualDistance(widths[: len(widths) - 4])  # what lies behind relu5_1 is never read
    state = fixture.part("state")
    network.load_vgg19(
        {"features." + key.split(".", 3)[3]: t for key, t in state.items()}  # VGG_loss.vgg.slice2.5.weight
    )
    predicted = torch.stack([given["bt_pred"], given["ndvi_pred"]], dim=1).requires_grad_()
    for ours, key in zip(network.looked_at(given["ndvi_pred"]), sorted(fixture.part("mid")), strict=False):
        assert_close(ours, fixture.part("mid")[key], rtol=1e-5, atol=1e-5)
    loss, parts = map_loss(
        predicted,
        torch.stack([standardised(given["bt"], "BT"), standardised(given["ndvi"], "NDVI")], dim=1),
        1 - given["sea"],
        targets=("BT", "NDVI"),
        difference=DIFFERENCE[c["loss_BT"]],  # ty: ignore
        reduction=c["loss_reduction"],
        target_weights={"BT": c["lambda_BT"], "NDVI": c["lambda_NDVI"]},
        perceptual=network,
        perceptual_weight=c["lambda_vgg"],
    )
    rtol = fixture.meta["tolerance"]["rtol"]
    assert c["loss_BT"] == c["loss_NDVI"]
    assert_close(loss, expected["loss"], rtol=rtol, atol=0.0)
    for name, part in parts.items():
        assert_close(part, expected[f"loss_{name}"], rtol=rtol, atol=0.0)
    loss.backward()
    assert predicted.grad is not None
    for index, key in enumerate(("bt_pred", "ndvi_pred")):
        gradient = fixture.part("grad")[key]
        assert_close(predicted.grad[:, index], gradient, rtol=rtol, atol=rtol * float(gradient.abs().max()))


def standardised(values: Tensor, name: str) -> Tensor:
    offset, scale = SCALING[name]
    return (values - offset) / scale


def check_loader(fixture: Fixture) -> None:
    meta, given, expected = fixture.meta, fixture.part("in"), fixture.part("out")
    static = {name: given[f"static.{name}"].numpy() for name in meta["static"]}
    week = read_week(
        {key: tensor.numpy() for key, tensor in given.items()},
        variables=meta["variables"],
        static=static,
        statistics=meta["statistics"],
        climatology=given[f"climatology_week{meta['week']}"].numpy(),
        sea=given["mask_sea"].numpy(),
        no_vegetation=given["mask_no_vegetation"].numpy(),
        rim=meta["cut"],
    )
    assert channel_names(meta["variables"], meta["static"]) == meta["channel_names"]
    pairs = {
        "datacube": week.variables,
        "smn": week.ndvi,
        "smt": week.bt,
        "climatology": week.climatology,
        "cold_surface": week.cold,
        "mask_sea": week.sea,
        "mask_no_vegetation": week.no_vegetation,
    }
    assert pairs.keys() == expected.keys()
    for key, ours in pairs.items():
        assert ours.dtype == np.float32
        assert_close(
            torch.from_numpy(ours),
            expected[key],
            rtol=1e-6,
            atol=meta["tolerance"]["atol"],
            equal_nan=True,
            msg=lambda text, key=key: f"{key}: {text}",
        )


def check_metrics(fixture: Fixture) -> None:
    expected = dict(fixture.meta["metrics"])
    metrics = DroughtMetrics()
    for index in range(expected.pop("seen_iter")):
        given, out = fixture.part(f"in.{index}"), fixture.part(f"out.{index}")
        week = week_of(given)
        maps = judge_week(
            week,
            *(destandardise(given[f"{key}_pred_norm"][0].numpy(), key.upper()) for key in ("ndvi", "bt")),
        )
        metrics.update(maps.values, classes=maps.classes)
        for key, ours in (("class_pred", maps.classes[0]), ("class", maps.classes[1])):
            assert np.array_equal(ours, out[key][0].numpy(), equal_nan=True), key
        known = np.isfinite(maps.values["VHI"][1])
        for key, ours in {
            "VHI": maps.values["VHI"][1],
            **{f"{name}_pred": maps.values[name][0] for name in ("VHI", "VCI", "TCI")},
        }.items():
            np.testing.assert_allclose(ours[known], out[key][0].numpy()[known], rtol=1e-5, atol=1e-5)
    check_scores(metrics, expected, fixture.meta["tolerance"]["atol"])


def week_of(given: dict[str, Tensor]) -> DroughtWeek:
    plain = {key: tensor[0].numpy() for key, tensor in given.items()}
    return DroughtWeek(
        variables=np.zeros((0, *plain["ndvi"].shape), dtype=np.float32),
        **{key: plain[key] for key in ("ndvi", "bt", "climatology", "cold", "sea", "no_vegetation")},
    )


def check_scores(metrics: DroughtMetrics, expected: dict[str, Any], atol: float) -> None:
    scores, confusion = metrics.compute(), metrics.confusion()
    k = len(metrics.classes)
    counts = {
        "correct_label_all": confusion.diagonal().tolist(),
        "seen_label_all": confusion.sum(1).tolist(),
        "predicted_label_all": confusion.sum(0)[:k].tolist(),
        "iou_de_label_all": (confusion.sum(1) + confusion.sum(0)[:k] - confusion.diagonal()).tolist(),
        "correct_drought": int(confusion[:3, :3].sum()),
        "seen_drought": int(confusion[:3].sum()),
        "predicted_drought": int(confusion[:, :3].sum()),
        "iou_de_drought": int(confusion[:3].sum() + confusion[:, :3].sum() - confusion[:3, :3].sum()),
        "correct_all": int(confusion.diagonal().sum()),
        "seen_all": int(confusion.sum()),
    }
    for key, count in counts.items():
        assert expected.pop(key) == count, key
    renamed = {"accuracy_all": "accuracy", "F1_drought": "drought_f1"}
    for key, value in expected.items():
        ours = scores[renamed.get(key, key)]
        assert ours == pytest.approx(value, rel=atol, abs=atol), key


CHECKS: dict[str, Callable[[Fixture], None]] = {
    "model": check_model,
    "loss": check_loss,
    "loader": check_loader,
    "metrics": check_metrics,
}


@pytest.mark.parametrize("fixture", fixtures("focal_tsmp"))
def test_focal_tsmp(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    CHECKS[fixture.kind](fixture)


def released_layouts() -> list[Any]:
    """(name, key -> shape) of whole models as released."""
    found = []
    for root in roots():
        for path in sorted((root / "focal_tsmp").glob("*.json")):
            for name, shapes in json.loads(path.read_text()).items():
                found.append(pytest.param(shapes, id=name))
    return found or [pytest.param(None, id="no golden folder")]


@pytest.mark.parametrize("shapes", released_layouts())
def test_every_tensor_of_a_released_model_has_its_place(shapes: dict[str, list[int]] | None) -> None:
    if shapes is None:
        require(None)
        return
    (layout,) = OFFICIAL
    with torch.device("meta"):
        state = layout.prepare({key: torch.empty(shape) for key, shape in shapes.items()})
        model = fc.create_model("focal_tsmp", **layout.read_config(state, {}))
    used = {key: tensor for key, tensor in state.items() if layout.reason_to_ignore(key) is None}
    ours = {layout.translate(key) or f"unknown {key}": tensor for key, tensor in used.items()}
    assert len(ours) == len(used)
    fit = compare(ours, model.state_dict())
    assert fit.complete, fit.problems()
    default = fc.create_model("focal_tsmp").config
    assert model.config.widths == default.widths
    assert model.config.depths == default.depths
    assert model.config.heads == default.heads
    assert model.config.mlp_ratio == default.mlp_ratio or "cnn" in model.config.encoder
