"""Optimisers, schedules and averaged weights against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import framecast as fc
from framecast.train.optim import (
    AveragedWeights,
    learning_rate,
    lr_scales,
    make_optimizer,
    set_learning_rate,
)
from framecast.train.recipe import OptimSettings, ScheduleSettings

from .tiny_task import TinyModel


def test_constant_15_epochs_then_cosine_of_165() -> None:
    """The published LTContext schedule, against torch's own schedulers."""
    schedule = ScheduleSettings(name="cosine", per="epoch", hold=15, t_max=165, min_lr=5e-5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=165, eta_min=5e-5)
    for epoch in range(150):
        assert learning_rate(schedule, 2.5e-4, epoch, 150) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if epoch >= 15:
            cosine.step()
        assert learning_rate(schedule, 2.5e-4, 15, 150) == 2.5e-4


def test_cosine_fills_the_run_and_stays_at_the_minimum() -> None:
    schedule = ScheduleSettings(name="cosine", min_lr=0.1)
    assert learning_rate(schedule, 1.0, 0, 10) == 1.0
    assert learning_rate(schedule, 1.0, 5, 10) == pytest.approx(0.55)
    assert learning_rate(schedule, 1.0, 10, 10) == learning_rate(schedule, 1.0, 99, 10) == pytest.approx(0.1)


def test_warmup_rises_linearly_to_the_full_rate() -> None:
    schedule = ScheduleSettings(name="warmup_cosine", per="step", warmup=4)
    assert [learning_rate(schedule, 1.0, unit, 20) for unit in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )


def test_step_schedule() -> None:
    schedule = ScheduleSettings(name="step", step_size=10, gamma=0.1)
    assert [learning_rate(schedule, 1.0, unit, 30) for unit in (0, 9, 10, 25)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_is_that_of_torch(name: str) -> None:
    """adam: L2 in the gradient; adamw: decoupled."""
    settings = OptimSettings.model_validate({"name": name, "lr": 0.1, "weight_decay": 0.3, "momentum": 0.9})
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    reference = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.3, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3, momentum=0.9),
    }[name](theirs.parameters())
    optimizer = make_optimizer(ours, settings)
    for model, steps in ((ours, optimizer), (theirs, reference)):
        for _ in range(3):
            steps.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            steps.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_vectors_and_named_parameters_are_spared_from_decay() -> None:
    class Model(nn.Linear):
        def no_weight_decay(self) -> set[str]:
            return {"weight"}

    settings = OptimSettings(weight_decay=0.1, no_decay="vectors")
    decayed, spared = make_optimizer(nn.Linear(3, 2), settings).param_groups
    assert [p.ndim for p in decayed["params"]] == [2]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [group["weight_decay"] for group in make_optimizer(Model(3, 2), settings).param_groups] == [0.0]


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(11))

    def layer_groups(self) -> list[list[str]]:
        return [["stem"], *([f"blocks.{i}"] for i in range(11)), ["head"]]


def test_layer_decay_slows_what_is_far_from_the_head() -> None:
    scales = lr_scales(Layered(), 0.5)
    assert scales["head.bias"] == 1
    assert scales["blocks.10.weight"] == 0.5  # and not the rate of blocks.1
    assert scales["blocks.1.weight"] == 0.5**10
    assert scales["stem.weight"] == 0.5**12
    optimizer = make_optimizer(Layered(), OptimSettings(layer_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [
        0.1 * 0.5**n for n in range(12, -1, -1)
    ]
    with pytest.raises(ValueError, match="layer_groups"):
        make_optimizer(nn.Linear(2, 2), OptimSettings(layer_decay=0.5))


def test_layer_decay_of_the_release_spares_the_times() -> None:
    with torch.device("meta"):
        model = fc.create_model("videomamba_tiny", depth=3, num_frames=8)
    scales = lr_scales(model, "release")
    slow = {name for name, scale in scales.items() if scale != 1}
    assert slow == {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "cls_token"}
    assert {scales[name] for name in slow} == {0.75**4}
    assert lr_scales(model, 0.75)["temporal_pos_embedding"] == 0.75**4


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    assert len(make_optimizer(model, OptimSettings()).param_groups[0]["params"]) == 1
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        make_optimizer(model, OptimSettings())


def test_average_follows_its_recursion_and_copies_buffers() -> None:
    model = TinyModel(0.0, batch_norm=True)
    averages = AveragedWeights(model, decay=0.15)
    expected = model.head.weight.detach().clone()
    for step, decay in enumerate((1 / 10, 0.15, 0.15)):  # 2/11 and 3/12 are larger than 0.15
        with torch.no_grad():
            model.head.weight += 1
            model.get_buffer("norm.running_mean").add_(1)
        averages.update(model)
        expected = decay * expected + (1 - decay) * model.head.weight.detach()
        torch.testing.assert_close(averages.weights["head.weight"], expected)
        assert averages.weights["norm.running_mean"].tolist() == [step + 1] * 16


def test_averages_are_applied_and_taken_back_bit_for_bit() -> None:
    model = TinyModel(0.0)
    averages = AveragedWeights(model, decay=0.5)
    with torch.no_grad():
        model.head.weight.mul_(math.pi)
    before = model.head.weight.detach().clone()
    with averages.applied_to(model):
        assert torch.equal(model.head.weight, averages.weights["head.weight"])
    assert torch.equal(model.head.weight, before)


def test_tied_weights_are_averaged_once_each() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    averages = AveragedWeights(model, decay=0.9)
    with torch.no_grad():
        first.weight += 1
    averages.update(model)
    torch.testing.assert_close(averages.weights["1.weight"], averages.weights["0.weight"], rtol=0, atol=0)


def test_average_by_the_rule_of_diffusion_releases() -> None:
    """Copies until the start, then a decay that grows; steps between are not looked at."""
    model = nn.Linear(1, 1, bias=False)
    averages = AveragedWeights(model, 0.6, every=10, start=20)
    seen = []
    for step in range(81):
        with torch.no_grad():
            model.weight.fill_(step)
        averages.update(model)
        seen.append(float(averages.weights["weight"]))
    assert seen[:31] == [step // 10 * 10 for step in range(31)]  # the first step after the start is a copy
    decay = 1 - 21 ** (-2 / 3)
    assert decay > 0.6  # so it is capped
    assert seen[40] == pytest.approx(0.6 * 30 + 0.4 * 40)
    assert seen[49] == seen[40]
