"""Dense anticipation: the first part of a video in, the class of every frame of what follows out.

A sample is the beginning of a video, of which a share is observed: features, one-hot labels or both, zero
beyond the past. Diffusion models (GTDA, MANTA) learn the labels of past and future together; a deterministic
model learns the one future. How futures are drawn and scored stands in forecasting.py.
Shapes: B batch, D0 observed channels, K classes, T steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.data.anticipation import AnticipationData, Beginning, beginning
from framecast.metrics.anticipation_protocols import get_anticipation_protocol
from framecast.models.label_diffusion import denoising_loss, staged_cross_entropy
from framecast.nn.diffusion import Diffusion
from framecast.registry import create_model, find
from framecast.tasks.forecasting import Sampling, collect_futures

IGNORED = -100


@dataclass(frozen=True)
class ObservedShares:
    """Which share of a video a training sample observes; the defaults are those of GTDA and MANTA."""

    shares: tuple[float, ...] = (0.2, 0.3, 0.5)  # a sample each
    redraw: float = 0.4  # probability of another share, uniform in `redraw_range`
    redraw_range: tuple[float, float] = (0.15, 0.40)
    predicted: float = 0.5  # share of the video that follows the past


class PartlyObserved:
    """Training samples: every video once for each share, as `data.anticipation.beginning` cuts it."""

    def __init__(self, data: AnticipationData, shares: ObservedShares) -> None:
        self.data, self.shares = data, shares

    def __len__(self) -> int:
        return len(self.data) * len(self.shares.shares)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) frames of every sample, before its share is drawn anew."""
        frames = np.array([len(self.data.annotation(i)) for i in range(len(self.data))])
        return np.outer(frames, np.array(self.shares.shares) + self.shares.predicted).ravel()

    def __getitem__(self, index: int) -> dict[str, Any]:
        video, kind = divmod(index, len(self.shares.shares))
        share = self.shares.shares[kind]
        if torch.rand(()) < self.shares.redraw:
            low, high = self.shares.redraw_range
            share = low + (high - low) * float(torch.rand(()))
        return vars(beginning(self.data, video, share, self.shares.predicted))


def balanced_weights(counts: np.ndarray, exponent: float) -> Tensor:
    """(K,) weight of every class in a loss: its share of counts (K,) to the power -exponent, 1 on average.

    Scores are means over classes, in which rare ones count like others. What does not occur weighs 0.
    """
    share = counts / counts.sum()
    weight = np.where(share > 0, np.maximum(share, 1e-12) ** -exponent, 0.0)
    return torch.from_numpy(weight / (weight * share).sum()).float()


