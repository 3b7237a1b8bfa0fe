"""The convolutional network of "When will you do what?" (Abu Farha, Richard, Gall, CVPR 2018,
https://arxiv.org/abs/1804.00892): the observed labels as a matrix of 128 rows in, the following half of the
video as another such matrix out, in one step.

Convolutions and pooling run along time and keep the classes apart; two large linear maps then see everything.
Every row of the answer has length 1 over the classes. Smoothing over rows before the class is chosen removes
short segments.
Shapes: B batch, K classes, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.models.label_encoding import checked_labels, one_hot_rows, runs_of
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model

OBSERVED = (0.1, 0.2, 0.3, 0.5)  # shares of a video that are observed in training
HORIZON = 0.5  # share of a video that the rows of the answer span


@dataclass(frozen=True)
class AnticipationCNNConfig:
    num_classes: int = 48
    num_rows: int = 128
    hidden: int = 1024
    smoothing: float = 3.0  # rows, standard deviation of the Gaussian over the answer; 0 = off

    def __post_init__(self) -> None:
        if self.num_rows < 4 or self.num_rows % 4:
            raise ValueError(f"num_rows is {self.num_rows}; it is halved twice and must be a multiple of 4")


class AnticipationCNN(nn.Module):
    """Observed rows (B, K, R), one-hot, to the rows that follow (B, K, R), each of length 1."""

    smoother: Tensor

    def __init__(self, config: AnticipationCNNConfig) -> None:
        super().__init__()
        self.config = c = config
        self.conv1 = nn.Conv1d(1, 8, 5, padding=2)
        self.conv2 = nn.Conv1d(8, 16, 5, padding=2)
        self.fc1 = nn.Linear(c.num_rows // 4 * c.num_classes * 16, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.num_rows * c.num_classes)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.1, a=-0.2, b=0.2)
            else:
                nn.init.constant_(parameter, 0.1)
        self.register_buffer("smoother", smoothing_matrix(c.num_rows, c.smoothing), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        batch, num_classes, num_rows = rows.shape
        x = rows.reshape(batch * num_classes, 1, num_rows)  # classes do not meet
        for conv in (self.conv1, self.conv2):
            x = F.max_pool1d(F.relu(conv(x)), 2)
        x = x.unflatten(0, (batch, num_classes)).permute(0, 3, 1, 2).flatten(1)  # row, class, channel
        x = self.fc2(F.relu(self.fc1(x))).unflatten(1, (num_rows, num_classes)).mT
        return x * x.square().sum(1, keepdim=True).clamp(min=1e-12).rsqrt()

    def smoothed(self, answer: Tensor) -> Tensor:  # (B, K, R) -> (B, K, R)
        return answer @ self.smoother

    def loss(self, answer: Tensor, target: Tensor, class_weight: Tensor | None = None) -> Tensor:
        """Mean squared error to the one-hot rows (B, K, R) that follow, weighed by their classes (K,)."""
        if class_weight is None:
            return F.mse_loss(answer, target)
        weight = class_weight @ target  # (B, R)
        return ((answer - target).square() * weight[:, None]).mean()

    def examples(
        self, labels: np.ndarray, observed: Sequence[float] = OBSERVED
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observed and following rows (A, K, R) of the labels (T,) of a video, for each observed share.

        What follows is half of the video, or what there is of it.
        """
        n, sizes = len(labels), (self.config.num_rows, self.config.num_classes)
        seen = [one_hot_rows(labels[: int(share * n)], *sizes) for share in observed]
        following = [labels[int(share * n) : int((HORIZON + share) * n)] for share in observed]
        return np.stack(seen), np.stack([one_hot_rows(part, *sizes) for part in following])

    def forecast(
        self,
        observed: np.ndarray,
        num_future: int,
        total_length: int,
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """(S, num_future) labels that follow observed labels (T_obs,) of a video of so many frames."""
        return self.forecast_many([observed], [num_future], [total_length], samples, rng)[0]

    @torch.no_grad()
    def forecast_many(
        self,
        observed: Sequence[np.ndarray],
        num_future: Sequence[int],
        total_length: Sequence[int],
        samples: int = 1,
        rng: np.random.Generator | None = None,
    ) -> list[np.ndarray]:
        """(S, num_future) labels for each video, all videos in one batch; every sample is the same.

        The answer spans half of the video; beyond it the last label goes on.
        """
        c = self.config
        observed = [checked_labels(labels, c.num_classes) for labels in observed]
        rows = np.stack([one_hot_rows(o, c.num_rows, c.num_classes) for o in observed])
        answer = self(torch.from_numpy(rows).to(self.fc1.weight.device))
        classes = self.smoothed(answer).argmax(1).cpu().numpy()  # (B, R)
        futures = zip(classes, num_future, total_length, strict=True)
        return [np.tile(self.stretched(*future), (samples, 1)) for future in futures]

    def stretched(self, classes: np.ndarray, num_future: int, total_length: int) -> np.ndarray:
        """(num_future,) labels from the class of each row (R,); each run is cut to whole frames."""
        labels, lengths = runs_of(classes)
        frames = np.repeat(labels, (HORIZON * total_length * lengths / self.config.num_rows).astype(np.int64))
        return np.append(frames, np.repeat(labels[-1], max(0, num_future - len(frames))))[:num_future]


def smoothing_matrix(num_rows: int, sigma: float) -> Tensor:
    """(R, R) Gaussian smoothing of rows as x @ matrix, cut off at 4 sigma.

    Beyond the ends the rows are mirrored, the last one included (b a | a b c).
    """
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma else np.ones(1)
    source = (np.arange(num_rows)[:, None] + offsets) % (2 * num_rows)
    source = np.minimum(source, 2 * num_rows - 1 - source)
    matrix = np.zeros((num_rows, num_rows))
    np.add.at(matrix, (source, np.arange(num_rows)[:, None]), weights / weights.sum())
    return torch.from_numpy(matrix.astype(np.float32))


# Official layout --------------------------------------------------------------------------------------

# The release names initial values, not variables: TensorFlow stores them in the order of creation.
ORDER = ("w_conv1", "b_conv1", "w_conv2", "b_conv2", "W_fc1", "b_fc1", "W_fc2", "b_fc2")
NAMES = {"Variable" + (f"_{i}" if i else ""): name for i, name in enumerate(ORDER)}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """(height, width, in, out) kernels become (out, in, height), matrices output-major."""
    named = {NAMES.get(key, key): t for key, t in state.items()}
    kernels = {key: t.squeeze(1).permute(2, 1, 0).contiguous() for key, t in named.items() if t.ndim == 4}
    return named | kernels | {key: t.mT.contiguous() for key, t in named.items() if t.ndim == 2}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """Only the product of rows and classes can be told; 128 rows unless another number is given."""
    rows = AnticipationCNNConfig.num_rows
    return {"num_classes": state["b_fc2"].numel() // rows, "num_rows": rows, "hidden": state["b_fc1"].numel()}


OFFICIAL = (
    OfficialLayout(
        name="release of 2018, convolutional network",
        model="anticipation_cnn",
        detect=r"w_conv1|Variable_7",
        licence="as stated by the release of anticipating-activities (MIT); no weights of it were published",
        keys={r"[wW]_(conv\d|fc\d)": r"\1.weight", r"b_(conv\d|fc\d)": r"\1.bias"},
        read_config=_read_config,
        ignored={r".*/Adam(_1)?|beta[12]_power": "state of the optimiser"},
        prepare=_prepare,
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


@register_model(
    tags=["anticipation", "labels", "rows"],
    paper="https://arxiv.org/abs/1804.00892",
    params=31_465_152,
    system="anticipation_cnn",
)
def anticipation_cnn(**overrides: Any) -> AnticipationCNN:
    """The convolutional network of 2018: 128 rows, the following half of the video at once."""
    own = checked_overrides(AnticipationCNNConfig, overrides, "anticipation_cnn")
    return AnticipationCNN(replace(AnticipationCNNConfig(), **own))
