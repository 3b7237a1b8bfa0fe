"""What a run does on one process: files, selection, precision, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framecast.train import loop
from framecast.train.config import load_recipe
from framecast.train.progress import Progress
from framecast.train.records import read_metrics

from .tiny_task import TinyTask, save_tiny, tiny_recipe, weights_of


def train(run: Path, task: TinyTask | None = None, *, resume: Any = "auto", **changes: Any) -> dict[str, Any]:
    return loop.train(tiny_recipe(**changes), task or TinyTask(), run, save_model=save_tiny, resume=resume)


def test_a_run_learns_and_leaves_its_files(tmp_path: Path) -> None:
    summary = train(tmp_path, TinyTask(40, dropout=0.0), epochs=8, select="accuracy")
    rows = read_metrics(tmp_path)
    assert summary["metrics"]["accuracy"] > 0.7
    assert summary["steps"] == 80
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 81))
    assert [row["epoch"] for row in rows if row["kind"] == "eval"] == list(range(1, 9))
    assert load_recipe(tmp_path) == tiny_recipe(epochs=8, select="accuracy")
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-000080\n"
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2
    (session,) = json.loads((tmp_path / "environment.json").read_text())
    assert session["packages"]["torch"] == torch.__version__.split("+")[0]


def test_the_same_run_twice_is_the_same(tmp_path: Path) -> None:
    for name in "ab":
        train(tmp_path / name)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_how_often_it_evaluates_saves_and_loads_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "a", ema_decay=0.5)
    train(tmp_path / "b", ema_decay=0.5, eval_every=3, save_every_steps=2, num_workers=2, log_every=3)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_kept_weights_belong_to_their_metrics(tmp_path: Path) -> None:
    """The best evaluation may be anywhere; model/ and the summary both come from it."""
    task = TinyTask()
    summary = train(
        tmp_path, task, epochs=6, select="loss", select_mode="min", ema_decay=0.5, optim={"lr": 0.05}
    )
    rows = [row for row in read_metrics(tmp_path) if row["kind"] == "eval"]
    best = min(rows, key=lambda row: row["loss"])
    assert summary["kept_epoch"] == best["epoch"] < 6  # the learning rate is too high on purpose
    model = task.build_model().eval()
    model.load_state_dict(weights_of(tmp_path))
    with torch.no_grad():
        assert task.evaluate(model, torch.device("cpu")) == summary["metrics"]
    assert summary["metrics"]["loss"] == best["loss"]


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """10 samples in batches of 4, 4, 2, each cut into 3 uneven micro-batches, or fewer."""
    task = TinyTask(dropout=0.0, dtype=torch.float64)
    train(tmp_path / "a", task)
    train(tmp_path / "b", task, accumulate=3)
    assert_same_weights(tmp_path / "a", tmp_path / "b", atol=1e-12)
    losses = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in "ab"]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_clipping_bounds_the_update(tmp_path: Path) -> None:
    task = TinyTask(dropout=0.0, dtype=torch.float64)
    changes: dict[str, Any] = {"optim": {"name": "sgd", "lr": 1.0}, "steps": 1, "epochs": None}
    with torch.random.fork_rng():
        loop.seed_everything(0, loop.WEIGHTS)
        start = task.build_model().state_dict()
    train(tmp_path, task, clip_norm=0.01, **changes)
    moved = torch.cat([(weights_of(tmp_path)[k] - start[k]).flatten() for k in start])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-4)
    assert read_metrics(tmp_path)[0]["grad_norm"] > 0.1


def test_activation_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    train(tmp_path / "a")
    train(tmp_path / "b", activation_checkpointing=True)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_bf16_keeps_float32_weights_and_evaluates_in_float32(tmp_path: Path) -> None:
    seen = []

    class Task(TinyTask):
        def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
            seen.append(model(batch["features"]).dtype)
            return super().loss(model, batch)

    task = Task()
    summary = train(tmp_path, task, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert {w.dtype for w in weights_of(tmp_path).values()} == {torch.float32}
    model = task.build_model().eval()
    model.load_state_dict(weights_of(tmp_path))
    with torch.no_grad():
        assert task.evaluate(model, torch.device("cpu")) == summary["metrics"]


def test_model_of_the_registry_is_saved_by_default(tmp_path: Path) -> None:
    import framecast

    class Task(TinyTask):
        def build_model(self) -> Any:
            return framecast.create_model(
                "mstcn", num_classes=3, feature_dim=6, num_stages=1, num_layers=1, width=4
            )

        def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
            stages = model(
                batch["features"][..., None], torch.ones(len(batch["labels"]), 1, dtype=torch.bool)
            )
            return nn.functional.cross_entropy(stages[-1, :, :, 0], batch["labels"]), {}

    task = Task()
    task.eval_data = None
    loop.train(tiny_recipe(epochs=1), task, tmp_path)
    model: Any = framecast.load(tmp_path)
    assert model.card.classes == ("a", "b", "c")
    assert model.card.source == "recipe tiny"


def test_optional_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, log=("tensorboard",))
    assert list((tmp_path / "tensorboard").glob("events*"))
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match=r"framecast\[log\]"):
        train(tmp_path / "b", log=("wandb",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": "acuracy"}, "did you mean 'accuracy'"),
        ({"optim": {"lr": 0.5}}, "optim.lr is 0.5 now and was 0.01"),
        ({"epochs": 1}, "has done 3 steps|has done 9 steps"),
    ],
)
def test_wrong_requests_are_explained(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "select" not in changes:
        train(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **changes)


def test_a_mistyped_select_is_told_before_anything_is_made(tmp_path: Path) -> None:
    class Task(TinyTask):
        metric_names = ("accuracy", "loss")

        def build_model(self) -> Any:
            raise AssertionError("too late")

    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        train(tmp_path / "run", Task(), select="acuracy")
    assert not (tmp_path / "run").exists()


def test_changed_data_and_folders_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "a")
    with pytest.raises(ValueError, match="trained on 10 samples and there are 11 now"):
        train(tmp_path / "a", TinyTask(11), epochs=5)
    with pytest.raises(FileExistsError, match="already holds a run"):
        train(tmp_path / "a", resume="never")
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(tmp_path / "b", resume="must")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write into the run folder"):
        train(tmp_path / "file" / "run")
    task = TinyTask()
    task.eval_data = None
    with pytest.raises(ValueError, match="needs evaluation data"):
        train(tmp_path / "c", task, select="accuracy")


def test_a_finished_run_returns_its_summary_and_can_be_made_longer(tmp_path: Path) -> None:
    first = train(tmp_path / "a")
    assert train(tmp_path / "a") == first
    longer = train(tmp_path / "a", epochs=5)
    train(tmp_path / "b", epochs=5)
    assert longer["steps"] == 15
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def assert_same_weights(a: Path, b: Path, atol: float = 0.0) -> None:
    torch.testing.assert_close(weights_of(a), weights_of(b), rtol=0, atol=atol)


def test_a_score_beats_one_that_is_not_a_number() -> None:
    assert Progress(best={"metrics": {"f1": float("nan")}}).improves({"f1": 0.1}, "f1", "max")
    assert not Progress(best={"metrics": {"f1": 0.1}}).improves({"f1": float("nan")}, "f1", "max")


def test_deterministic_mode_is_switched_on_only_inside(tmp_path: Path) -> None:
    seen = []

    class Task(TinyTask):
        def build_model(self) -> Any:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().build_model()

    train(tmp_path, Task(), deterministic=True)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
