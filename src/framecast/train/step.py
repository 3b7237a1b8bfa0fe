"""One optimiser step, on all processes together.

With n_m samples in micro-batch m and N in the step's whole batch, the gradient is that of
Σ_m (n_m / N) · loss_m over all micro-batches of all processes, however unevenly they are cut.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from framecast.train.distributed import (
    World,
    gather_objects,
    gradients_not_shared,
    running_statistics,
    share_running_statistics,
    sum_over_ranks,
)
from framecast.train.guard import NonFiniteError, find_nonfinite, find_nonfinite_gradient
from framecast.train.optim import AveragedWeights
from framecast.train.recipe import Recipe
from framecast.train.rng import restore_rng, rng_state, rng_untouched
from framecast.train.stability import StabilityWatch
from framecast.train.task import Task, to_device

Weighted = tuple[float, dict[str, Any]]  # share of the step's samples, batch


@dataclass(frozen=True)
class StepResult:
    """The same on all processes."""

    values: dict[str, float]  # loss and its parts, mean over the samples; gradient norm before clipping
    skipped: bool  # not finite: the weights did not move
    stop: bool  # some process was told to stop


class OptimizerStep:
    """Forward, backward, check, clip, update, average.

    model: the plain module. wrapped: what is called in training (`distributed.spread`).
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        model: nn.Module,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        averages: AveragedWeights | None,
        watch: StabilityWatch,
        world: World,
    ) -> None:
        self.recipe, self.task, self.world = recipe, task, world
        self.model, self.wrapped = model, wrapped
        self.optimizer, self.averages, self.watch = optimizer, averages, watch

    def __call__(self, micro_batches: list[Weighted], *, stop: bool, name: str, may_skip: bool) -> StepResult:
        """Take the step called `name` in messages; `stop` tells the others that this process was signalled.

        Raises NonFiniteError on all processes when the loss or the gradient is not finite and the recipe
        does not say to skip such steps, or too many were skipped before (not may_skip).
        """
        generators = rng_state()
        statistics = running_statistics(self.model) if self.recipe.nonfinite == "skip" else []
        kept = [buffer.clone() for buffer in statistics]
        self.optimizer.zero_grad(set_to_none=True)
        values = self._backward(micro_batches)
        norm = _gradient_norm(self.model)
        self.watch.read_gradients()
        values, stop = self._agree(values, stop)
        values["grad_norm"] = norm.item()
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            stopping = self.recipe.nonfinite == "stop" or not may_skip
            if stopping or self.watch.every is not None:
                with rng_untouched():
                    cause = self._cause(micro_batches, generators)
                self.watch.nonfinite(cause)
            if stopping:
                raise NonFiniteError(self._explain(cause, values, name))
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, former in zip(statistics, kept, strict=True):
                buffer.copy_(former)
            return StepResult(values, skipped=True, stop=stop)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.recipe.clip_norm, norm)
        self.optimizer.step()
        share_running_statistics(self.model, self.world)
        if self.averages is not None:
            self.averages.update(self.model)
        return StepResult(values, skipped=False, stop=stop)

    def _backward(self, micro_batches: list[Weighted]) -> dict[str, float]:
        """Accumulate gradients; this process's share of the loss and its parts."""
        values: dict[str, float] = {}
        for number, (weight, batch) in enumerate(micro_batches, start=1):
            with gradients_not_shared(self.wrapped, last=number == len(micro_batches)):
                with self._autocast():
                    loss, parts = self.task.loss(self.wrapped, to_device(batch, self.world.device))
                # Several processes exchange the mean of their gradients, we want the sum.
                (loss * (weight * self.world.size)).backward()
            for key, value in {**parts, "loss": loss.item()}.items():
                values[key] = values.get(key, 0.0) + weight * float(value)
        return values

    def _agree(self, values: dict[str, float], stop: bool) -> tuple[dict[str, float], bool]:
        """Sum the shares over all processes; one of them being signalled stops all."""
        keys = sorted(values)
        row = torch.tensor([float(stop), *(values[key] for key in keys)], dtype=torch.float64)
        row = sum_over_ranks(row, self.world)
        return dict(zip(keys, row[1:].tolist(), strict=True)), bool(row[0])

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16)

    def _cause(self, micro_batches: list[Weighted], generators: dict[str, Any]) -> str:
        """Repeat the forward passes with the same random numbers and look where it breaks."""
        restore_rng(generators)
        found = []
        for _, batch in micro_batches:  # all of them on all processes: sharded models communicate
            batch = to_device(batch, self.world.device)

            def loss(batch: dict[str, Any] = batch) -> Tensor:
                with self._autocast():
                    return self.task.loss(self.model, batch)[0]

            found.append(find_nonfinite(self.model, batch, loss))
        here = next((text for text in found if text), None)
        everywhere = gather_objects(here, self.world)
        cause = next((text for text in everywhere if text), None) or find_nonfinite_gradient(self.model)
        return cause or "it did not happen again when the step was repeated, which points to the hardware"

    def _explain(self, cause: str, values: dict[str, float], name: str) -> str:
        advice = "lower optim.lr or set clip_norm"
        advice += ", or set nonfinite=skip" if self.recipe.nonfinite == "stop" else ""
        return (
            f"{name}: loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g}: {cause}. The "
            f"weights were not changed and the last checkpoint is good; {advice}"
        )


def _gradient_norm(model: nn.Module) -> Tensor:
    """2-norm of the whole gradient, over all shards."""
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
