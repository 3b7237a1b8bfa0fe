"""The stability watch: how large activations and gradients of each layer are, and where the loss jumps.

    RUN/stability.jsonl, one line per watched step, by default none:
    {"step": 120, "losses": [...], "grad_norms": [...], "spikes": [117], "layers": {"blocks.0": {...}, ...}}

Losses and gradient norms are those of all steps since the line before, null where not finite. A layer, in the
order of the forward pass, has the root mean square of its output ("activation"; of what joins the residual
stream next, where a layer gives a pair), the largest number in it ("largest"; in the residual stream) and the
norm of the gradient of its parameters before clipping ("gradient"). A step whose loss or gradient was not
finite adds {"step": 131, "nonfinite": "the first module whose output is not finite is ..."}.

Hooks are there in watched steps only, and nothing that is read changes the training. Sums go over all
processes and micro-batches, shards included; a process without samples repeats one, which counts there.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from framecast.train.distributed import World, repeated_blocks
from framecast.train.guard import tensors_of
from framecast.train.optim import local
from framecast.train.records import say
from framecast.writing import write_file

NAME = "stability.jsonl"
WINDOW, NEEDED = 50, 10  # steps that say what is usual; fewer than NEEDED say nothing


class StabilityWatch:
    """Watches every n-th step and the first; does nothing where `every` is None."""

    def __init__(self, model: nn.Module, folder: Path, every: int | None, world: World) -> None:
        self.model, self.path, self.every, self.world = model, folder / NAME, every, world
        self.layers = watched_layers(model)
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self._step = 0
        self._hooks: list[Any] = []
        self._outputs: dict[str, _Output] = {}
        self._gradients: dict[str, float | None] = {}
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._spikes: list[int] = []

    def begin(self, step: int) -> None:
        """Start, or go on after `step`: later lines are dropped, they will come again."""
        if self.every is None:
            return
        rows = [row for row in read_stability(self.path.parent) if row["step"] <= step]
        for row in rows:
            self.recent.extend(math.nan if loss is None else loss for loss in row.get("losses", ()))
        if self.world.is_main:
            write_file(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def prepare(self, step: int) -> None:
        """Before a step, counted from 1: look into the layers if it is one to be watched."""
        self._step = step
        self._outputs, self._gradients = {}, {}
        if self.every is not None and (step == 1 or step % self.every == 0):
            for name, module in self.layers.items():
                self._hooks.append(module.register_forward_hook(self._look(name)))

    def read_gradients(self) -> None:
        """After the backward pass, before clipping."""
        if self._hooks:
            self._take_hooks_away()
            self._gradients = gradient_norms(self.model, self.layers, self.world)

    def nonfinite(self, cause: str) -> None:
        """Loss or gradient of this step is not finite, and why."""
        if self.every is not None:
            seen = {"layers": self._layers()} if self._gradients else {}
            self._write({"step": self._step, "nonfinite": cause} | seen)
            self._gradients = {}

    def log(self, values: dict[str, float]) -> None:
        """After the step, with its loss and gradient norm, the same on all processes."""
        if self.every is None:
            return
        loss = values["loss"]
        usual = unusual(loss, self.recent)
        if usual is not None:
            self._spikes.append(self._step)
            say(self.world, f"step {self._step}: loss {loss:.4g} has jumped, it was about {usual:.4g}")
        self.recent.append(float(f"{loss:.6g}"))  # as a resumed run will read it
        self._losses.append(loss)
        self._norms.append(values["grad_norm"])
        if self._gradients:
            self._line({"layers": self._layers()})

    def sync(self) -> None:
        """Everything until now reaches the disk, before the checkpoint that counts on it."""
        if self.every is None:
            return
        if self._losses:
            self._line({})
        if self.world.is_main:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    # ------------------------------------------------------------------ what is read

    def _look(self, name: str) -> Callable[..., None]:
        @torch.no_grad()
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found = [local(x.detach()) for x in tensors_of(output) if x.is_floating_point() and x.numel()]
            if found:
                self._outputs.setdefault(name, _Output(found[0].device)).add(found)

        return hook

    def _take_hooks_away(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _layers(self) -> dict[str, dict[str, float | None]]:
        """What was seen in this step, over all processes, in the order in which layers were called."""
        layers: dict[str, dict[str, float | None]] = {}
        if self._outputs:
            seen = self._outputs.values()
            sums, largest = torch.stack([x.sums for x in seen]), torch.stack([x.largest for x in seen])
            if self.world.size > 1:  # all processes call the same layers in the same order
                dist.all_reduce(sums)
                dist.all_reduce(largest, dist.ReduceOp.MAX)
            size = rounded((sums[:, 0] / sums[:, 1]).sqrt().tolist())
            for name, *values in zip(self._outputs, size, rounded(largest.tolist()), strict=True):
                layers[name] = dict(zip(("activation", "largest"), values, strict=True))
        for name, norm in self._gradients.items():
            layers.setdefault(name, {})["gradient"] = norm
        return layers

    # ------------------------------------------------------------------ the file

    def _line(self, more: dict[str, Any]) -> None:
        row = {"step": self._step, "losses": rounded(self._losses), "grad_norms": rounded(self._norms)}
        self._write(row | ({"spikes": self._spikes} if self._spikes else {}) | more)
        self._losses, self._norms, self._spikes = [], [], []

    def _write(self, row: dict[str, Any]) -> None:
        if not self.world.is_main:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self.path} ({error.strerror})") from None


class _Output:
    """What a layer gave, gathered over micro-batches without waiting for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, device=device)  # of squares, of numbers
        self.largest = torch.zeros((), device=device)

    def add(self, found: Sequence[Tensor]) -> None:
        """The first tensor is the layer's own answer; the residual stream is the last one."""
        norm = _norm(found[0])
        self.sums += torch.stack([norm.square(), norm.new_tensor(found[0].numel())])
        low, high = found[-1].float().aminmax()
        self.largest = torch.maximum(self.largest, torch.maximum(-low, high).nan_to_num(math.inf))


