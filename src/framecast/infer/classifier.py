"""From an image or a video file to the probabilities of its classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framecast.checkpoints import card_of, load
from framecast.data.recognition_samples import load_views
from framecast.infer.kept_tokens import check_adaptive, kept_tokens
from framecast.metrics.view_protocols import get_view_protocol
from framecast.structures import KeptTokens, Labels
from framecast.tasks.recognition import predict_views


class Classifier:
    """A recognition model that was trained, with its classes and its way to look at an input.

    classify = Classifier("runs/gestures")
    print(classify("clip.mp4").top(3))

    protocol: another way to look, for example "kinetics/3x4" for more views; None = as it was evaluated.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        *,
        protocol: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        loaded = load(model, device) if isinstance(model, (str, Path)) else model.to(device).eval()
        self.model: Any = loaded
        self.card = card_of(loaded)
        if self.card.task != "recognition":
            name = getattr(loaded, "registered_name", type(loaded).__name__)
            raise ValueError(f"{name} is no recognition model that was trained, with class names")
        self.protocol = get_view_protocol(protocol or self.card.protocol)
        own = get_view_protocol(self.card.protocol)
        if self.protocol.kind != own.kind:
            raise ValueError(
                f"protocol {self.protocol.name} is for {self.protocol.kind}s, the model reads {own.kind}s"
            )

    def __call__(self, source: str | os.PathLike[str]) -> Labels:
        """Class probabilities of an image or a video file, whichever the model was trained on."""
        return self._labels(source, self.views(source))

    def with_tokens(self, source: str | os.PathLike[str]) -> tuple[Labels, KeptTokens]:
        """The same, and which patches were kept; of several views those of the one in the middle.

        ValueError where the model keeps all of its tokens.
        """
        model, views = check_adaptive(self.model), self.views(source)
        with model.record() as record:
            labels = self._labels(source, views)
        clips, crops = self.protocol.clips, self.protocol.crops
        return labels, kept_tokens(model, record, views, clips // 2 * crops + crops // 2)

    def views(self, source: str | os.PathLike[str]) -> Tensor:
        """(V, 3, H, W) or (V, 3, T, H, W), normalised: what the model is given of a file."""
        config = self.model.config
        return load_views(
            Path(source),
            self.protocol,
            image_size=config.image_size,
            mean=config.mean,
            std=config.std,
            num_frames=self.card.frames,
            channels=self.card.channels,  # ty: ignore[invalid-argument-type]
        )

    def _labels(self, source: str | os.PathLike[str], views: Tensor) -> Labels:
        return Labels(predict_views(self.model, views, self.protocol), self.card.classes, str(source))
