"""The training loop: the same for a CPU, one GPU, torchrun and Slurm.

    summary = train(recipe, task, "runs/breakfast-split1")

Between optimiser steps (`framecast.train.step`): log, evaluate, save, and leave if a signal came.
Evaluation uses the averaged weights where there are any, float32, and its own random numbers, so how
often a run evaluates does not change what it learns.
"""

from __future__ import annotations

import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from framecast.tasks.ranks import together
from framecast.train import distributed
from framecast.train.batches import BatchPlan, load_batches
from framecast.train.checkpoint import (
    Checkpoints,
    load_rng,
    load_tensors,
    prepare_optimizer_state,
    read_state,
    training_tensors,
)
from framecast.train.config import differences
from framecast.train.distributed import World, gather_objects
from framecast.train.environment import describe_environment
from framecast.train.lock import hold_folder
from framecast.train.optim import learning_rate, make_averages, make_optimizer, set_learning_rate
from framecast.train.progress import Progress, check_metric
from framecast.train.recipe import Recipe
from framecast.train.records import Records, progress_bar, read_summary, say
from framecast.train.rng import (
    EVALUATION,
    TRAINING,
    WEIGHTS,
    deterministic_algorithms,
    rng_untouched,
    seed_everything,
)
from framecast.train.signals import Interrupted, Requeue, StopRequests
from framecast.train.stability import StabilityWatch
from framecast.train.step import OptimizerStep, StepResult, Weighted
from framecast.train.task import Task, prepare, product, sample_lengths
from framecast.writing import fill_folder, recover_folder

SaveModel = Callable[[nn.Module, Path, dict[str, Any]], object]
SKIPS_IN_A_ROW = 50  # with nonfinite=skip: so many are no accident, the run is lost


def train(
    recipe: Recipe,
    task: Task,
    run_dir: str | Path,
    *,
    resume: Literal["auto", "never", "must"] = "auto",
    device: str | torch.device | None = None,
    save_model: SaveModel | None = None,
) -> dict[str, Any]:
    """Train, and return what summary.json holds: metrics of the kept weights, steps, wall time.

    resume: "auto" goes on where the run folder stops or starts a new run, "never" refuses a folder with a
    run, "must" refuses one without. save_model(model, folder, card) writes run_dir/model, by default
    `framecast.checkpoints.save`. Raises ValueError for what the recipe, the folder or the numbers get wrong,
    OSError when the disk does not take a checkpoint or another process trains in this folder; `Requeue` (exit
    code 75) after a signal and `Interrupted` (130) after Ctrl-C, both when the run is saved.
    """
    folder = Path(run_dir)
    check_selection(recipe, task)
    with (
        distributed.start_world(device) as world,
        StopRequests() as stop,
        deterministic_algorithms(recipe.deterministic),
        hold_folder(folder, world),
    ):
        checkpoints = Checkpoints(folder / "checkpoints", world, keep_last=recipe.keep_last)
        if resume == "never" and checkpoints.steps():
            raise FileExistsError(f"{folder} already holds a run; name another folder, or resume it")
        newest = checkpoints.newest()
        if resume == "must" and newest is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint to resume from")
        with together():
            records = Records(folder, recipe, world)
        with records:
            trainer = Trainer(recipe, task, folder, world, checkpoints, records, save_model or _save)
            if newest is not None:
                trainer.resume(newest)
            return trainer.run(stop)


def check_selection(recipe: Recipe, task: Task) -> None:
    """ValueError if the metric that chooses the weights will not be measured, as far as that is known."""
    if recipe.select is None:
        return
    if task.eval_data is None:
        raise ValueError(f"select={recipe.select} needs evaluation data, the task has none; set select=null")
    names = getattr(task, "metric_names", None)
    if names is not None:
        check_metric(recipe.select, names)


