"""MACs and FLOPs of a model by part, from the operators that it really calls.

A dispatch mode sees every torch operator below the model's modules: matrix products, convolutions, fused
attention, and custom operators with a FLOP formula (`torch.utils.flop_counter.register_flop_formula`).
Native kernels, which no mode could see, step aside while one is active (`ops.native_library.usable`).
On the `meta` device only shapes are computed; on real tensors the data decide what runs, so that dropped
tokens are not counted.

One MAC is two FLOPs, whatever the operator. Biases, norms, activations and softmax are not counted, as in
the papers' "GFLOPs", which are MACs. A selective scan has no multiply-accumulates in the strict sense: its
FLOPs are those of its formula (about 9 per step, channel and state, its exponential counted as one), its MACs
half of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PARTS = (
    "patch embedding",
    "attention projections",
    "attention products",
    "MLP",
    "mixer projections",
    "scan",
    "convolution",
    "linear maps",
    "head",
    "other",
)

# A part is told by the names and classes of the modules around an operator; the first rule that fits counts.
RULES = (
    ("patch embedding", r"(patch|tubelet)_?embed\w*"),
    ("head", r"head\w*|classifier|proj_out"),
    ("MLP", r"mlp|ffn|fc\d"),
    ("attention projections", r"\w*attn\w*|\w*attention|qkv?|temporal_fc"),
    ("mixer projections", r"mixer|\w*mamba\w*|(in|x|dt|out)_proj"),
)

aten = torch.ops.aten
FUSED_ATTENTION = {
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
}
PRODUCTS = {aten.bmm, aten.baddbmm}  # of two activations, or of one and a weight


@dataclass(frozen=True)
class Cost:
    """Of one part, or of the whole."""

    params: int
    flops: int

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True)
class Counts:
    """What one call costs: FLOPs by module path and part, parameters by part."""

    flops: dict[tuple[str, str], int]  # (module path, part) -> FLOPs
    params: dict[str, int]  # part -> parameters

    @property
    def total(self) -> Cost:
        return Cost(sum(self.params.values()), sum(self.flops.values()))

    @property
    def parts(self) -> dict[str, Cost]:
        """Parts that cost something, in the order of `PARTS`, names that a model brought itself behind."""
        flops: Counter[str] = Counter()
        for (_, part), number in self.flops.items():
            flops[part] += number
        names = [*PARTS, *sorted({*flops, *self.params} - set(PARTS))]
        costs = {name: Cost(self.params.get(name, 0), flops[name]) for name in names}
        return {name: cost for name, cost in costs.items() if cost.params or cost.flops}


@torch.no_grad()
def count(model: nn.Module, *inputs: Tensor, whole: bool = False) -> Counts:
    """Count one call of a model in eval mode: on `meta` by shapes alone, with real tensors what they run.

    whole: every token goes through every layer, as papers count, even where the model classifies one token
    and leaves out what the last layer would do for the others.
    A module may say more than its operators do: `cost_part: str` names the part of everything below it, and
    `extra_flops(inputs, output) -> dict[part, int]` adds FLOPs to each call, for work that torch cannot see.
    """
    counter = _CountingMode(model)
    with _eval_mode(model), _watched(model, counter), _AttentionSpotter(counter), counter:
        _whole_forward(model)(*inputs) if whole else model(*inputs)
    params: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        params[counter.part_of_parameter(name)] += parameter.numel()
    return Counts(dict(counter.flops), dict(params))


def _whole_forward(model: Any) -> Callable[..., Any]:
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        return model
    return lambda *inputs: model.forward_head(model.forward_features(*inputs))


class _CountingMode(TorchDispatchMode):
    """Adds up the FLOPs of every operator under the module and the part that it belongs to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flops: Counter[tuple[str, str]] = Counter()
        self.stack: list[str] = [""]  # paths of the modules that are running
        self.attending = False  # inside `scaled_dot_product_attention`
        self.modules = dict(model.named_modules())
        # Views share their storage's identity with the parameter, on `meta` too, where there is no address.
        self.weights = {p.untyped_storage()._cdata: name for name, p in model.named_parameters()}
        self.part_of_weight: dict[str, str] = {}  # of the operator that read it
        self.parts_at: dict[str, set[str]] = {}  # module path -> parts of its own operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operator = func._overloadpacket
        if operator not in flop_registry and operator not in FUSED_ATTENTION:
            with (
                self
            ):  # what is made of other operators (inference mode keeps such calls whole) is taken apart
                out = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if out is NotImplemented else out
        out = func(*args, **kwargs)
        flops = (
            _attention_flops(*args)
            if operator in FUSED_ATTENTION
            else flop_registry[operator](*args, **kwargs, out_val=out)
        )
        self._add(operator, int(flops), self._weight_among(tree_leaves((args, kwargs))))
        return out

    def _weight_among(self, arguments: list[Any]) -> str:
        """Name of the weight that an operator reads, "" for products of activations."""
        tensors = (x for x in arguments if isinstance(x, Tensor) and x.layout == torch.strided)
        names = (self.weights.get(x.untyped_storage()._cdata, "") for x in tensors)
        return next((name for name in names if name and not name.endswith("bias")), "")

    def _add(self, operator: Any, flops: int, weight: str) -> None:
        kind = "attention" if self.attending else kind_of(operator, bool(weight))
        path = weight.rpartition(".")[0] if weight and kind in ("linear", "convolution") else self.stack[-1]
        part = self.part_of(path, kind)
        self.flops[path, part] += flops
        self.parts_at.setdefault(path, set()).add(part)
        if weight:
            self.part_of_weight.setdefault(weight, part)

    def part_of(self, path: str, kind: str) -> str:
        """The part of an operator of this kind under a module path."""
        around = _ancestors(path)
        for one in reversed(around):
            if own := getattr(self.modules.get(one), "cost_part", ""):
                return own
        if kind == "scan":
            return "scan"
        words = [one.rpartition(".")[2] for one in around[1:]]
        words += [type(self.modules[one]).__name__ for one in around[1:] if one in self.modules]
        found = next((part for part, rule in RULES if any(_matches(rule, word) for word in words)), "")
        if kind == "attention" or (kind == "product" and found == "attention projections"):
            return "attention products"
        if kind == "convolution" and found not in ("patch embedding", "head"):
            return "convolution"
        return found or ("linear maps" if kind == "linear" else "other")

    def part_of_parameter(self, name: str) -> str:
        """The part of the operator that used it; norms, positions and the like are "other"."""
        if name in self.part_of_weight:
            return self.part_of_weight[name]
        path = name.rpartition(".")[0]
        owner, parts = self.modules[path], self.parts_at.get(path, set()) if path else set()
        if isinstance(owner, _ConvNd | nn.Linear):
            return self.part_of(path, "linear" if isinstance(owner, nn.Linear) else "convolution")
        if "scan" in parts:  # its own parameters are those of the scan; maps and convolutions are modules
            return "scan"
        return next(iter(parts)) if len(parts) == 1 else "other"


