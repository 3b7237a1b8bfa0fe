"""Linear probe: only the head of a recognition model learns, on features that the frozen rest gives once.

Every image or clip is looked at in the same way as in the evaluation, without augmentation, so its features
never change and an epoch costs next to nothing. Features of a clip are the mean over its views and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.data.recognition_samples import RecognitionViews
from framecast.metrics.recognition import RecognitionMetrics
from framecast.progress import track
from framecast.tasks.ranks import gather_over_ranks, own_items, own_rank, together
from framecast.tasks.recognition import VIEWS_AT_ONCE, RecognitionTask, classify


@dataclass(frozen=True)
class FrozenFeatures:
    """What the head reads of every item of a data set; a map-style data set."""

    values: np.ndarray  # (N, D) float32
    labels: np.ndarray  # (N,)
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "features": self.values[index],
            "label": int(self.labels[index]),
            "source": self.sources[index],
        }


@torch.inference_mode()
def freeze_features(
    model: nn.Module, views: RecognitionViews, device: torch.device, known: dict[str, np.ndarray]
) -> FrozenFeatures:
    """Features of every item, from a model without a head; several processes share the items.

    known: features by source, taken from and added to; splits and seeds of a study share them.
    """
    sources = tuple(views.data.source(i) for i in range(len(views)))
    missing = [i for i, source in enumerate(sources) if source not in known]
    mine = [missing[i] for i in own_items(len(missing))]
    found = {}
    with together():
        for i in track(mine, "frozen features", quiet=own_rank() != 0):
            views_at_once = views[i]["pixels"].split(VIEWS_AT_ONCE)
            parts = [classify(model, part.to(device)).cpu() for part in views_at_once]
            found[sources[i]] = torch.cat(parts).mean(0).numpy().astype(np.float32)
    for part in gather_over_ranks(found):
        known |= part
    return FrozenFeatures(np.stack([known[source] for source in sources]), views.data.labels, sources)


class Probe(nn.Module):
    """A model of which only the head is called; several processes share the gradients of what they call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:  # (B, D) -> (B, K)
        return cast(Any, self.model).head(features)


class LinearProbeTask(RecognitionTask):
    """Trains the head alone; the saved model is whole and reads images or clips like any other."""

    eval_features: FrozenFeatures | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.known: dict[str, np.ndarray] = {}  # features by source, which tasks may share

    def prepare(self, device: torch.device) -> None:
        """Replace both sides of the data by the features of their items."""
        model: Any = self.product(self.build_model()).to(device).eval()
        model.head = nn.Identity()
        views = self.views_of(self.source)
        self.train_data: Any = freeze_features(model, views, device, self.known)
        if self.eval_data is not None:
            self.eval_features = freeze_features(model, self.eval_data, device, self.known)

    def build_model(self) -> nn.Module:
        model = super().build_model()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("head."))
        return Probe(model)

    def product(self, model: nn.Module) -> nn.Module:
        return cast(Any, model).model

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """features (B, D) and labels (B,)."""
        return {
            "features": torch.from_numpy(np.stack([s["features"] for s in samples])),
            "labels": torch.tensor([s["label"] for s in samples]),
            "sources": [s["source"] for s in samples],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        logits = model(batch["features"]).float()
        loss = F.cross_entropy(logits, batch["labels"], label_smoothing=self.smoothing)
        right = logits.detach().argmax(1) == batch["labels"]
        return loss, {"accuracy": 100 * right.double().mean().item()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """As the whole model scores with logits averaged over the views; every process does all of it."""
        assert self.eval_features is not None
        metrics = RecognitionMetrics(self.source.classes)
        features = torch.from_numpy(self.eval_features.values).to(device)
        probabilities = model(features).float().softmax(1).cpu()
        known = zip(probabilities, self.eval_features.labels, self.eval_features.sources, strict=True)
        for row, label, source in known:
            metrics.update(row, int(label), source=source)
        return metrics.compute()
