"""Accuracy of token sampling against multiply-adds and CPU time, without fine-tuning, on real images.

    python results/token_sampling/measure.py gestures|cifar|vit DATA RUNS

gestures, cifar: DINOv2 ViT-S/14 as it comes; a linear map of its class token is fitted once to what the whole
model says and stays as it is. Gestures: the 700 images of whole bodies, 168 x 224 pixels. File names tell
neither persons nor recordings, and neighbours look alike, so images are grouped by what the camera sees
(k-means of thumbnails, 10 viewpoints) and a fifth of the viewpoints at a time is scored by a head that was
fitted to the others. Fitted to all images, scored on every second one.
CIFAR-10: fitted to every second training image, scored on all 1,000 of the test side, at 98 pixels.
vit: the ViTs of 0.3 M parameters that `framecast train cifar_vit` has put below RUNS/cifar_vit, and those
that were fine-tuned through the sampling below RUNS/tuned.

Times are CPU milliseconds of one thread; every round runs all settings on the same 8 images.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import framecast as fc
from framecast.backbones.adaptive_blocks import block_macs
from framecast.backbones.adaptive_int8 import int8
from framecast.data.recognition import open_recognition
from framecast.data.transforms import normalise, take_views
from framecast.infer.backbone import open_backbone
from framecast.metrics.view_protocols import get_view_protocol

SETTINGS = (  # share of the blocks before the first that samples, budget
    *((0.25, budget) for budget in (1.0, 0.65, 0.5, 0.4, 0.3, 0.2)),
    (0.5, 1.0),
    (0.75, 1.0),
)
SELECTIONS = ("sampled", "top", "random", "stride")
SEEDS = range(2)  # of random selection
INT8_BUDGETS = (1.0, 0.5)
BATCH = 8
VIEWPOINTS, FOLDS = 10, 5


class Images:
    """Images of one size in memory, normalised batch by batch."""

    def __init__(self, root: Path, subset: Any, size: tuple[int, int], config: Any, every: int = 1) -> None:
        data = open_recognition(root, subset=subset)
        chosen = range(0, len(data), every)
        view = replace(get_view_protocol("image/center-0.875"), crop_ratio=1.0)
        self.pixels = torch.cat([take_views(data.image(i), view, size) for i in chosen])
        self.labels = torch.from_numpy(data.labels[list(chosen)])
        self.num_classes, self.config = len(data.classes), config

    def keep_every(self, step: int) -> None:
        self.pixels, self.labels = self.pixels[::step], self.labels[::step]

    def batch(self, indices: Any) -> Tensor:
        return normalise(self.pixels[indices], self.config.mean, self.config.std)

    def batches(self, size: int = BATCH) -> Iterator[Tensor]:
        for indices in torch.arange(len(self.labels)).split(size):
            yield self.batch(indices)


# Heads on frozen features ------------------------------------------------------------------------------


def fit_head(features: Tensor, labels: Tensor, num_classes: int, decay: float = 1e-2) -> nn.Linear:
    """Multinomial logistic regression on standardised features, (N, D) -> (N, K)."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    scaled = (features - mean) / std
    with torch.enable_grad():
        head = nn.Linear(features.shape[1], num_classes)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(head(scaled), labels) + decay * head.weight.square().sum() / 2
            value.backward()
            return value

        optimizer.step(loss)
    with torch.no_grad():
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    return head


def viewpoints(pixels: Tensor) -> np.ndarray:
    """(N,) group of each image by what the camera sees: k-means of grey thumbnails of equal contrast."""
    grey = F.adaptive_avg_pool2d(pixels.float().mean(1, keepdim=True), (18, 24)).flatten(1).double()
    grey = (grey - grey.mean(1, keepdim=True)) / grey.std(1, keepdim=True)
    centres = grey[:1]
    while len(centres) < VIEWPOINTS:  # the farthest from all others
        centres = torch.cat([centres, grey[torch.cdist(grey, centres).amin(1).argmax()][None]])
    for _ in range(100):
        groups = torch.cdist(grey, centres).argmin(1)
        centres = torch.stack([grey[groups == g].mean(0) for g in range(VIEWPOINTS)])
    return groups.numpy()