class Anticipation:
    """What every anticipation task shares: its data, its model, and how futures are scored."""

    def __init__(
        self,
        train_data: AnticipationData,
        eval_data: AnticipationData | None,
        *,
        model: str,
        model_config: dict[str, Any],
        protocol: str,
        sampling: Sampling,
    ) -> None:
        self.source, self.eval_data = train_data, eval_data
        self.model_name, self.model_config = model, model_config
        self.protocol, self.sampling = get_anticipation_protocol(protocol), sampling
        if self.protocol.samples not in (None, sampling.samples):
            raise ValueError(
                f"protocol {protocol} counts {self.protocol.samples} futures and sampling.samples is "
                f"{sampling.samples}; set one like the other"
            )
        if "anticipation" not in find("model", model).tags:
            raise ValueError(f"{model} is no anticipation model; `framecast list` shows which are")
        with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
            create_model(model, **self.model_config)

    def from_data(self, key: str, value: int) -> None:
        """A field of the model's config that the data decides."""
        if (given := self.model_config.setdefault(key, value)) != value:
            raise ValueError(
                f"model.config.{key} is {given} but the data in {self.source.folder.root} has {value}; "
                f"leave {key} out, it is read from the data"
            )

    def build_model(self) -> nn.Module:
        return create_model(self.model_name, **self.model_config)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores under the protocol; the same on all processes, whatever their number."""
        assert self.eval_data is not None
        return collect_futures(model, self.eval_data, self.protocol, self.sampling).compute(self.protocol)

    def card(self) -> dict[str, Any]:
        data = self.source
        provenance = data.provenance
        return {
            "task": "anticipation",
            "classes": list(data.classes),
            "features": provenance.to_json() if provenance else None,
            "sample_rate": data.sample_rate,
            "protocol": self.protocol.name,
            "source": f"trained on {data.layout} annotations of {len(data)} videos",
            "notes": {
                "observe": data.observe,
                "frames_per_second": data.frames_per_second,
                "sampling": asdict(self.sampling),
            },
        }


class DenseAnticipationTask(Anticipation):
    """Trains GTDA, MANTA or a deterministic model on one side of a data set and scores it on the other.

    class_weight: a diffusion model's error on a frame weighs with the share of its class among all training
    frames to the power -class_weight, 1 on average; 0 = all alike, as in the releases.
    noise_bias: times t of T are drawn with density (t / T) ** noise_bias; 0 = uniform, as in the releases.
    Long segments are plain to see under little noise: what follows is decided where noise is strongest.
    """

    def __init__(
        self,
        train_data: AnticipationData,
        eval_data: AnticipationData | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        shares: ObservedShares | None = None,
        class_weight: float = 0.0,
        noise_bias: float = 0.0,
        protocol: str = "anticipation/official-25",
        sampling: Sampling | None = None,
    ) -> None:
        self.source, self.model_config = train_data, dict(model_config or {})
        self.from_data("num_classes", len(train_data.classes))
        self.from_data("feature_dim", train_data.observed_dim)
        super().__init__(
            train_data,
            eval_data,
            model=model,
            model_config=self.model_config,
            protocol=protocol,
            sampling=sampling or Sampling(),
        )
        self.train_data = PartlyObserved(train_data, shares or ObservedShares())
        with torch.device("meta"):
            built = create_model(model, **self.model_config)
        self.diffusion: Diffusion | None = getattr(built, "diffusion", None)
        self.noise_bias = noise_bias
        self.class_weight = None
        if class_weight:
            if self.diffusion is None:
                raise ValueError(f"{model} is not a diffusion model; loss.class_weight does not apply to it")
            classes = len(train_data.classes)
            counts = [
                np.bincount(y[y >= 0], minlength=classes)
                for y in map(train_data.annotation, range(len(train_data)))
            ]
            self.class_weight = balanced_weights(np.sum(counts, axis=0), class_weight)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """observed (B, D0, T), labels (B, T) with -100 on padding, mask and past (B, T)."""
        parts = [Beginning(**one) for one in samples]
        lengths = torch.tensor([len(part.labels) for part in parts])
        longest = int(lengths.max())
        observed = torch.zeros(len(parts), len(parts[0].observed), longest)
        labels = torch.full((len(parts), longest), IGNORED)
        for i, part in enumerate(parts):
            observed[i, :, : len(part.labels)] = torch.from_numpy(part.observed)
            labels[i, : len(part.labels)] = torch.from_numpy(part.labels)
        places = torch.arange(longest)
        return {
            "observed": observed,
            "labels": labels,
            "mask": places < lengths[:, None],
            "past": places < torch.tensor([part.past for part in parts])[:, None],
            "videos": [part.video for part in parts],
        }

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the videos of the batch."""
        observed, labels, mask = batch["observed"], batch["labels"], batch["mask"]
        if self.diffusion is None:
            scores = model(observed, mask, batch["past"])
            return staged_cross_entropy(scores, labels, [mask] * len(scores), ignore_index=IGNORED), {}
        classes = F.one_hot(labels.clamp(min=0), len(self.source.classes))
        x0 = (classes.mT * (labels >= 0)[:, None]).float()
        weight = None
        if self.class_weight is not None:
            weight = self.class_weight.to(labels.device)[labels.clamp(min=0)]
        level = torch.rand(len(x0), device=x0.device) ** (1 / (1 + self.noise_bias))
        time = (self.diffusion.steps * level).long().clamp(max=self.diffusion.steps - 1)
        found = denoising_loss(
            cast(Any, model), x0, observed, mask, time=time, frame_weight=weight, diffusion=self.diffusion
        )
        return found.per_video.mean(), {}
