"""Recognition: an image or a clip in, the probability of every class out.

Clip models read (B, 3, T, H, W), image models (B, 3, H, W). An image model classifies a clip by the mean of
its frames' logits. Mixing of samples, smoothing and the teacher belong to the loss; scores are those of a
named view protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.data.recognition import RecognitionData
from framecast.data.recognition_samples import RecognitionSamples, RecognitionViews
from framecast.data.transforms import BatchMix, TransformSettings, train_transform
from framecast.metrics.recognition import KEYS, RecognitionMetrics
from framecast.metrics.view_protocols import ViewProtocol
from framecast.registry import create_model, find
from framecast.tasks.ranks import merge_over_ranks, own_items

VIEWS_AT_ONCE = 16  # go through the model together in an evaluation


class RecognitionTask:
    """Trains a registered image or clip model on one side of a data set and scores it on the other."""

    metric_names = KEYS  # what `evaluate` measures

    def __init__(
        self,
        train_data: RecognitionData,
        eval_data: RecognitionData | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        protocol: ViewProtocol,
        transform: Callable[[Any], TransformSettings],
        frames: int | None = None,
        sampling: str = "sparse",
        stride: int = 16,
        fps: float | None = None,
        channels: str = "rgb",
        repeats: int = 1,
        mix: Callable[[int], BatchMix] | None = None,
        smoothing: float = 0.0,
        start: nn.Module | None = None,
    ) -> None:
        """transform(config) and mix(num_classes) make augmentation and mixing for the model that is built.

        frames: of a clip, for image models on videos. start: a model whose weights are taken over.
        """
        self.source = train_data
        self.model_name, self.model_config = model, dict(model_config or {})
        self.model_config["num_classes"] = checked_classes(self.model_config, train_data)
        if "recognition" not in find("model", model).tags:
            raise ValueError(f"{model} is no recognition model; `framecast list` shows which are")
        with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
            config = create_model(model, **self.model_config).config
        self.num_frames = clip_length(config, train_data.kind, frames, model)
        self.protocol, self.channels = protocol, channels
        self.smoothing, self.start = smoothing, start
        self.mix = mix(config.num_classes) if mix is not None else None
        self.train_data = RecognitionSamples(
            train_data,
            train_transform(transform(config)),
            num_frames=self.num_frames,
            sampling=sampling,
            stride=stride,
            fps=fps,
            repeats=repeats,
        )
        self.config = config
        self.eval_data = self.views_of(eval_data) if eval_data is not None else None

    def views_of(self, data: RecognitionData) -> RecognitionViews:
        """The items of the data as the model reads them in an evaluation."""
        return views_of(data, self.config, self.protocol, self.num_frames, channels=self.channels)

    def build_model(self) -> nn.Module:
        model = create_model(self.model_name, **self.model_config)
        if self.start is not None:
            adopt_weights(model, self.start)
        return model

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """pixels (B·k, 3, …) and labels (B·k,), the k repeats of a sample one after the other."""
        repeats = len(samples[0]["pixels"])
        labels = torch.tensor([s["label"] for s in samples]).repeat_interleave(repeats)
        pixels = torch.cat([s["pixels"] for s in samples])
        return {"pixels": pixels, "labels": labels, "sources": [s["source"] for s in samples]}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy with the mixed or smoothed targets, mean over the batch."""
        pixels, targets = self.mixed(batch)
        logits = classify(model, pixels).float()
        smoothing = 0.0 if self.mix is not None else self.smoothing  # mixed targets are smooth already
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        right = logits.detach().argmax(1) == batch["labels"]
        return loss, {} if self.mix is not None else {"accuracy": 100 * right.double().mean().item()}

    def mixed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Pixels and targets of a training batch: class indices, or probabilities where samples are mixed."""
        pixels, labels = batch["pixels"], batch["labels"]
        return (pixels, labels) if self.mix is None else self.mix(pixels, labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores under the protocol, the same on all processes, which share the work."""
        assert self.eval_data is not None
        metrics = collect_probabilities(model, self.eval_data, self.source.classes, self.protocol, device)
        return metrics.compute()

    def card(self) -> dict[str, Any]:
        data = self.source
        return {
            "task": "recognition",
            "classes": list(data.classes),
            "protocol": self.protocol.name,
            "frames": self.num_frames,
            "channels": self.channels,
            "source": f"trained on {len(data)} {data.kind}s ({data.layout})",
        }


