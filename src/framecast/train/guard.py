"""Where did the NaN come from? Loss and gradient are checked in every step, before the weights change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from framecast.train.optim import local


class NonFiniteError(ValueError):
    """Loss or gradient is not finite; the message names the first offending module."""


def find_nonfinite(model: nn.Module, batch: dict[str, Any], loss: Callable[[], Tensor]) -> str | None:
    """Run the forward pass again and tell, as a sentence, where the first non-finite number appears.

    loss: runs the model on the batch under the conditions of the failed step. The model is the one inside
    any wrapper. None if everything is finite this time.
    """
    first: list[str] = []
    for name, value in batch.items():
        if isinstance(value, Tensor) and not _finite(value):
            first.append(
                f"the batch already holds non-finite numbers in {name!r}; check the data of these samples"
            )
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            first.append(f"parameter {name} holds non-finite numbers before the step")
    hooks = [
        module.register_forward_hook(_note(name or type(model).__name__, first))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    if not first and not _finite(value):
        first.append("all modules give finite outputs, the loss computed from them is not finite")
    return first[0] if first else None


def find_nonfinite_gradient(model: nn.Module) -> str | None:
    """Name the parameter nearest to the loss whose gradient is not finite: there the backward pass broke."""
    offending = [name for name, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]
    if not offending:
        return None
    more = f", as for {len(offending) - 1} parameters before it" if len(offending) > 1 else ""
    return f"the forward pass is finite, the gradient of {offending[-1]} is not{more}"


def _note(name: str, first: list[str]) -> Callable[..., None]:
    """A forward hook; inner modules finish before outer ones, so the first to complain is the place."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if not first and not all(_finite(tensor) for tensor in tensors_of(output)):
            first.append(f"the first module whose output is not finite is {name} ({type(module).__name__})")

    return hook


def tensors_of(value: Any) -> Iterable[Tensor]:
    """Tensors inside tuples, lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_of(getattr(value, name))


def _finite(tensor: Tensor) -> bool:
    tensor = local(tensor.detach())
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
