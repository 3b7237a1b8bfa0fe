"""Accuracy of a recognition model on corrupted images and clips, and along the quality of JPEG.

Every item is decoded once; all variants are made from its uint8 crops on the model's device. What was
measured stands in one JSON file that later calls extend.

    CE_c = sum_s E_sc / sum_s E_sc(AlexNet), mCE = mean over the 15 corruptions, both in percent

with E the top-1 error at severity s (Hendrycks and Dietterich, https://arxiv.org/abs/1903.12261). AlexNet's
errors are those on ImageNet: on other data mCE only weighs the corruptions by how hard they are there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from framecast.checkpoints import card_of, load
from framecast.data.corruptions import CORRUPTIONS, SEVERITIES, compress_jpeg, corrupt, corruption_seed
from framecast.data.recognition_samples import RecognitionViews
from framecast.data.transforms import normalise
from framecast.infer.evaluation import check_classes
from framecast.recipes.build import open_recognition_data, view_protocol
from framecast.tasks.recognition import VIEWS_AT_ONCE, classify, views_of
from framecast.train.config import load_recipe
from framecast.train.recognition_recipe import RecognitionDataSettings, RecognitionRecipe
from framecast.writing import write_file

JPEG_QUALITIES = (100, 75, 50, 25, 18, 15, 10, 7)
CLEAN = "clean"
SAVE_EVERY_S = 60.0
Track = Callable[[Sequence[int], str], Iterable[int]]


def variant(name: str, severity: int) -> str:
    """Key of a corruption at a severity; "jpeg" shares its keys with the JPEG curve."""
    if name == "jpeg":
        return quality_variant(int(CORRUPTIONS["jpeg"].settings[severity - 1][0]))
    return f"{name}/{severity}"


def quality_variant(quality: int) -> str:
    return f"jpeg-quality/{quality}"


def wanted_variants(
    corruptions: Iterable[str] = (), severities: Sequence[int] = SEVERITIES, *, jpeg_curve: bool = False
) -> list[str]:
    """Keys of what is to be measured, the clean data first."""
    keys = [CLEAN, *(variant(name, s) for name in corruptions for s in severities)]
    keys += [quality_variant(q) for q in JPEG_QUALITIES] if jpeg_curve else []
    return list(dict.fromkeys(keys))


@dataclass
class Robustness:
    """What one model reached on one data set; `scores` holds {"top1", "top5"} in 0..100 per variant."""

    model: str
    weights: str  # SHA-256 of the parameters
    data: str
    split: int | None
    subset: str
    num_items: int
    kind: str
    protocol: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def top1(self, key: str) -> float | None:
        return self.scores[key]["top1"] if key in self.scores else None

    @property
    def clean(self) -> float:
        return self.scores[CLEAN]["top1"]

    def severities(self, name: str) -> dict[int, float]:
        """Top-1 by severity, as far as it was measured."""
        found = {s: self.top1(variant(name, s)) for s in SEVERITIES}
        return {s: value for s, value in found.items() if value is not None}

    def corruptions(self) -> dict[str, dict[int, float]]:
        """Top-1 by corruption and severity, of those measured."""
        return {name: found for name in CORRUPTIONS if (found := self.severities(name))}

    def jpeg_curve(self) -> dict[int, float]:
        """Top-1 by quality; {} where not the whole curve was measured."""
        found = {q: self.top1(quality_variant(q)) for q in JPEG_QUALITIES}
        return {} if None in found.values() else cast(dict[int, float], found)

    def corruption_error(self, name: str) -> float | None:
        """CE in percent; None unless all five severities were measured."""
        found = self.severities(name)
        if len(found) < len(SEVERITIES):
            return None
        return float(np.mean([100 - value for value in found.values()])) / CORRUPTIONS[name].alexnet

    def summary(self) -> dict[str, float | int | None]:
        """Means over what was measured; mce is None unless that is everything."""
        corrupted = [value for found in self.corruptions().values() for value in found.values()]
        mean = float(np.mean(corrupted)) if corrupted else None
        errors = [self.corruption_error(name) for name in CORRUPTIONS]
        complete = None not in errors
        return {
            "clean_top1": self.clean,
            "corrupted_top1": mean,
            "drop": self.clean - mean if mean is not None else None,
            "relative_drop": 100 * (1 - mean / self.clean) if mean is not None and self.clean else None,
            "mce": float(np.mean(cast(list[float], errors))) if complete else None,
            "num_corrupted_variants": len(corrupted),
        }

    def only(self, keys: Iterable[str]) -> Robustness:
        """The same, restricted to some variants."""
        kept = set(keys)
        return replace(self, scores={key: value for key, value in self.scores.items() if key in kept})

    def identity(self) -> dict[str, Any]:
        """What must agree for scores to belong together."""
        return {k: v for k, v in vars(self).items() if k not in ("scores", "model")}

    def to_json(self) -> dict[str, Any]:
        by_corruption = {
            name: {
                "top1": found,
                "mean": float(np.mean([*found.values()])),
                "ce": self.corruption_error(name),
            }
            for name, found in self.corruptions().items()
        }
        extra = {"summary": self.summary(), "corruptions": by_corruption, "jpeg_curve": self.jpeg_curve()}
        return vars(self) | extra

    def write(self, path: Path) -> list[Path]:
        """The JSON file, and a CSV file of the same name."""
        text = json.dumps(self.to_json(), indent=2) + "\n"
        return [write_file(path, text), write_file(path.with_suffix(".csv"), self._csv())]

    def _csv(self) -> str:
        buffer = io.StringIO()
        rows = csv.writer(buffer, lineterminator="\n")
        rows.writerow(("variant", "level", "top1", "top5"))
        for key, value in self.scores.items():
            name, _, level = key.partition("/")
            rows.writerow((name, level, f"{value['top1']:.4f}", f"{value['top5']:.4f}"))
        return buffer.getvalue()

    @classmethod
    def read(cls, path: str | Path) -> Robustness:
        """From a JSON file or the run folder that holds one; ValueError where it is something else."""
        path = Path(path)
        path = path / "robustness.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; measure it with `framecast evaluate RUN --corruptions`"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            result = cls(**{key: values[key] for key in cls.__dataclass_fields__})
            for value in result.scores.values():
                value["top1"], value["top5"] = float(value["top1"]), float(value["top5"])
            result.clean  # noqa: B018  (must be there)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} holds no robustness scores; move it away or choose another --out"
            ) from None
        return result


@torch.inference_mode()
def measure_robustness(
    run: str | Path,
    keys: Sequence[str],
    *,
    path: Path | None = None,
    data: str | Path | None = None,
    split: int | None = None,
    protocol: str | None = None,
    device: torch.device | str = "cpu",
    track: Track = lambda items, title: items,
) -> Robustness:
    """Score a run on the test side of its data, or on other data, in all variants `keys`.

    path: JSON file; what it holds for the same weights, data and protocol is not measured again. Beside it
    the state is saved every minute, so that an interrupted call goes on. Raises ValueError for a model that
    is no recognition model and for data of other classes.
    """
    model = load(run, device)
    card, config = card_of(model), cast(Any, model).config
    if card.task != "recognition":
        raise ValueError(f"{run} is no recognition model; corruptions are for models of images and clips")
    recipe = load_recipe(run) if (Path(run) / "config.yaml").is_file() else None
    if recipe is None and data is None:
        raise ValueError(f"{run} has no recipe that names its data; pass --data FOLDER")
    settings = recipe.data if isinstance(recipe, RecognitionRecipe) else RecognitionDataSettings(root="")
    changes = {"root": None if data is None else str(data), "split": split}
    settings = settings.model_copy(update={k: v for k, v in changes.items() if v is not None})
    opened = open_recognition_data(settings, "test")
    check_classes(card.classes, opened.classes, str(run), opened.root)
    rule = view_protocol(protocol or card.protocol, opened.kind)
    views = views_of(opened, config, rule, card.frames, channels=card.channels)
    result = Robustness(
        model=str(run),
        weights=fingerprint(model),
        data=str(opened.root),
        split=settings.split if opened.held_back else None,
        subset=opened.subset,
        num_items=len(opened),
        kind=opened.kind,
        protocol=rule.name,
    )
    if path is not None and path.exists():
        before = Robustness.read(path)
        if before.identity() == result.identity():
            result.scores = before.scores
    missing = [key for key in dict.fromkeys((CLEAN, *keys)) if key not in result.scores]
    if missing:
        counts = Counts(missing, result.identity(), path and path.with_suffix(".partial.json"))
        count_right(model, views, counts, track)
        result.scores |= counts.scores()
        order = [CLEAN, *(variant(n, s) for n in CORRUPTIONS for s in SEVERITIES)]
        order += [quality_variant(q) for q in JPEG_QUALITIES]
        result.scores = {key: result.scores[key] for key in dict.fromkeys(order) if key in result.scores}
    if path is not None:
        result.write(path)
        path.with_suffix(".partial.json").unlink(missing_ok=True)
    return result


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Counts:
    """How many of the first `seen` items were right, per variant; saved now and then, and taken up again."""

    def __init__(self, keys: Sequence[str], identity: dict[str, Any], path: Path | None) -> None:
        self.identity, self.path = identity, path
        self.seen = 0
        self.right = {key: [0, 0] for key in keys}  # among the first, among the first five
        self._saved = time.monotonic()
        if path is not None and path.is_file():
            with suppress(ValueError, KeyError, TypeError):  # else it is of no use, and written anew
                values = json.loads(path.read_text(encoding="utf-8"))
                right = {key: [int(n) for n in values["right"][key]] for key in keys}
                if values["identity"] == identity and 0 <= values["seen"] <= identity["num_items"]:
                    self.seen, self.right = int(values["seen"]), right

    def add(self, found: dict[str, np.ndarray], samples: Sequence[dict[str, Any]]) -> None:
        """Probabilities (N, K) of the next N items in every variant, all or nothing.

        Ties as in metrics/recognition.py: the class with the lower index comes first.
        """
        right = {}
        for key, probabilities in found.items():
            first, five = self.right[key]
            for own, sample in zip(probabilities, samples, strict=True):
                if not np.isfinite(own).all():
                    raise ValueError(f"{sample['source']}: the model's answer to {key} is not finite")
                target = sample["label"]
                rank = int((own > own[target]).sum() + (own[:target] == own[target]).sum())
                first, five = first + (rank == 0), five + (rank < 5)
            right[key] = [first, five]
        self.right, self.seen = right, self.seen + len(samples)

    def save(self, *, now: bool = False) -> None:
        if self.path is None or not (now or time.monotonic() - self._saved > SAVE_EVERY_S):
            return
        write_file(self.path, json.dumps({"identity": self.identity, "seen": self.seen, "right": self.right}))
        self._saved = time.monotonic()

    def scores(self) -> dict[str, dict[str, float]]:
        share = 100 / self.identity["num_items"]
        return {key: {"top1": one * share, "top5": five * share} for key, (one, five) in self.right.items()}


def count_right(model: nn.Module, views: RecognitionViews, counts: Counts, track: Track) -> None:
    """Go through the items that were not seen yet, and for each through all variants."""
    device = next(model.parameters()).device
    rule = views.protocol
    at_once = max(1, VIEWS_AT_ONCE // rule.num_views)
    taken: list[Tensor] = []

    def take(crops: Tensor, source: str) -> Tensor:
        taken.append(crops)
        return crops

    views.corrupt = take
    try:
        for start in track(range(counts.seen, len(views), at_once), "corrupting"):
            taken.clear()
            samples = [views[i] for i in range(start, min(start + at_once, len(views)))]
            sources = [sample["source"] for sample in samples]
            crops = torch.stack(taken).to(device)  # (N, V, ..., 3, H, W) uint8
            found = {}
            for key in counts.right:
                pixels = normalise(changed(crops, key, sources), views.mean, views.std, views.channels)
                pixels = pixels.flatten(0, 1)
                pixels = pixels.transpose(1, 2) if pixels.ndim == 5 else pixels
                logits = [classify(model, part).float().cpu() for part in pixels.split(VIEWS_AT_ONCE)]
                found[key] = rule.combine(torch.cat(logits).unflatten(0, crops.shape[:2]))
            counts.add(found, samples)
            counts.save()
    except BaseException:
        if counts.seen:
            counts.save(now=True)
        raise


def changed(crops: Tensor, key: str, sources: Sequence[str]) -> Tensor:
    """Crops (N, V, 3, H, W) or (N, V, T, 3, H, W) of N items in one variant.

    All crops and frames of an item get the same random numbers, which follow from its source.
    """
    name, _, level = key.partition("/")
    if name == CLEAN:
        return crops
    if name == "jpeg-quality":
        return compress_jpeg(crops, int(level))
    seeds = [corruption_seed(source, name) for source in sources]
    if crops.ndim == 5:
        repeated = [seed for seed in seeds for _ in range(crops.shape[1])]
        return corrupt(crops.flatten(0, 1), name, int(level), repeated).view_as(crops)
    clips = [
        corrupt(clip, name, int(level), seed)  # one clip at a time, for the memory
        for item, seed in zip(crops, seeds, strict=True)
        for clip in item
    ]
    return torch.stack(clips).view_as(crops)
