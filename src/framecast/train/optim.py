"""Optimisers, learning-rate schedules and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from framecast.train.recipe import OptimSettings, Recipe, ScheduleSettings

# What VideoMamba's scripts slow down unawares; its table of times is not among them.
SLOW_IN_RELEASE = ("patch_embed", "pos_embed", "cls_token")


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters, in groups of equal weight decay and learning rate."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("the model has no trainable parameters; unfreeze some before training")
    spared: set[str] = set()
    if settings.no_decay == "vectors" and settings.weight_decay:
        exempt = set(getattr(model, "no_weight_decay", set)())
        spared = {name for name, p in trainable.items() if p.ndim < 2 or name in exempt}
    scales = lr_scales(model, settings.layer_decay, settings.lr_factors)
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for decayed in (True, False):
        for name, p in trainable.items():
            if (name not in spared) == decayed:
                decay = {} if decayed else {"weight_decay": 0.0}
                scale = scales.get(name, 1.0)
                groups.setdefault((decayed, scale), {"params": [], "lr_scale": scale, **decay})
                groups[decayed, scale]["params"].append(p)
    make: Any = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    if settings.name == "sgd":
        own: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    else:
        own = {
            "betas": settings.betas,
            "eps": settings.eps,
            "fused": can_be_fused(trainable.values()) or None,
        }
    return make(list(groups.values()), lr=settings.lr, weight_decay=settings.weight_decay, **own)


def can_be_fused(parameters: Iterable[Tensor]) -> bool:
    """Whether one kernel may update a whole tensor; of 135 M parameters on a CPU in a third of the time.

    Not for shards (DTensor), for which torch's own choice, None, is left.
    """
    return all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") and not isinstance(p, DTensor)
        for p in parameters
    )


def lr_scales(
    model: nn.Module, layer_decay: float | str | None, factors: dict[str, float] | None = None
) -> dict[str, float]:
    """Factor on the learning rate by parameter name; names that are not in it have 1.

    factors: by beginnings of names. Raises ValueError for a beginning that no parameter has, and, with
    layer_decay, for a model without `layer_groups()`.
    """
    names = [name for name, _ in model.named_parameters()]
    if layer_decay is None:
        factors = factors or {}
        idle = [p for p in factors if not any(begins(name, p) for name in names)]
        if idle:
            known = sorted({name.split(".")[0] for name in names})
            raise ValueError(
                f"optim.lr_factors: no parameter's name begins with {idle[0]!r}; they begin with "
                f"{', '.join(known)}"
            )
        return by_beginning(names, factors)
    if not hasattr(model, "layer_groups"):
        raise ValueError(
            f"layer_decay: {type(model).__name__} does not say which parameters form a layer "
            "(layer_groups); set optim.layer_decay=null"
        )
    layers = cast(Any, model).layer_groups()  # name prefixes, from the embeddings to the head
    top = len(layers) - 1
    if layer_decay == "release":
        by_prefix = dict.fromkeys(SLOW_IN_RELEASE, 0.75**top)
    else:
        by_prefix = {
            prefix: float(layer_decay) ** (top - depth)
            for depth, prefixes in enumerate(layers)
            for prefix in prefixes
        }
    return by_beginning(names, by_prefix)


def by_beginning(names: list[str], factors: dict[str, float]) -> dict[str, float]:
    """The factor of the longest beginning that a name has, 1 where it has none."""
    scales = {}
    for name in names:
        fitting = [prefix for prefix in factors if begins(name, prefix)]
        scales[name] = factors[max(fitting, key=len)] if fitting else 1.0
    return scales


def begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def learning_rate(schedule: ScheduleSettings, lr: float, unit: int, total: int) -> float:
    """Learning rate in epoch or step `unit` (from 0) of `total`: a closed form, nothing to save or resume."""
    if unit < schedule.warmup:
        return lr * (unit + 1) / (schedule.warmup + 1)
    start = schedule.warmup + schedule.hold
    elapsed = max(unit - start, 0)
    if schedule.name == "constant":
        return lr
    if schedule.name == "step":
        passed = sum(unit >= milestone for milestone in schedule.milestones)
        drops = passed if schedule.milestones else elapsed // schedule.step_size
        return max(lr * schedule.gamma**drops, schedule.min_lr)
    length = schedule.t_max or max(total - start, 1)
    progress = min(elapsed / length, 1.0)
    return schedule.min_lr + (lr - schedule.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The schedule's rate, scaled as each group says."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


class AveragedWeights:
    """Exponential moving average of parameters; buffers such as running statistics are copied.

    a ← d · a + (1 − d) · w after every optimiser step, d = min(decay, (1 + n) / (10 + n)) in step n, so
    that the random start is soon forgotten. Works on whole and on sharded tensors.

    With `start`, the rule of diffusion releases (lucidrains' ema-pytorch) instead: copies up to step `start`
    and in the first one counted after it, then d = min(decay, 1 − (1 + (n − start) / inv_gamma) ^ −power).
    every: only each so many-th step, the first one among them, counts.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        *,
        every: int = 1,
        start: int | None = None,
        power: float = 2 / 3,
        inv_gamma: float = 1.0,
    ) -> None:
        self.decay, self.every, self.start = decay, every, start
        self.power, self.inv_gamma = power, inv_gamma
        self.updates = torch.zeros((), dtype=torch.int64)  # n
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        done = int(self.updates)
        self.updates += 1
        if done % self.every:
            return
        decay = self._decay(done)
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for name, value in model.state_dict().items():
            average = local(self.weights[name])
            if name in parameters and value.is_floating_point():
                average.lerp_(local(value), 1 - decay)
            else:
                average.copy_(local(value))

    def _decay(self, done: int) -> float:
        if self.start is None:
            return min(self.decay, (1 + done) / (10 + done))
        if done <= self.start or done - self.every <= self.start:
            return 0.0
        return min(self.decay, 1 - (1 + (done - self.start) / self.inv_gamma) ** -self.power)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Generator[None]:
        """Inside, the model holds the averaged weights; afterwards its own, bit for bit."""
        live = model.state_dict()
        kept = {name: local(value).clone() for name, value in live.items()}
        _fill(live, self.weights)
        try:
            yield
        finally:
            _fill(live, kept)


def make_averages(model: nn.Module, recipe: Recipe) -> AveragedWeights | None:
    """As the recipe says; None where it asks for none."""
    if recipe.ema_decay is None:
        return None
    return AveragedWeights(model, recipe.ema_decay, every=recipe.ema_every, start=recipe.ema_start)


@torch.no_grad()
def _fill(live: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in live.items():
        local(value).copy_(local(values[name]))


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, or the whole of a plain one."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
