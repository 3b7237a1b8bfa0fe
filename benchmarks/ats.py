"""Adaptive token sampling of a DeiT-S at half the multiply-adds, on a CPU.

    python benchmarks/ats.py [--quick] [--json FILE] [--batch 1 8 32]

CPU time of one thread, median of paired rounds. Random weights pay flat attention, so that a profile is
imposed on the sorted shares of the patches, the same in all competitors: 1 / rank, or for batches in which
images differ 1 / rank^p with a p of each image; which patch has which rank stays as the weights say. What
imposing it on ours takes is measured and taken off.

- unmodified: every block computes every token, fused attention, as timm's model does
- slicing: the same numbers of tokens cut from the front of the sequence, nothing scored or sampled
- release: the equations written down as the release computes them, tokens dropped or masked
- int8: linear maps quantised while they run (torch's dynamic quantisation)
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pairing import paired_times, ratio, report, row
from reference_ats import ReferenceAts
from torch import Tensor

import framecast as fc
from framecast.backbones import adaptive_blocks
from framecast.backbones.adaptive_int8 import int8
from framecast.nn import token_sampling

BLOCKS = tuple(range(3, 12))
SPEED_GOALS = {1: 1.7, 8: 1.83, 32: 2.0}  # times the unmodified model's speed
SMALLEST_MARGIN = 1e-6  # relative gap of two scores; closer ones may change places by rounding
LARGEST_ERROR = 2e-5  # of the logits against the release's equations, relative to the largest


class Profile:
    """Imposes rank^-p on ascending shares; p is one number, or one of each image."""

    def __init__(self, exponents: Tensor) -> None:
        ranks = torch.arange(4096, 0, -1, dtype=torch.float32)
        self.table = ranks ** -exponents[:, None]
        self.array = self.table.numpy()

    def __call__(self, ranked: Tensor) -> Tensor:
        return torch.where(ranked <= 0, ranked, self.table[:, -ranked.shape[1] :])


class Imposed:
    """Inside, ours samples from the profile as well; `spent` CPU milliseconds go into imposing it."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.native = profile, adaptive_blocks.token_scores
        self.natural, self.spent = token_sampling.normalised_cdf, 0.0

    margins = np.empty(0)  # (B,) smallest relative gap of the natural scores of each image, while asked for

    def __enter__(self) -> Imposed:
        self.put(self.scores, lambda ranked, *dead, **how: self.natural(self.profile(ranked), *dead, **how))
        return self

    def __exit__(self, *_: object) -> None:
        self.put(self.native, self.natural)

    def put(self, scores: Callable[..., Tensor], curve: Callable[..., Tensor]) -> None:
        setattr(adaptive_blocks, "token_scores", scores)  # noqa: B010
        setattr(token_sampling, "normalised_cdf", curve)  # noqa: B010

    def scores(self, *arguments: Any) -> Tensor:
        scores = self.native(*arguments).numpy()
        start = time.process_time()
        if len(scores) == len(self.margins):
            ranked = np.sort(np.where(scores < 0, np.nan, scores), axis=1)
            gaps = np.diff(ranked, axis=1) / ranked[:, 1:]
            self.margins = np.fmin(self.margins, np.nanmin(gaps, axis=1))
        rows, slots = np.arange(len(scores))[:, None], scores.shape[1]
        order, profile = scores.argsort(axis=1), self.profile.array[:, -slots:]
        dead = (scores < 0).sum(axis=1, keepdims=True) if len(scores) > 1 else 0
        scores[rows, order] = np.where(np.arange(slots) < dead, -1.0, profile) if np.any(dead) else profile
        self.spent += 1e3 * (time.process_time() - start)
        return torch.from_numpy(scores)


def unmodified(model: Any, images: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(images))


class Slicing:
    """The class token and the first patches of every stage, none of them scored."""

    def __init__(self, model: Any, counts: list[int]) -> None:
        self.model, self.counts = model, [*[None] * BLOCKS[0], *counts]

    def __call__(self, images: Tensor) -> Tensor:
        x = self.model.embed(images)
        for block, kept in zip(self.model.blocks, self.counts, strict=True):
            if kept is None:
                x = block(x)
                continue
            h, joint = block.norm1(x), block.attn.qkv
            width = x.shape[-1]
            k, v = F.linear(h, joint.weight[width:], joint.bias[width:]).chunk(2, dim=-1)
            q = F.linear(h[:, :kept], joint.weight[:width], joint.bias[:width])
            x = x[:, :kept] + block.attn.attend(q, k, v)
            x = x + block.mlp(block.norm2(x))
        return self.model.forward_head(self.model.norm(x))


