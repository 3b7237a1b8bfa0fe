"""What every adaptive model has: the host that it samples, the settings, and a record of what it kept.

An adaptive model owns nothing. Its modules, parameters and state dict are those of the host, under the same
names, so that training one trains the other and weights of one are weights of the other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from framecast.nn.ragged import Ragged
from framecast.nn.token_sampling import Grid, Selection

Semantics = Literal["per-sample", "mask", "batch-coupled"]
Scope = Literal["frame", "clip"]
Budget = tuple[float | int, ...]

FEWEST = 8  # tokens of a budget, as the release has it


@dataclass(frozen=True)
class SamplingConfig:
    """Where tokens are sampled, how many may stay, and by which rule.

    blocks: those that sample (0-based); None = the last three quarters, the release's 3..11 of 12.
    budget: for each of them the most tokens that may stay, the class token among them: a ratio of the tokens
    of the input up to 1, else a count, at least 8. One number is meant for all blocks; None = all tokens.
    semantics: where the sampled curve begins once tokens have left. "per-sample": at the least significant
    one that is left, as the release does with one image; "mask": at 0, its training mode; "batch-coupled":
    at 0 for those that keep fewer tokens than others in the batch, its mode of evaluation.
    grid: the release's sample points, or the midpoints of the paper (whose curve always begins at 0).
    scope: of a clip, whether each frame is sampled by itself or all frames keep the same places.
    select: sampling, or for comparison as many tokens chosen otherwise (see `nn.token_sampling`).
    """

    blocks: tuple[int, ...] | None = None
    budget: Budget | float | int | None = None
    semantics: Semantics = "per-sample"
    grid: Grid = "release"
    scope: Scope = "frame"
    select: Selection = "sampled"

    def sampling(self) -> dict[str, Any]:
        """The settings of this class alone, as JSON has them."""
        return {f.name: getattr(self, f.name) for f in fields(SamplingConfig)}

    def budget_of(self, stage: int) -> float | int:
        assert isinstance(self.budget, tuple)
        return self.budget[stage]


def resolve(config: SamplingConfig, blocks: Sequence[int], depth: int) -> dict[str, Any]:
    """Settings of `config` with blocks and budget written out; blocks: those that could sample."""
    asked = [i for i in blocks if i >= depth // 4] if config.blocks is None else sorted(set(config.blocks))
    for i in asked:
        if i not in blocks:
            raise ValueError(
                f"block {i} cannot sample tokens; those that can are {', '.join(map(str, blocks)) or 'none'}"
            )
    if not asked:
        raise ValueError(
            f"no block can sample tokens among those asked for; those that can are {list(blocks)}"
        )
    budget = 1.0 if config.budget is None else config.budget
    budgets = tuple(budget) if isinstance(budget, (tuple, list)) else (budget,) * len(asked)
    if len(budgets) != len(asked):
        raise ValueError(f"{len(budgets)} budgets are given for {len(asked)} blocks ({tuple(asked)})")
    for value in budgets:
        if not value > 0 or (value > 1 and value != int(value)):
            raise ValueError(f"budget is {value}; it must be a ratio above 0 up to 1, or a count of tokens")
    whole = tuple(int(value) if value > 1 else float(value) for value in budgets)
    known = {"semantics": Semantics, "grid": Grid, "scope": Scope, "select": Selection}
    for name, choices in known.items():
        if getattr(config, name) not in choices.__args__:
            given, words = getattr(config, name), ", ".join(map(repr, choices.__args__))
            raise ValueError(f"{name} is {given!r}; it must be one of {words}")
    return config.sampling() | {"blocks": tuple(asked), "budget": whole}


def num_points(budget: float | int, num_patches: int) -> int:
    """Sample points of a stage, which are also its candidates; the whole input has 1 + num_patches tokens."""
    tokens = 1 + num_patches
    wanted = round(budget * tokens) if budget <= 1 else int(budget)
    return min(max(wanted, FEWEST), tokens) - 1


@cache
def config_class(host: type) -> type:
    """The settings of the sampling and of such a host in one dataclass."""
    return make_dataclass("AdaptiveConfig", [], bases=(SamplingConfig, host), frozen=True)


def split_config(config: Any, host: Any) -> tuple[Any, SamplingConfig]:
    """The host's settings and those of the sampling, of what `config_class` has put together."""
    own = {f.name for f in fields(SamplingConfig)}
    theirs = {f.name: getattr(config, f.name) for f in fields(host) if f.name not in own}
    return host(**theirs), SamplingConfig(**{name: getattr(config, name) for name in own})


# Records ----------------------------------------------------------------------------------------------


@dataclass
class SamplingRecord:
    """What was kept of each sample: filled by every call of the model inside `record()`."""

    counts: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    """(samples, stages) tokens that are left after each stage, prefix tokens included; of all frames."""
    ids: list[list[Tensor]] = field(default_factory=list)
    """Of each stage and sample the kept patches, numbered as the input has them (a clip frame by frame); by
    ascending score, frame by frame where frames are sampled one by one."""
    macs: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """(samples,) multiply-adds in the blocks; without patch embedding and head."""
    full_macs: int = 0  # of the same sample in the host, all tokens kept to the end
    num_patches: int = 0  # of each sequence of the input
    sequences: int = 0  # of a sample: 1, or its frames where these are sampled one by one
    with_ids: bool = True  # which patches, not only how many; what they take grows with every call

    def add(self, trace: Trace) -> None:
        """One call of the model."""
        new = torch.tensor(trace.counts, dtype=torch.int64).T.reshape(len(trace.macs), len(trace.counts))
        self.counts = new if not len(self.counts) else torch.cat([self.counts, new])
        if self.with_ids:
            self.ids = [
                old + now for old, now in zip(self.ids or [[] for _ in trace.ids], trace.ids, strict=True)
            ]
        self.num_patches, self.sequences = trace.num_patches, trace.sequences
        self.macs = torch.cat([self.macs, torch.tensor(trace.macs, dtype=torch.int64)])
        self.full_macs = trace.full


