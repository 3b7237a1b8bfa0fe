"""Anticipation from labels alone: the recurrent and the convolutional network of 2018.

Every video is cut in many places; the recurrent network learns the next segment from the segments before, the
convolutional one the rows of half a video from the rows of what was seen.
Shapes: B examples, K classes, N tokens, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from framecast.data.anticipation import AnticipationData
from framecast.models.anticipation_rnn import AnticipationRNN
from framecast.registry import create_model
from framecast.tasks.anticipation import Anticipation
from framecast.tasks.forecasting import Sampling

Arrays = tuple[np.ndarray, ...]


class Examples:
    """Examples in memory; `[i]` gives the i-th row of every array."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"arrays": tuple(array[index] for array in self.arrays)}


class LabelAnticipationTask(Anticipation):
    """Trains a network of 2018 on the label sequences of one side of a data set, scored on the other.

    class_weight: a class that is the next one in a share p of the examples weighs p ** -class_weight in the
    recurrent network's loss, 1 on average; 0 = all alike, as in the release. Scores are means over classes.
    """

    def __init__(
        self,
        train_data: AnticipationData,
        eval_data: AnticipationData | None,
        *,
        model: str,
        model_config: dict[str, Any] | None = None,
        class_weight: float = 0.0,
        protocol: str = "anticipation/2018",
        sampling: Sampling | None = None,
    ) -> None:
        if train_data.observe != "labels":
            raise ValueError(f"{model} reads labels; set data.observe=labels, not {train_data.observe}")
        self.source, self.model_config = train_data, dict(model_config or {})
        self.from_data("num_classes", len(train_data.classes))
        super().__init__(
            train_data,
            eval_data,
            model=model,
            model_config=self.model_config,
            protocol=protocol,
            sampling=sampling or Sampling(samples=1),
        )
        with torch.device("meta"):
            built = create_model(model, **self.model_config)
        annotations = [train_data.annotation(i) for i in range(len(train_data))]
        self.train_data = Examples(examples_of(built, annotations))
        self.recurrent = isinstance(built, AnticipationRNN)
        self.class_weight = None
        if self.recurrent and class_weight:
            following = self.train_data.arrays[2][:, 0].astype(np.int64)
            share = np.bincount(following, minlength=len(train_data.classes)) / len(following)
            weight = np.where(share > 0, np.maximum(share, 1e-12) ** -class_weight, 0.0)
            self.class_weight = torch.from_numpy(weight / (weight * share).sum()).float()

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Arrays of the examples, stacked; tokens are cut to the longest sequence of the batch."""
        arrays = [
            torch.from_numpy(np.stack(rows)) for rows in zip(*(s["arrays"] for s in samples), strict=True)
        ]
        if self.recurrent:
            arrays[0] = arrays[0][..., : int(arrays[1].max())]
        return {"arrays": arrays}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the examples of the batch."""
        plain = cast(Any, getattr(model, "module", model))
        if not self.recurrent:
            rows, following = batch["arrays"]
            return plain.loss(model(rows), following), {}
        tokens, count, target = batch["arrays"]
        mask = torch.arange(tokens.shape[2], device=tokens.device) < count[:, None]
        weight = None if self.class_weight is None else self.class_weight.to(tokens.device)
        return plain.loss(model(tokens, mask), target, weight), {}


def examples_of(model: Any, annotations: Sequence[np.ndarray]) -> Arrays:
    """All examples of all videos: tokens (B, K + 1, N), how many, targets; or rows and rows that follow."""
    parts = [model.examples(labels) for labels in annotations]
    if isinstance(model, AnticipationRNN):
        parts = [cut.sequences(model.config.max_tokens) for cut in parts if cut.cuts.any()]
    if not parts:
        raise ValueError("no training video has a second segment; there is nothing to anticipate")
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
