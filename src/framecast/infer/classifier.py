"""From an image or a video file to the probabilities of its classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framecast.checkpoints import card_of, load
from framecast.data.recognition_samples import load_views
from framecast.metrics.view_protocols import get_view_protocol
from framecast.structures import Labels
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
        config = self.model.config
        views = load_views(
            Path(source),
            self.protocol,
            image_size=config.image_size,
            mean=config.mean,
            std=config.std,
            num_frames=self.card.frames,
            channels=self.card.channels,  # ty: ignore[invalid-argument-type]
        )
        probabilities = predict_views(self.model, views, self.protocol)
        return Labels(probabilities, self.card.classes, str(source))
