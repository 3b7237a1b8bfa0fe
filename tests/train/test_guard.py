"""Numbers that are not finite stop the run, or the step, and are traced to their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framecast.train import loop
from framecast.train.guard import NonFiniteError
from framecast.train.loop import train
from framecast.train.records import read_metrics
from framecast.train.rng import WEIGHTS, rng_untouched, seed_everything

from .tiny_task import TinyModel, TinyTask, save_tiny, tiny_recipe, weights_of


class LogOfNegative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.log(-x.square() - 1)


class InfiniteSlope(nn.Module):
    """Finite forwards, sqrt'(0) = inf backwards."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sqrt(x * 0)


class BrokenTask(TinyTask):
    def __init__(self, place: str, bad: nn.Module) -> None:
        super().__init__()
        self.place, self.bad = place, bad

    def build_model(self) -> TinyModel:
        model = super().build_model()
        if self.place == "block":
            model.blocks.append(self.bad)
        elif self.place == "norm":
            model.norm = self.bad
        return model


@pytest.mark.parametrize(
    ("place", "bad", "message"),
    [
        ("norm", LogOfNegative(), r"first module whose output is not finite is norm \(LogOfNegative\)"),
        ("block", LogOfNegative(), r"not finite is blocks\.2 \(LogOfNegative\)"),
        (
            "norm",
            InfiniteSlope(),
            r"forward pass is finite, the gradient of stem\.bias is not, as for 1 param",
        ),
    ],
)
def test_the_place_is_named(tmp_path: Path, place: str, bad: nn.Module, message: str) -> None:
    with pytest.raises(NonFiniteError, match=message) as caught:
        train(tiny_recipe(), BrokenTask(place, bad), tmp_path, save_model=save_tiny)
    assert str(caught.value).startswith("step 1 (epoch 1): loss ")
    assert "\n" not in str(caught.value)
    assert read_metrics(tmp_path) == []


def test_bad_data_is_told_from_a_bad_model(tmp_path: Path) -> None:
    task = TinyTask(augment=False)
    task.train_data.features[3, 0] = np.nan
    with pytest.raises(NonFiniteError, match="batch already holds non-finite numbers in 'features'"):
        train(tiny_recipe(), task, tmp_path, save_model=save_tiny)


def test_a_loss_that_is_not_finite_by_itself(tmp_path: Path) -> None:
    class Task(TinyTask):
        def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
            loss, parts = super().loss(model, batch)
            return loss / 0, parts

    with pytest.raises(NonFiniteError, match="all modules give finite outputs, the loss"):
        train(tiny_recipe(), Task(), tmp_path, save_model=save_tiny)


class NeverFinite(TinyTask):
    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        loss, parts = super().loss(model, batch)
        return loss * float("nan"), parts


def test_a_run_that_only_skips_is_stopped(tmp_path: Path) -> None:
    """Counted over a resume too: 30 steps are skipped before it, the 50th in a row is one too many."""
    recipe = tiny_recipe(nonfinite="skip", epochs=None, steps=30)
    assert train(recipe, NeverFinite(), tmp_path, save_model=save_tiny)["skipped_steps"] == 30
    message = r"step 50 \(epoch 17\), like the 49 before it: loss nan.*; lower optim\.lr or set clip_norm$"
    with pytest.raises(NonFiniteError, match=message):
        train(recipe.model_copy(update={"steps": 60}), NeverFinite(), tmp_path, save_model=save_tiny)


def test_skips_that_are_not_in_a_row_do_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SKIPS_IN_A_ROW", 2)
    task = TinyTask(augment=False)
    task.train_data.features[3] = np.inf  # one of the three steps of an epoch
    summary = train(tiny_recipe(nonfinite="skip", epochs=5, seed=1), task, tmp_path, save_model=save_tiny)
    assert summary["skipped_steps"] == 5


@pytest.mark.parametrize("batch_norm", [False, True])
def test_skipped_steps_change_nothing(tmp_path: Path, batch_norm: bool) -> None:
    """One bad sample: its step of every epoch is left out, weights and running statistics stay finite."""
    task = TinyTask(augment=False, batch_norm=batch_norm)
    task.train_data.features[3] = np.inf
    summary = train(tiny_recipe(nonfinite="skip", ema_decay=0.5), task, tmp_path, save_model=save_tiny)
    assert summary["skipped_steps"] == 3
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path).values())
    rows = [row for row in read_metrics(tmp_path) if row["kind"] == "train"]
    assert [row["skipped"] for row in rows][-1] == 3
    assert sum("loss" not in row for row in rows) == 3
    assert all(np.isfinite(row.get("loss", 0)) for row in rows)


def test_a_skipped_step_is_a_step_that_was_not_taken(tmp_path: Path) -> None:
    task = NeverFinite()
    train(tiny_recipe(nonfinite="skip", epochs=2), task, tmp_path, save_model=save_tiny)
    with rng_untouched():
        seed_everything(0, WEIGHTS)
        model = task.build_model()
    torch.testing.assert_close(weights_of(tmp_path), dict(model.state_dict()), rtol=0, atol=0)
