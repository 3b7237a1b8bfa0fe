"""GTDA gives the numbers of the official release on the golden fixtures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Fixture, fixtures, require
from label_diffusion import build, check_denoiser, check_gradients, check_sampling, inputs
from torch import nn
from torch.testing import assert_close

import framecast as fc
from framecast.models.label_diffusion import denoising_loss, staged_cross_entropy
from framecast.nn.diffusion import sampling_times, schedule_tables
from framecast.train.optim import AveragedWeights

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
STEP = {"rtol": 1e-4, "atol": 1e-4}


def check_one_forward(fixture: Fixture) -> None:
    model, given = build(fixture), inputs(fixture)
    stage_masks = [given[f"stage_mask.{i}"] for i in range(model.config.num_stages)]
    check_denoiser(fixture, model, FORWARD, stage_masks=stage_masks)


def check_deterministic(fixture: Fixture) -> None:
    obs_stages = fixture.meta["obs_stages"]
    model = fc.import_checkpoint("gtda", fixture.part("state"), obs_stages=obs_stages)
    given, expected = fixture.part("in"), fixture.part("out")
    masks = [given[f"stage_mask.{i}"][:, 0].bool() for i in range(model.config.num_stages)]
    past, mask = masks[0], masks[-1]
    logits = model(given["features"], mask, past)
    assert_close(logits, expected["logits"], **FORWARD)
    features = torch.stack([x.mT for _, x in model.walked(given["features"], mask, past)])
    assert_close(features, expected["features"], **FORWARD)
    ignored = fixture.config["num_classes"] + 1
    loss = staged_cross_entropy(logits, given["targets"], masks, ignore_index=ignored)
    assert_close(loss.reshape(1), expected["loss"], rtol=1e-5, atol=1e-5)


def check_schedule(fixture: Fixture) -> None:
    meta = fixture.meta
    tables = schedule_tables(meta["beta_schedule"], meta["timesteps"])
    expected = fixture.part("buf")
    assert tables.keys() == expected.keys()
    for name, table in expected.items():
        assert_close(tables[name], table, rtol=1e-6, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")
    times = sampling_times(meta["timesteps"], meta["ddim_timesteps"], "release")
    assert sorted(times) == sorted(fixture.tensors["ddim_timestep_seq"].tolist())


def check_train_loss(fixture: Fixture) -> None:
    model, given, expected = build(fixture), inputs(fixture), fixture.part("out")
    loss = denoising_loss(
        model,
        given["x0_onehot"],
        given["obs"],
        given["mask_all"],
        time=given["t"],
        noise=given["noise"],
        self_conditioned=fixture.meta["self_conditioning_branch_taken"],
    )
    assert_close(loss.noisy.mT, expected["x_t"], **FORWARD)
    assert_close(loss.outputs, expected["model"], **FORWARD)
    total = loss.per_video.sum()
    assert_close(total.reshape(1), expected["loss"], rtol=1e-5, atol=1e-6)
    total.backward()
    check_gradients(fixture, model)


def check_moving_average(fixture: Fixture) -> None:
    meta, tensors = fixture.meta, fixture.tensors
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(tensors["online"][0])
    averages = AveragedWeights(
        model,
        meta["beta"],
        start=meta["update_after_step"],
        every=meta["update_every"],
        power=meta["power"],
        inv_gamma=meta["inv_gamma"],
    )
    for online, expected in zip(tensors["online"], tensors["ema"], strict=True):
        with torch.no_grad():
            model.weight.copy_(online)
        averages.update(model)
        assert_close(averages.weights["weight"], expected, rtol=1e-6, atol=1e-6)


CHECKS: dict[str, Any] = {
    "denoiser": check_one_forward,
    "deterministic": check_deterministic,
    "schedule": check_schedule,
    "ddim": lambda fixture: check_sampling(fixture, build(fixture), STEP),
    "train_loss": check_train_loss,
    "ema": check_moving_average,
}


@pytest.mark.parametrize("fixture", fixtures("gtda"))
def test_gtda(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    assert fixture.kind in CHECKS, f"unknown kind {fixture.kind}"
    CHECKS[fixture.kind](fixture)
