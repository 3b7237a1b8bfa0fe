"""One report of a model: counted, timed warm, weighed in a fresh process, its energy read where it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from framecast.backbones.adaptive_model import AdaptiveModel
from framecast.infer.token_statistics import TokenStatistics, macs_around_blocks, token_statistics
from framecast.profile.counting import Counts, count
from framecast.profile.energy import EnergyMeter, NotMeasurable, energy_meter
from framecast.profile.memory import Memory, measure_here, peak_memory
from framecast.profile.report import ModelProfile
from framecast.profile.subjects import Subject
from framecast.profile.timing import Timing, measure, num_threads

AT_ONCE = 16  # inputs of which it is seen how many tokens are left
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


@dataclass(frozen=True)
class Settings:
    """How a model is measured."""

    batch: int = 1
    threads: int | None = None  # None = as many as torch uses now
    device: str = "cpu"
    seconds: float = 2.0  # of timing
    counts_only: bool = False  # neither time nor memory is measured, so nothing needs to fit into memory
    count_run: bool = False  # MACs that really ran on this input, instead of those that its shape implies


def profile_subject(
    subject: Subject,
    settings: Settings = Settings(),
    *,
    x: Tensor | None = None,
    data: str = "",
    scores: dict[str, float] | None = None,
) -> ModelProfile:
    """Profile a registered model or a trained run.

    x: real inputs, the first of which is counted and as many as `settings.batch` are timed, over and over
    where it asks for more; an adaptive model is shown all of them. None = random numbers of the subject's
    shape. data: their name. Raises ValueError where the model cannot read the input.
    """
    if x is not None:
        subject = replace(subject, shape=tuple(x.shape[1:]))
    missing: dict[str, str] = {}
    counts, executed, where = _counts(subject, settings, x)
    timing = memory = tokens = None
    if not settings.counts_only:
        tokens = _tokens(subject.build(settings.device), x, missing)
        with num_threads(settings.threads) as threads:
            timing = _timing(subject, settings, x, missing)
            try:
                memory = peak_memory(subject, settings.batch, device=settings.device, threads=threads)
            except NotMeasurable as reason:
                missing["memory"] = str(reason)
    return ModelProfile(
        name=subject.name,
        model=subject.model,
        input=subject.input_text,
        counts=counts,
        executed=executed,
        executed_on=where,
        data=data,
        timing=timing,
        memory=memory,
        tokens=tokens,
        scores=scores or {},
        missing=missing,
    )


def profile_model(
    model: nn.Module, x: Tensor, *, name: str = "", settings: Settings = Settings()
) -> ModelProfile:
    """Profile any module on a real batch (B, …); peak memory is that of this process and may come out low.

    profile_model(MyNetwork(), torch.randn(1, 3, 224, 224)).to_json()
    """
    missing: dict[str, str] = {}
    model.eval()
    counts, executed = count(_unmodified(model), x[:1], whole=True), count(model, x[:1])
    timing: Timing | None = None
    memory: Memory | None = None
    tokens: TokenStatistics | None = None
    if not settings.counts_only:
        tokens = _tokens(model, x, missing)
        with num_threads(settings.threads):
            timing = _timed(model, x, settings.seconds, missing)
            try:
                memory = measure_here(model, x)
            except NotMeasurable as reason:
                missing["memory"] = str(reason)
    return ModelProfile(
        name=name or type(model).__name__,
        model=type(model).__name__,
        input="x".join(map(str, x.shape[1:])),
        counts=counts,
        executed=executed,
        executed_on="data",
        data="given input",
        timing=timing,
        memory=memory,
        tokens=tokens,
        missing=missing,
    )


def _unmodified(model: nn.Module) -> nn.Module:
    """Papers' "every token through every layer" is that of the model whose tokens are sampled."""
    return model.host if isinstance(model, AdaptiveModel) else model


@torch.inference_mode()
def _tokens(model: nn.Module, x: Tensor | None, missing: dict[str, str]) -> TokenStatistics | None:
    """What an adaptive model keeps of all inputs, where they are real ones."""
    if not isinstance(model, AdaptiveModel):
        return None
    if x is None:
        missing["tokens left"] = "random numbers do not tell; take a trained model and --data FOLDER"
        return None
    parts = x.to(next(model.parameters()).device).split(AT_ONCE)
    with model.record(with_ids=False) as record:
        for part in parts:
            model(part)
    return token_statistics(model, record, macs_around_blocks(model, parts[0]))


def _counts(subject: Subject, settings: Settings, x: Tensor | None) -> tuple[Counts, Counts, str]:
    """As papers count, as it runs, and whether the latter is by "shapes" or by "data"."""
    try:
        if not settings.count_run:
            model, one = subject.build("meta"), subject.random_input(1, "meta")
            try:
                return count(_unmodified(model), one, whole=True), count(model, one), "shapes"
            except NotImplementedError:  # the model asks for values, which `meta` does not have
                pass
        model = subject.build(settings.device)
        one = subject.random_input(1, settings.device) if x is None else x[:1].to(settings.device)
        return count(_unmodified(model), one, whole=True), count(model, one), "data"
    except (RuntimeError, IndexError, ValueError) as error:
        text = f"{subject.name} cannot read an input of {subject.input_text}: {first_line(error)}"
        raise ValueError(text) from error


def _timing(subject: Subject, settings: Settings, x: Tensor | None, missing: dict[str, str]) -> Timing:
    try:
        model = subject.build(settings.device)
        if x is None:
            batch = subject.random_input(settings.batch, settings.device)
        else:
            times = math.ceil(settings.batch / len(x))
            batch = x.to(settings.device).repeat(times, *[1] * (x.ndim - 1))[: settings.batch]
        return _timed(model, batch, settings.seconds, missing)
    except RuntimeError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            what = f"{settings.batch} of {subject.input_text}"
            raise MemoryError(
                f"{subject.name} with {what}; --counts-only counts without running it"
            ) from None
        raise


@torch.inference_mode()
def _timed(model: nn.Module, x: Tensor, seconds: float, missing: dict[str, str]) -> Timing:
    meter: EnergyMeter | None = None
    try:
        meter = energy_meter(x.device)
    except NotMeasurable as reason:
        missing["energy"] = str(reason)
    return measure(lambda: model(x), batch=len(x), device=x.device, seconds=seconds, meter=meter)


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