class Trace:
    """Notes of one call, taken stage by stage and put together at its end."""

    def __init__(self, samples: int) -> None:
        self.macs = [0] * samples
        self.full = 0  # of one sample, without sampling
        self.counts: list[list[int]] = []
        self.ids: list[list[Tensor]] = []
        self.num_patches = self.sequences = 0  # as in the record

    def work(self, macs: Sequence[int]) -> None:
        """Multiply-adds of each unit (frames of a sample stand together)."""
        each = len(macs) // len(self.macs)
        for i, value in enumerate(macs):
            self.macs[i // each] += value

    def stage(self, ids: Tensor, layout: Ragged, num_patches: int) -> None:
        """ids (R,): patch of each row in its sequence of num_patches, -1 for prefix tokens."""
        samples = len(self.macs)
        each = len(layout.counts) // samples
        sums = [sum(layout.counts[i * each : (i + 1) * each]) for i in range(samples)]
        self.counts.append(sums)
        self.num_patches, self.sequences = num_patches, each
        frames = layout.owners % each if layout.rows else ids
        ids = torch.where(ids < 0, ids, ids + frames * num_patches)
        self.ids.append([part[part >= 0].cpu() for part in ids.split(sums)])


# The model --------------------------------------------------------------------------------------------


class AdaptiveModel(nn.Module):
    """A host that leaves tokens out where they matter little; takes and answers what the host does."""

    config: Any  # a SamplingConfig that also has the settings of the host

    def __init__(self, host: nn.Module, config: SamplingConfig) -> None:
        super().__init__()
        # the very dictionaries of the host, not copies: a module that is exchanged in one is so in both
        self._modules, self._parameters, self._buffers = host._modules, host._parameters, host._buffers
        self.__dict__["host"] = host  # beside the modules, else every name would begin with "host."
        self.training = host.training
        sampling = resolve(config, self.sampling_blocks(), self.depth)
        own = getattr(host, "config", None)
        if is_dataclass(own) and not isinstance(own, type):
            theirs = {k: v for k, v in asdict(own).items() if k not in sampling}
            self.config = config_class(type(own))(**theirs, **sampling)
        else:
            self.config = SamplingConfig(**sampling)
        self.generator: torch.Generator | None = None  # of select="random"; None = torch's
        self._record: SamplingRecord | None = None
        self.take_notes(host)

    host: Any

    @property
    def depth(self) -> int:
        return len(self.host.blocks)

    def sampling_blocks(self) -> list[int]:
        """Blocks that could sample."""
        return list(range(self.depth))

    def stage_of(self, block: int) -> int | None:
        """Place of a block among those that sample, None for others."""
        return self.config.blocks.index(block) if block in self.config.blocks else None

    def forward(self, pixels: Tensor) -> Tensor:  # as the host
        if torch.compiler.is_compiling():
            return self.forward_masked(pixels)
        if self._record is None:
            return self.scores(pixels, None)
        trace = Trace(pixels.shape[0])
        scores = self.scores(pixels, trace)
        self._record.add(trace)
        return scores

    def scores(self, pixels: Tensor, trace: Trace | None) -> Tensor:
        """The answer, with tokens taken away where they are left out."""
        raise NotImplementedError

    def forward_masked(self, pixels: Tensor) -> Tensor:
        """The same with shapes that depend on no values, for exporters and compilers; nothing is saved."""
        raise NotImplementedError(f"{type(self).__name__} cannot be compiled or exported; its host can")

    def with_budget(
        self, budget: Budget | float | None, blocks: Sequence[int] | None = None
    ) -> AdaptiveModel:
        """The same host at another setting; blocks None = the same ones."""
        chosen = self.config.blocks if blocks is None else tuple(blocks)
        settings = self.config.sampling() | {"budget": budget, "blocks": chosen}
        other = type(self)(self.host, SamplingConfig(**settings))
        other.generator = self.generator
        other.take_notes(self)
        return other

    def take_notes(self, other: nn.Module) -> None:
        """Name, card and import report of a model, where it has them."""
        for name in ("registered_name", "card", "import_report"):
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))

    @contextmanager
    def record(self, *, with_ids: bool = True) -> Generator[SamplingRecord]:
        """Inside, every call adds what was kept of its samples to the record."""
        before, self._record = self._record, SamplingRecord(with_ids=with_ids)
        try:
            yield self._record
        finally:
            self._record = before

    def train(self, mode: bool = True) -> AdaptiveModel:
        self.host.train(mode)
        return super().train(mode)

    def layer_groups(self) -> list[list[str]]:
        return self.host.layer_groups()

    def no_weight_decay(self) -> set[str]:
        return self.host.no_weight_decay()
