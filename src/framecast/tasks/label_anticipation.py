"""Anticipation from labels alone: the recurrent and the convolutional network of 2018.

Every video is cut in many places; the recurrent network learns the next segment from the segments before, the
convolutional one the rows of half a video from the rows of what was seen.
Shapes: B examples, K classes, N tokens, M cuts, L lengths of what is cut, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from framecast.data.anticipation import AnticipationData
from framecast.models.anticipation_rnn import AnticipationRNN
from framecast.registry import create_model
from framecast.tasks.anticipation import Anticipation, balanced_weights
from framecast.tasks.forecasting import Sampling


class Examples:
    """Examples in memory."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"example": self.examples[index]}


class LabelAnticipationTask(Anticipation):
    """Trains a network of 2018 on the label sequences of one side of a data set, scored on the other.

    An example of the convolutional network is a video and the share of it that is observed; one of the
    recurrent network is a video with all its cuts, before which its segments are read once (`forward_cuts`).
    class_weight: a class that a share p of the answers asks for weighs p ** -class_weight in the loss,
    1 on average; 0 = all alike, as in the release. Scores are means over classes.
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
            built: Any = create_model(model, **self.model_config)
        self.recurrent = isinstance(built, AnticipationRNN)
        if self.recurrent and built.config.padding == "release":
            raise ValueError("padding=release is for weights of the release; train with padding=none")
        videos = [built.examples(train_data.annotation(i)) for i in range(len(train_data))]
        if self.recurrent:
            examples = [cut for cut in videos if cut.cuts.any()]
        else:
            examples = [pair for pairs in videos for pair in zip(*pairs, strict=True)]
        if not examples:
            raise ValueError("no training video has a second segment; there is nothing to anticipate")
        self.train_data = Examples(examples)
        self.class_weight = None
        if class_weight:
            self.class_weight = balanced_weights(self.asked_for(examples), class_weight)

    def asked_for(self, examples: Sequence[Any]) -> np.ndarray:
        """(K,) how often answers are each class: the next segment at a cut, or a row of what follows."""
        if not self.recurrent:
            return np.sum([following.sum(1) for _, following in examples], axis=0)
        following = np.concatenate([cut.target[:, 0, 0] for cut in examples]).astype(np.int64)
        return np.bincount(following, minlength=len(self.source.classes))

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """rows, target (B, K, R); or tokens (B, K + 1, N), cuts (B, N), lengths (M, L), target (M, L, 3)."""
        examples = [sample["example"] for sample in samples]
        if not self.recurrent:
            return {
                "rows": stacked([seen for seen, _ in examples]),
                "target": stacked([y for _, y in examples]),
            }
        tokens = pad_sequence([torch.from_numpy(cut.tokens.T) for cut in examples], batch_first=True).mT
        cuts = pad_sequence([torch.from_numpy(cut.cuts) for cut in examples], batch_first=True)
        lengths, target = (
            torch.from_numpy(np.concatenate(parts))
            for parts in zip(*((cut.lengths, cut.target) for cut in examples), strict=True)
        )
        return {"tokens": tokens, "cuts": cuts, "lengths": lengths, "target": target}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the answers of the batch."""
        plain, target = cast(Any, getattr(model, "module", model)), batch["target"]
        weight = None if self.class_weight is None else self.class_weight.to(target.device)
        if self.recurrent:
            answers = model(batch["tokens"], cuts=batch["cuts"], lengths=batch["lengths"])
        else:
            answers = model(batch["rows"])
        return plain.loss(answers, target, weight), {}


def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