def watched_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Repeated blocks, and around them the outermost modules that have parameters but no blocks."""
    blocks = set(repeated_blocks(model))
    found: dict[str, nn.Module] = {}

    def walk(module: nn.Module, name: str) -> None:
        inside = any(part in blocks for part in module.modules())
        if module in blocks or (name and not inside):
            if any(True for _ in module.parameters()):
                found[name] = module
            return
        for child, part in module.named_children():
            walk(part, f"{name}.{child}" if name else child)

    walk(model, "")
    return found


def gradient_norms(model: nn.Module, layers: dict[str, nn.Module], world: World) -> dict[str, float | None]:
    """2-norm of the gradient of each layer's parameters, and of each parameter outside all layers."""
    owner = {p: name for name, module in layers.items() for p in module.parameters()}
    squares: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name, p in model.named_parameters():
        whole, shards = squares.setdefault(owner.get(p, name), ([], []))
        if p.grad is not None:
            part = _norm(local(p.grad)).square()
            (shards if isinstance(p.grad, DTensor) else whole).append(part)
    nothing = torch.zeros((), device=world.device)
    sums = [torch.stack([sum(parts, nothing) for parts in pair]) for pair in squares.values()]
    if not sums:
        return {}
    table = torch.stack(sums)  # (layers, whole and shards)
    if world.size > 1:
        shards = table[:, 1].contiguous()
        dist.all_reduce(shards)
        table[:, 1] = shards
    return dict(zip(squares, rounded(table.sum(1).sqrt().tolist()), strict=True))


def _norm(x: Tensor) -> Tensor:
    """2-norm, summed in float32 also for half-precision numbers."""
    return torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)).float()


def unusual(value: float, recent: Sequence[float]) -> float | None:
    """What is usual, where a value stands far above it or is not finite; else None.

    Far is six deviations (from the median absolute one) and a tenth of the median.
    """
    known = [x for x in recent if math.isfinite(x)]
    if len(known) < NEEDED:
        return None
    usual = median(known)
    deviation = 1.4826 * median(abs(x - usual) for x in known)
    far = not math.isfinite(value) or value - usual > max(6 * deviation, 0.1 * abs(usual))
    return usual if far else None


def read_stability(folder: Path) -> list[dict[str, Any]]:
    """Rows of stability.jsonl; a last line that was cut off by a crash is left out."""
    path = folder / NAME
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def rounded(values: Sequence[float]) -> list[float | None]:
    """Six digits; None for what is not finite, which JSON does not know."""
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in values]