class Watched:
    """Time spent inside a function of a module, in CPU milliseconds."""

    def __init__(self, module: Any, name: str) -> None:
        self.module, self.name, self.inner, self.spent = module, name, getattr(module, name), 0.0

    def __enter__(self) -> Watched:
        setattr(self.module, self.name, self.timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.inner)

    def timed(self, *arguments: Any) -> Any:
        start = time.process_time()
        result = self.inner(*arguments)
        self.spent += 1e3 * (time.process_time() - start)
        return result


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def share_of_sampling(run: Any, imposed: Imposed, rounds: int) -> tuple[float, float, float]:
    """Median share of a run that scoring and sampling take, and both times."""
    shares, inside, whole = [], [], []
    for _ in range(rounds):
        imposed.spent = 0.0
        with Watched(adaptive_blocks, "sampled_rows") as watched:
            start = time.process_time()
            run()
            whole.append(1e3 * (time.process_time() - start) - imposed.spent)
        inside.append(watched.spent - imposed.spent)
        shares.append(inside[-1] / whole[-1])
    return statistics.median(shares), min(inside), min(whole)


def times_of(runs: dict[str, Any], imposed: Imposed, rounds: int) -> dict[str, list[float]]:
    """As `paired_times`, without what it takes to impose the profile on ours."""
    imposed.spent = 0.0
    times = paired_times(runs, rounds)
    each = imposed.spent / (rounds + 1)
    return times | {"ours": [value - each for value in times["ours"]]}


@torch.inference_mode()
def uniform_rows(model: Any, batch: int, rounds: int) -> list[dict[str, Any]]:
    """One profile for all images: every stage keeps equally many tokens of each."""
    images, adaptive = torch.randn(batch, 3, 224, 224), fc.adaptive(model)
    profile = Profile(torch.ones(1))
    dropping = ReferenceAts(model, BLOCKS, "drop", profile)
    masking = ReferenceAts(model, BLOCKS, "mask", profile)
    with Imposed(profile) as imposed:
        with adaptive.record() as record:
            logits = adaptive(images)
        imposed.margins = np.full(batch, np.inf)
        coupled = fc.adaptive(model, semantics="batch-coupled")(images)
        errors = [relative(*pair) for pair in zip(coupled, dropping(images), strict=True)]
        decided = [e for e, margin in zip(errors, imposed.margins, strict=True) if margin > SMALLEST_MARGIN]
        if not max(decided, default=0.0) < LARGEST_ERROR:
            raise SystemExit(
                f"outputs differ by {max(decided):.1e} at batch {batch}; timing would mean nothing"
            )
        imposed.margins = np.empty(0)
        if len(decided) < batch:
            print(f"batch {batch}: {batch - len(decided)} images not compared: rounding can swap two scores")
        alone = torch.cat([adaptive(image[None]) for image in images])
        slicing = Slicing(model, record.counts[0].tolist())
        runs = {
            "ours": lambda: adaptive(images),
            "unmodified": lambda: unmodified(model, images),
            "our forward": lambda: model(images),
            "slicing": lambda: slicing(images),
            "dropped": lambda: dropping(images),
            "masked": lambda: masking(images),
        }
        times = times_of(runs, imposed, rounds)
        share, inside, whole = share_of_sampling(runs["ours"], imposed, rounds)
    best = {name: min(values) for name, values in times.items()}
    macs = float(record.macs[0]) / record.full_macs
    title = f"batch {batch}"

    def against(other: str, goal: str = "") -> dict[str, Any]:
        speed = ratio(times, other, "ours")
        return row(f"{title}, times faster than {other}", best["ours"], best[other], "ms", speed, goal)

    efficiency = ratio(times, "slicing", "ours")
    return [
        row(f"{title}, share of the multiply-adds", macs, 1.0, "", macs),
        against("unmodified", f">= {SPEED_GOALS.get(batch, 1.7)}"),
        against("our forward", ">= 1.0"),
        row(f"{title}, of plain slicing's speed", best["ours"], best["slicing"], "ms", efficiency, ">= 0.94"),
        against("dropped", ">= 1.15"),
        against("masked"),
        row(f"{title}, share of sampling", inside, whole, "ms", share, "<= 0.05"),
        row(f"{title}, alone against in a batch", 0, 0, "", relative(alone, logits), "<= 1e-6"),
    ]