def folds_of(groups: np.ndarray) -> Tensor:
    """(N,) fold of each image: whole groups, the largest first into the fold that has fewest images."""
    sizes, fold = np.bincount(groups), np.zeros(VIEWPOINTS, dtype=np.int64)
    filled = np.zeros(FOLDS, dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return torch.from_numpy(fold[groups])


# Accuracy ----------------------------------------------------------------------------------------------


class Tails:
    """The blocks from the first that samples on: what comes before is the same at every setting."""

    def __init__(self, model: Any, images: Images) -> None:
        self.model, self.first = model, 0
        self.tokens = [model.embed(batch) for batch in images.batches()]
        self.move_to(model.config.depth // 4)
        whole, tail = fc.adaptive(model, budget=0.5), self.adaptive(0.5, "sampled")
        torch.testing.assert_close(tail(self.tokens[0]), whole(next(images.batches())))

    def move_to(self, first: int) -> None:
        """Blocks before this one are done once for all; it comes no earlier than the one before."""
        for block in self.model.blocks[self.first : first]:
            self.tokens = [block(x) for x in self.tokens]
        self.first, count = first, self.tokens[0].shape[1]
        self.before = first * block_macs(self.model.blocks[0], count, count)
        self.tail = copy.copy(self.model)
        self.tail._modules = dict(self.model._modules)
        self.tail.blocks = self.model.blocks[first:]
        self.tail.config = replace(self.model.config, depth=len(self.tail.blocks))

    def adaptive(self, budget: float, select: Any, seed: int = 0) -> Any:
        made: Any = fc.adaptive(self.tail, range(len(self.tail.blocks)), budget, select=select)
        made.embed = lambda x: x
        made.generator = torch.Generator().manual_seed(seed)
        return made

    def run(self, budget: float, select: Any, seed: int = 0) -> tuple[Tensor, dict[str, Any]]:
        """What the model answers to all images, and what it took."""
        adaptive = self.adaptive(budget, select, seed)
        with adaptive.record() as record:
            answers = torch.cat([adaptive(tokens) for tokens in self.tokens])
        macs = (record.macs.double() + self.before) / 1e9
        cost = {
            "gmacs": float(macs.mean()),
            "gmacs_std": float(macs.std()),
            "share": float(macs.mean()) / ((record.full_macs + self.before) / 1e9),
            "tokens": [round(x, 1) for x in record.counts.double().mean(0).tolist()],
        }
        return answers, cost


def top1(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(1) == labels).double().mean())


def curve(tails: Tails, logits_of: Any, labels: Tensor) -> list[dict[str, Any]]:
    rows = []
    for start, budget in SETTINGS:
        tails.move_to(int(start * tails.model.config.depth))
        for select in SELECTIONS:
            seeds = SEEDS if select == "random" else range(1)
            runs = [tails.run(budget, select, seed) for seed in seeds]
            scores = [top1(logits_of(answers), labels) for answers, _ in runs]
            setting = {"select": select, "first_block": tails.first, "budget": budget}
            rows.append(setting | {"top1": statistics.fmean(scores)} | runs[0][1])
            if len(scores) > 1:
                rows[-1]["top1_std"] = statistics.stdev(scores)
            print(setting, f"{rows[-1]['top1']:.1f} % at {rows[-1]['share']:.2f}", flush=True)
    return rows


# Time --------------------------------------------------------------------------------------------------


def timed(competitors: dict[str, Any], images: Images, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU milliseconds an image, and times faster than "unmodified" in the same round."""
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for place in range(rounds + 1):  # the first one warms up
        batch = images.batch(order[torch.arange(place * BATCH, (place + 1) * BATCH) % len(order)])
        for name, model in competitors.items():
            start = time.process_time()
            model(batch)
            times[name].append(1e3 * (time.process_time() - start) / BATCH)
    whole = times["unmodified"][1:]
    found = {}
    for name, values in times.items():
        speeds = [a / b for a, b in zip(whole, values[1:], strict=True)]
        speed = statistics.median(speeds)
        found[name] = {"ms": statistics.median(whole) / speed, "speed": speed}
    return found


def time_rows(model: Any, rows: list[dict[str, Any]], images: Images, rounds: int) -> dict[str, float]:
    """Puts times into the rows; answers those of the unmodified model."""
    settings = {f"{row['select']} {row['first_block']} {row['budget']}": row for row in rows}
    competitors = {"unmodified": model}
    for name, row in settings.items():
        blocks = range(row["first_block"], len(model.blocks))
        competitors[name] = fc.adaptive(model, blocks, row["budget"], select=row["select"])
    found = timed(competitors, images, rounds)
    for name, row in settings.items():
        row |= found[name]
    return found["unmodified"]


# Studies -----------------------------------------------------------------------------------------------


def full_gmacs(model: Any, tails: Tails) -> float:
    tokens = tails.tokens[0].shape[1]
    return len(model.blocks) * block_macs(model.blocks[0], tokens, tokens) / 1e9


def run_all(model: Any, images: Images) -> Tensor:
    return torch.cat([model(batch) for batch in images.batches()])


def dinov2() -> Any:
    return open_backbone("vit_small_dinov2")[0].eval()


def gestures(data: Path, rounds: int = 7) -> dict[str, Any]:
    model = dinov2()
    images = Images(data / "gesture_images" / "body", "all", (168, 224), model.config)
    features, groups = run_all(model, images), viewpoints(images.pixels)
    folds = folds_of(groups)
    others = [folds != fold for fold in range(FOLDS)]
    heads = [fit_head(features[part], images.labels[part], images.num_classes) for part in others]
    print(f"all images: {top1(by_fold(heads, folds, features), images.labels):.1f} %", flush=True)
    study: dict[str, Any] = {"viewpoints": np.bincount(groups).tolist(), "folds": folds.bincount().tolist()}

    images.keep_every(2)
    logits_of = partial(by_fold, heads, folds[::2])
    full = logits_of(features[::2])
    tails = Tails(model, images)
    print(f"whole: {top1(full, images.labels):.1f} %", flush=True)
    study |= {
        "images": len(images.labels),
        "full": {"top1": top1(full, images.labels), "gmacs": full_gmacs(model, tails)},
        "int8": int8_rows(model, logits_of, full, images, tails, rounds),
        "points": curve(tails, logits_of, images.labels),
    }
    study["full"] |= time_rows(model, study["points"], images, rounds)
    return study


def by_fold(heads: list[nn.Linear], folds: Tensor, answers: Tensor) -> Tensor:
    """Logits (N, K), each by the head that has not seen the fold of its image."""
    every = torch.stack([head(answers) for head in heads])
    return every[folds, torch.arange(len(folds))]


def int8_rows(
    model: Any, logits_of: Any, full: Tensor, images: Images, tails: Tails, rounds: int
) -> list[dict[str, Any]]:
    """How often int8 names the class that float32 names, whole and with sampling."""
    competitors = {"unmodified": model, "whole": int8(model)}
    expected = {"whole": full}
    for budget in INT8_BUDGETS:
        competitors[str(budget)] = int8(fc.adaptive(model, budget=budget))
        expected[str(budget)] = logits_of(tails.run(budget, "sampled")[0])
    times, rows = timed(competitors, images, rounds), []
    for name, float32 in expected.items():
        logits = logits_of(run_all(competitors[name], images))
        agreement = top1(logits, float32.argmax(1))
        scores = {"top1": top1(logits, images.labels), "top1_float32": top1(float32, images.labels)}
        rows.append({"setting": name, "agreement": agreement} | scores | times[name])
        print(rows[-1], flush=True)
    return rows


def cifar(data: Path, rounds: int = 25) -> dict[str, Any]:
    model = dinov2()
    train = Images(data / "cifar10_small", "train", (98, 98), model.config, every=2)
    head = fit_head(run_all(model, train), train.labels, train.num_classes)
    images = Images(data / "cifar10_small", "test", (98, 98), model.config)
    tails = Tails(model, images)
    full = top1(head(run_all(model, images)), images.labels)
    print(f"whole: {full:.1f} %", flush=True)
    study = {
        "images": len(images.labels),
        "train_images": len(train.labels),
        "full": {"top1": full, "gmacs": full_gmacs(model, tails)},
        "points": curve(tails, head, images.labels),
    }
    study["full"] |= time_rows(model, study["points"], images, rounds)
    return study


def vit(data: Path, runs: Path, rounds: int = 25) -> dict[str, Any]:
    """Means over the seeds; of models fine-tuned at a budget the score there and with all tokens."""
    models: list[Any] = [fc.load(path).eval() for path in sorted((runs / "cifar_vit").glob("seed*"))]
    config = models[0].config
    images = Images(data / "cifar10_small", "test", (32, 32), config)
    whole = [top1(run_all(model, images), images.labels) for model in models]
    tails = [Tails(model, images) for model in models]
    curves = [curve(each, lambda answers: answers, images.labels) for each in tails]
    rows = [dict(row) for row in curves[0]]
    for i, row in enumerate(rows):
        scores = [other[i]["top1"] for other in curves]
        row |= {"top1": statistics.fmean(scores), "top1_std": statistics.stdev(scores), "seeds": scores}
        row |= {key: statistics.fmean(other[i][key] for other in curves) for key in ("gmacs", "share")}
    full = {"top1": statistics.fmean(whole), "seeds": whole, "gmacs": full_gmacs(models[0], tails[0])}
    full |= time_rows(models[0], rows, images, rounds)
    tuned = [tuned_row(p.parent, images) for p in sorted((runs / "tuned").glob("*/*/summary.json"))]
    longer = [read_run(p.parent) for p in sorted((runs / "tuned_whole").glob("*/*/summary.json"))]
    return {"images": len(images.labels), "full": full, "points": rows, "tuned": tuned, "tuned_whole": longer}


def tuned_row(path: Path, images: Images) -> dict[str, Any]:
    model: Any = fc.load(path).eval()
    budget = model.config.budget[0]
    answers, cost = Tails(model.host, images).run(budget, "sampled")
    whole = run_all(model.host, images)
    scores = {"top1": top1(answers, images.labels), "top1_whole": top1(whole, images.labels)}
    print(path, scores, flush=True)
    return {"budget": budget} | read_run(path) | cost | scores


def read_run(path: Path) -> dict[str, Any]:
    """Seed, score and seconds of a training."""
    summary = json.loads((path / "summary.json").read_text())
    return {"seed": summary["seed"], "top1": summary["metrics"]["top1"], "seconds": summary["seconds"]}


@torch.no_grad()
def main(name: str, data: Path, runs: Path) -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    study = {"gestures": gestures, "cifar": cifar}[name](data) if name != "vit" else vit(data, runs)
    study |= {"cpu_seconds": round(time.process_time() - start)}
    runs.mkdir(parents=True, exist_ok=True)
    (runs / f"{name}.json").write_text(json.dumps(study, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