def checked_classes(config: dict[str, Any], data: RecognitionData) -> int:
    """Number of classes of the data; ValueError where the config says another one."""
    given = config.get("num_classes", len(data.classes))
    if given != len(data.classes):
        raise ValueError(
            f"model.config.num_classes is {given} but the data in {data.root} has {len(data.classes)} "
            "classes; leave num_classes out, it is read from the data"
        )
    return len(data.classes)


def clip_length(config: Any, kind: str, frames: int | None, model: str) -> int | None:
    """Frames that the model reads at once: None for images."""
    own = getattr(config, "num_frames", None)
    if kind == "image":
        if own is not None:
            raise ValueError(
                f"{model} reads clips of {own} frames and the data are images; "
                "set model.config.num_frames=null or take an image model"
            )
        return None
    if own is not None and frames not in (None, own):
        raise ValueError(f"data.frames is {frames} but {model} reads {own} frames; leave data.frames out")
    return own or frames or 8


def adopt_weights(model: nn.Module, start: nn.Module) -> None:
    """Take over all weights but those that are new in `start` itself, such as a head of other classes."""
    fresh = set(cast(Any, start).import_report.fresh)
    state = {key: tensor for key, tensor in start.state_dict().items() if key not in fresh}
    model.load_state_dict(model.state_dict() | state)


def classify(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits (B, K) of images (B, 3, H, W) or clips (B, 3, T, H, W)."""
    config = cast(Any, model).config
    if pixels.ndim == 4 or getattr(config, "num_frames", None) is not None:
        return model(pixels)
    batch, _, frames = pixels.shape[:3]
    logits = model(pixels.transpose(1, 2).flatten(0, 1))  # an image model: every frame by itself
    return logits.unflatten(0, (batch, frames)).mean(1)


def views_of(
    data: RecognitionData,
    config: Any,
    protocol: ViewProtocol,
    num_frames: int | None,
    *,
    channels: str = "rgb",
    corrupt: Callable[[Tensor, str], Tensor] | None = None,
) -> RecognitionViews:
    """The views of every item of the data, as a model of that config reads them."""
    return RecognitionViews(
        data,
        protocol,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
        num_frames=num_frames,
        channels=channels,  # ty: ignore[invalid-argument-type]
        corrupt=corrupt,
    )


def predict_views(model: nn.Module, views: Tensor, protocol: ViewProtocol) -> np.ndarray:
    """Class probabilities (K,) from all views (V, 3, …) of one item."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = [classify(model, part.to(device)).float().cpu() for part in views.split(VIEWS_AT_ONCE)]
    return protocol.combine(torch.cat(logits))


def collect_probabilities(
    model: nn.Module,
    views: RecognitionViews,
    classes: tuple[str, ...],
    protocol: ViewProtocol,
    device: torch.device | str = "cpu",
    track: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> RecognitionMetrics:
    """Probabilities and labels of every item; ranks share the work. track: shows progress."""
    metrics = RecognitionMetrics(classes)
    mine = own_items(len(views))
    at_once = max(1, VIEWS_AT_ONCE // protocol.num_views)
    for start in track(iter(range(0, len(mine), at_once))):
        samples = [views[i] for i in mine[start : start + at_once]]
        pixels = torch.cat([sample["pixels"] for sample in samples]).to(device)
        logits = torch.cat([classify(model, part).float().cpu() for part in pixels.split(VIEWS_AT_ONCE)])
        for sample, own in zip(samples, logits.split(protocol.num_views), strict=True):
            metrics.update(protocol.combine(own), sample["label"], source=sample["source"])
    return merge_over_ranks(metrics, lambda: RecognitionMetrics(classes))