@torch.inference_mode()
def mixed_rows(model: Any, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Images that need different numbers of tokens."""
    images, adaptive = torch.randn(batch, 3, 224, 224), fc.adaptive(model)
    exponents = torch.linspace(0.55, 1.6, batch)
    profile = Profile(exponents)
    dropping = ReferenceAts(model, BLOCKS, "drop", profile)
    with Imposed(profile) as imposed, adaptive.record() as record:
        logits = adaptive(images)
    alone = []
    for i, image in enumerate(images):
        with Imposed(Profile(exponents[i : i + 1])):
            alone.append(adaptive(image[None]))
    with Imposed(profile) as imposed:
        runs = {
            "ours": lambda: adaptive(images),
            "unmodified": lambda: unmodified(model, images),
            "dropped": lambda: dropping(images),
        }
        times = times_of(runs, imposed, rounds)
    best = {name: min(values) for name, values in times.items()}
    macs = float(record.macs.double().mean()) / record.full_macs
    low, high = (int(x) for x in record.counts[:, 0].aminmax())
    title = f"batch {batch}, {low}..{high} tokens"
    speeds = {name: ratio(times, name, "ours") for name in ("unmodified", "dropped")}
    gain, largest = ratio(times, "unmodified", "dropped"), relative(torch.cat(alone), logits)
    return [
        row(f"{title}, share of the multiply-adds", macs, 1.0, "", macs),
        row(f"{title}, times faster", best["ours"], best["unmodified"], "ms", speeds["unmodified"], ">= 1.8"),
        row(f"{title}, than dropped", best["ours"], best["dropped"], "ms", speeds["dropped"], ">= 1.15"),
        row(f"{title}, dropped against unmodified", best["dropped"], best["unmodified"], "ms", gain),
        row(f"{title}, alone against in a batch", 0, 0, "", largest, "<= 1e-6"),
    ]


@torch.inference_mode()
def flat_rows(model: Any, batch: int, rounds: int) -> list[dict[str, Any]]:
    """All patches alike: as many tokens stay as ever can."""
    images, adaptive, profile = torch.randn(batch, 3, 224, 224), fc.adaptive(model), Profile(torch.zeros(1))
    with Imposed(profile) as imposed:
        runs = {"ours": lambda: adaptive(images), "unmodified": lambda: unmodified(model, images)}
        times = times_of(runs, imposed, rounds)
    best = {name: min(values) for name, values in times.items()}
    speed = ratio(times, "unmodified", "ours")
    name = f"batch {batch}, flat, times faster"
    return [row(name, best["ours"], best["unmodified"], "ms", speed, ">= 1.0")]


@torch.inference_mode()
def int8_rows(model: Any, batch: int, rounds: int) -> list[dict[str, Any]]:
    images, adaptive, profile = torch.randn(batch, 3, 224, 224), fc.adaptive(model), Profile(torch.ones(1))
    small, small_host = int8(adaptive), int8(model)
    with Imposed(profile) as imposed:
        runs = {
            "ours": lambda: small(images),
            "int8 host": lambda: small_host(images),
            "unmodified": lambda: unmodified(model, images),
        }
        times = times_of(runs, imposed, rounds)
    best = {name: min(values) for name, values in times.items()}
    speed, host = ratio(times, "unmodified", "ours"), ratio(times, "unmodified", "int8 host")
    return [
        row(f"batch {batch}, int8 alone", best["int8 host"], best["unmodified"], "ms", host, ">= 1.55"),
        row(f"batch {batch}, int8 and sampling", best["ours"], best["unmodified"], "ms", speed, ">= 2.8"),
    ]


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 8, few rounds")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--batch", type=int, nargs="+", help="images at once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.manual_seed(0)
    model = fc.create_model("vit_small").eval()
    rows: list[dict[str, Any]] = []
    for batch in arguments.batch or ([1, 8] if arguments.quick else list(SPEED_GOALS)):
        rounds = max(3, (5 if arguments.quick else 15) // (1 + batch // 8))
        rows += uniform_rows(model, batch, rounds)
        rows += flat_rows(model, batch, rounds)
        if batch == 8:
            rows += mixed_rows(model, batch, rounds)
            rows += int8_rows(model, batch, rounds)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