class _AttentionSpotter(TorchFunctionMode):
    """Tells the counter when it sees the products into which attention is taken apart where no kernel is."""

    def __init__(self, counter: _CountingMode) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self.counter.attending
        self.counter.attending = before or func is F.scaled_dot_product_attention
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.counter.attending = before


def kind_of(operator: Any, reads_weight: bool) -> str:
    """ "attention", "scan", "convolution", "linear", or "product" of two activations."""
    name = str(operator)
    if operator in FUSED_ATTENTION or "attention" in name:
        return "attention"
    if "scan" in name:
        return "scan"
    if "conv" in name:
        return "convolution"
    return "product" if operator in PRODUCTS and not reads_weight else "linear"


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    """q kᵀ and the product with v; softmax is not counted, masks save nothing."""
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return 2 * pairs * (query.shape[-1] + value.shape[-1])


def _ancestors(path: str) -> list[str]:
    """ "a.b.c" -> ["", "a", "a.b", "a.b.c"]."""
    names = path.split(".") if path else []
    return ["", *(".".join(names[: i + 1]) for i in range(len(names)))]


def _matches(rule: str, word: str) -> bool:
    return re.fullmatch(rule, word, re.IGNORECASE) is not None


@contextmanager
def _eval_mode(model: nn.Module) -> Generator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


@contextmanager
def _watched(model: nn.Module, counter: _CountingMode) -> Generator[None]:
    """The counter's stack follows the modules that run."""

    def entering(path: str) -> Callable[..., None]:
        return lambda *_: counter.stack.append(path)

    def leaving(path: str) -> Callable[..., None]:
        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            counter.stack.pop()
            extra: Any = getattr(module, "extra_flops", None)
            if extra is not None:
                for part, flops in extra(inputs, output).items():
                    counter.flops[path, part] += flops

        return leave

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(entering(path)))
        handles.append(module.register_forward_hook(leaving(path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