class Trainer:
    """One run: model, optimiser and how far they are."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        folder: Path,
        world: World,
        checkpoints: Checkpoints,
        records: Records,
        save_model: SaveModel,
    ) -> None:
        self.recipe, self.task, self.folder, self.world = recipe, task, folder, world
        self.checkpoints, self.records, self.save_model = checkpoints, records, save_model
        self.plan = BatchPlan(
            len(task.train_data),
            recipe.batch_size,
            recipe.seed,
            sample_lengths(task) if recipe.group_lengths else None,
        )
        self.total = recipe.total_steps(self.plan.steps_per_epoch)
        self.progress = Progress()
        if recipe.batch_size < world.size and world.is_main:
            warnings.warn(
                f"batch_size {recipe.batch_size} is the whole batch of a step and leaves some of "
                f"{world.size} processes idle; set batch_size to a multiple of {world.size}",
                stacklevel=3,
            )
        with together():
            seed_everything(recipe.seed, WEIGHTS)  # the same weights on every process
            self.model = task.build_model()
            # The whole model without its weights, to hold those gathered from shards.
            self.empty = copy.deepcopy(self.model).to("meta") if recipe.parallel == "fsdp" else None
            self.model.to(world.device)
            if recipe.activation_checkpointing:
                distributed.recompute_blocks(self.model)
        wrapped = distributed.spread(
            self.model, world, recipe.parallel, unused_parameters=recipe.unused_parameters
        )
        self.optimizer = make_optimizer(self.model, recipe.optim)
        self.averages = make_averages(self.model, recipe)
        self.watch = StabilityWatch(self.model, folder, recipe.watch_every, world)
        self.take_step = OptimizerStep(
            recipe, task, self.model, wrapped, self.optimizer, self.averages, self.watch, world
        )
        seed_everything(recipe.seed, TRAINING, world.rank, 0)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint; ValueError if it belongs to another recipe or other data."""
        with together():
            state = read_state(path)
            self._check_state(state)
            self.progress = Progress(**state["progress"])
            step = self.progress.step
            if step > self.total:
                raise ValueError(
                    f"{self.folder} has done {step} steps, the recipe asks for {self.total}; raise epochs"
                )
            prepare_optimizer_state(self.model, self.optimizer, path)
        load_tensors(training_tensors(self.model, self.optimizer, self.averages), path, self.world)
        if not load_rng(path, self.world):
            seed_everything(self.recipe.seed, TRAINING, self.world.rank, step)
        if step == self.total:
            return
        if state["processes"] != self.world.size:
            say(
                self.world,
                f"the checkpoint was written by {state['processes']} processes, now there are "
                f"{self.world.size}: same batches, other random numbers in dropout (new processes are seeded "
                "by seed, rank and step)",
            )
        say(self.world, f"going on with {self.folder} after step {step} of {self.total}")

    def _check_state(self, state: dict[str, Any]) -> None:
        if changed := differences(self.recipe, state["recipe"]):
            raise ValueError(
                f"{self.folder} was started with another recipe: {'; '.join(changed)}; undo this or "
                "train into a new folder"
            )
        if state["samples"] != self.plan.num_samples:
            raise ValueError(
                f"{self.folder} was trained on {state['samples']} samples and there are "
                f"{self.plan.num_samples} now; restore the training data or train into a new folder"
            )

    # ------------------------------------------------------------------ the run

    def run(self, stop: StopRequests) -> dict[str, Any]:
        """All steps that are left, then the summary."""
        progress, recipe = self.progress, self.recipe
        finished = read_summary(self.folder)
        if finished and finished["steps"] == progress.step == self.total:
            say(self.world, f"{self.folder} is finished: {self.total} steps")
            return finished
        with rng_untouched():
            prepare(self.task, self.world.device)
        with together():
            self.records.begin(progress.step, describe_environment(self.world.device, self.world.size))
            self.watch.begin(progress.step)
            if self.world.is_main:
                recover_folder(self.folder / "model")
        started, batches = time.perf_counter() - progress.seconds, self._batches()
        self.model.train()
        with progress_bar(self.world, progress.step, self.total) as advance:
            while progress.step < self.total:
                lr = self._set_learning_rate()
                name = f"step {progress.step + 1} (epoch {self.epoch + 1})"
                may_skip = progress.skipped_in_a_row + 1 < SKIPS_IN_A_ROW
                if not may_skip:
                    name += f", like the {progress.skipped_in_a_row} before it"
                self.watch.prepare(progress.step + 1)
                result = self.take_step(
                    next(batches),
                    stop=bool(stop.received),
                    name=name,
                    may_skip=may_skip,
                )
                progress.step += 1
                progress.seconds = time.perf_counter() - started
                self._log(result, lr)
                self.watch.log(result.values)
                advance(f"loss {result.values['loss']:.4g}")
                if self._due(recipe.eval_every, recipe.eval_every_steps):
                    self._evaluate()
                if result.stop or self._due(recipe.save_every, recipe.save_every_steps):
                    self._save_checkpoint()
                if result.stop and progress.step < self.total:
                    self._leave(stop)
        if not self.total:
            self._evaluate()
        return self._finish()

    @property
    def epoch(self) -> int:
        """Epoch of the next step, from 0."""
        return self.plan.epoch_of(self.progress.step)

    def _batches(self) -> Iterator[list[Weighted]]:
        """The micro-batches of every step that is left, with their weights."""
        cut = functools.partial(
            self.plan.micro_batches,
            rank=self.world.rank,
            world_size=self.world.size,
            accumulate=self.recipe.accumulate,
        )
        steps = range(self.progress.step, self.total)
        loaded = load_batches(
            self.task.train_data,
            self.task.collate,
            (part for step in steps for part in cut(step)),
            seed=self.recipe.seed,
            num_workers=self.recipe.num_workers,
            pin_memory=self.world.device.type == "cuda",
        )
        for step in steps:
            yield [(part.weight, next(loaded)) for part in cut(step)]

    def _set_learning_rate(self) -> float:
        per_epoch = self.recipe.schedule.per == "epoch"
        unit = self.epoch if per_epoch else self.progress.step
        total = math.ceil(self.total / self.plan.steps_per_epoch) if per_epoch else self.total
        lr = learning_rate(self.recipe.schedule, self.recipe.optim.lr, unit, total)
        set_learning_rate(self.optimizer, lr)
        return lr

    def _due(self, epochs: int, steps: int | None) -> bool:
        every = steps or epochs * self.plan.steps_per_epoch
        return self.progress.step % every == 0 or self.progress.step == self.total

    def _log(self, result: StepResult, lr: float) -> None:
        """Means since the last line, every `log_every` steps."""
        progress = self.progress
        if result.skipped:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            say(
                self.world,
                f"step {progress.step} skipped: loss {result.values['loss']:.4g} or gradient not finite",
            )
        else:
            progress.skipped_in_a_row = 0
            progress.add(result.values)
        if progress.step % self.recipe.log_every == 0 or progress.step == self.total:
            row = {"epoch": self.plan.epoch_of(progress.step - 1) + 1, "lr": lr, **progress.take_means()}
            row |= {"skipped": progress.skipped, "seconds": round(progress.seconds, 3)}
            self.records.log("train", progress.step, row)

    # ------------------------------------------------------------------ between steps

    def _leave(self, stop: StopRequests) -> NoReturn:
        """After the checkpoint: tell how far the run is, and raise on all processes what ends it."""
        signals = {name for name in gather_objects(stop.received, self.world) if name}
        kind = Interrupted if signals == {"SIGINT"} else Requeue
        by = "Ctrl-C" if kind is Interrupted else "a signal"
        stopped = kind(
            f"stopped by {by} after step {self.progress.step} of {self.total}, saved in {self.folder}; start "
            "the same command again to go on"
        )
        say(self.world, str(stopped))
        raise stopped

    def _averaged(self) -> AbstractContextManager[None]:
        return self.averages.applied_to(self.model) if self.averages else nullcontext()

    def _evaluate(self) -> None:
        """Metrics of the weights as they are now; the best ones are kept at once, with their metrics."""
        if self.task.eval_data is None:
            return
        recipe, progress = self.recipe, self.progress
        with self._averaged(), rng_untouched(), torch.no_grad():
            seed_everything(recipe.seed, EVALUATION, self.world.rank)
            self.model.eval()
            with distributed.whole_weights(self.model):
                scores = self.task.evaluate(self.model, self.world.device)
            # Those of rank 0: ranks that differ in the last digit would not keep the same weights.
            scores = gather_objects(scores, self.world)[0]
            metrics = {key: float(value) for key, value in scores.items()}
            self.model.train()
            epoch = self.plan.epoch_of(progress.step - 1) + 1
            progress.last = {"step": progress.step, "epoch": epoch, "metrics": metrics}
            self.records.log("eval", progress.step, {"epoch": epoch, **metrics})
            if recipe.select and progress.improves(metrics, recipe.select, recipe.select_mode):
                progress.best = progress.last
                self._write_model(progress.best)

    def _write_model(self, reached: dict[str, Any]) -> None:
        """Put the present weights into run_dir/model; on rank 0, gathered from all shards."""
        model = self.model
        full = distributed.gather_weights(model, self.world)
        with together():
            if self.world.is_main:
                self._fill_model(model, full, reached)

    def _fill_model(self, model: nn.Module, full: dict[str, Tensor] | None, reached: dict[str, Any]) -> None:
        if full is not None:
            assert self.empty is not None
            model = self.empty
            model.load_state_dict(full, assign=True)
        model = product(self.task, model)
        card = {"source": f"recipe {self.recipe.name}", **self.task.card()}
        card["notes"] = {**card.get("notes", {}), "training": reached}
        fill_folder(self.folder / "model", lambda temporary: self.save_model(model, temporary, card))

    def _save_checkpoint(self) -> None:
        self.records.sync()
        self.watch.sync()
        state = {
            "step": self.progress.step,
            "progress": self.progress.to_json(),
            "samples": self.plan.num_samples,
            "processes": self.world.size,
            "recipe": self.recipe.model_dump(mode="json"),
            "torch": torch.__version__,
        }
        self.checkpoints.save(training_tensors(self.model, self.optimizer, self.averages), state)

    def _finish(self) -> dict[str, Any]:
        """Write the model, unless the best one is there already, and the summary."""
        progress, kept = self.progress, self.progress.best
        if kept is None:
            kept = progress.last
            with self._averaged():
                self._write_model(kept or {"step": progress.step, "epoch": self.epoch})
        summary = {
            "name": self.recipe.name,
            "steps": progress.step,
            "epochs": progress.step / self.plan.steps_per_epoch,
            "metrics": kept["metrics"] if kept else {},  # of the weights in model/
            "kept_step": kept["step"] if kept else progress.step,
            "kept_epoch": kept["epoch"] if kept else self.epoch,
            "selected_by": self.recipe.select,
            "averaged_weights": self.recipe.ema_decay is not None,
            "last_metrics": progress.last["metrics"] if progress.last else {},
            "skipped_steps": progress.skipped,
            "samples": self.plan.num_samples,
            "seed": self.recipe.seed,
            "processes": self.world.size,
            "seconds": round(progress.seconds, 3),
        }
        self.records.summary(summary)
        return summary


def _save(model: nn.Module, folder: Path, card: dict[str, Any]) -> object:
    from framecast.checkpoints import ModelCard, save

    return save(model, folder, ModelCard.from_json(card))
