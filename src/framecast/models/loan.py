"""LOAN: where will it burn tomorrow? (Shams Eddin, Roscher, Gall, IEEE TGRS 61, 2023,
https://arxiv.org/abs/2212.08208, https://doi.org/10.1109/TGRS.2023.3285401)

Two branches look at the surroundings of a cell: a 3-D CNN at ten days of weather and vegetation, a 2-D CNN at
the terrain, roads, people and land cover. What the second one sees scales and shifts the features of the
first one at two depths (`LocationAwareNorm`), and the day of the year is added before the head.

As in the release, since its weights want it: only 22 of the 25 rows and columns reach the dynamic branch and
24 the static one, for pooling drops what is left over, so the target is not quite in the middle of what is
seen (`window_cells=30` loses nothing); the first modulation reads features before their normalisation; the
day of the year is counted as in a leap year (1 March is 61 in every year).
Shapes: B batch, V dynamic and S static variables, T days with the latest one first, H and W cells, C classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framecast.nn.location_norm import LocationAwareNorm
from framecast.official import OfficialLayout
from framecast.registry import checked_overrides, register_model

DAYS_OF_YEAR = 366
SMALLEST_WINDOW, FEWEST_DAYS = 22, 8  # cells and days that leave something to pool


@dataclass(frozen=True)
class LOANConfig:
    num_dynamic: int = 10  # variables that change daily
    num_static: int = 15  # continuous ones first, then fractions of land cover
    num_days: int = 10
    window_cells: int = 25  # side of the window round a cell
    num_classes: int = 2  # the last one is fire
    time_encoding: bool = True  # day of the year
    location_aware: bool = True  # False = no γ and β: the static branch is heard in the head only
    dropout: float = 0.5


class LOAN(nn.Module):
    """Windows of dynamic and static maps to log-probabilities (B, C) for the cell in the middle."""

    def __init__(self, config: LOANConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.window_cells < SMALLEST_WINDOW or c.num_days < FEWEST_DAYS:
            raise ValueError(
                f"window_cells={c.window_cells} and num_days={c.num_days} are too small for three rounds of "
                f"convolution and pooling; at least {SMALLEST_WINDOW} cells and {FEWEST_DAYS} days"
            )
        self.dynamic1 = nn.Conv3d(c.num_dynamic, 32, kernel_size=3)
        self.dynamic2 = nn.Conv3d(32, 64, kernel_size=3)
        self.dynamic3 = nn.Conv3d(64, 128, kernel_size=2, stride=(1, 2, 2))
        self.static1 = nn.Conv2d(c.num_static, 32, kernel_size=3)
        self.static_norm = nn.BatchNorm2d(32)
        self.static2 = nn.Conv2d(32, 64, kernel_size=3)
        self.static3 = nn.Conv2d(64, 128, kernel_size=2, stride=2)
        self.modulate1: nn.Module = nn.BatchNorm3d(32, affine=False)
        self.modulate2: nn.Module | None = None
        if c.location_aware:
            self.modulate1 = LocationAwareNorm(32, 32)
            self.modulate2 = LocationAwareNorm(64, 64, norm=False)
        self.day = DayEncoding(256) if c.time_encoding else None
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in ((384, 256), (256, 128), (128, 32)))
        self.classify = nn.Linear(32, c.num_classes)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, dynamic: Tensor, static: Tensor, day: Tensor | None = None) -> Tensor:
        """dynamic (B, V, T, H, W), static (B, S, H, W), day of the year (B,) 1..366 -> (B, C)."""
        return self.forward_head(*self.features(dynamic, static), day)

    def features(self, dynamic: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads of windows: of the dynamic branch (B, 256), of the static one (B, 128)."""
        check_windows(self.config, dynamic, static)
        at, what = self.static1(static), self.dynamic1(dynamic)
        what = F.relu(self.modulate1(what, at) if self.config.location_aware else self.modulate1(what))
        at, what = F.max_pool2d(F.relu(self.static_norm(at)), 2), F.max_pool3d(what, (1, 2, 2))

        at, what = self.static2(at), self.dynamic2(what)
        what = F.relu(what if self.modulate2 is None else self.modulate2(what, at))
        at, what = F.max_pool2d(F.relu(at), 2), F.max_pool3d(what, 2)

        at, what = F.relu(self.static3(at)), F.relu(self.dynamic3(what))
        place = at.mean((-2, -1))
        events = F.adaptive_avg_pool3d(what, (2, 1, 1)).flatten(1)  # two steps of every channel in turn
        return events, place

    def forward_head(self, events: Tensor, place: Tensor, day: Tensor | None) -> Tensor:
        """Features of both branches (B, 256) and (B, 128), day (B,) -> log-probabilities (B, C)."""
        x = self.joined(events, place, day)
        for i, layer in enumerate(self.head):
            x = F.relu(layer(x))
            x = self.drop(x) if i < 2 else x
        return self.classify(x).log_softmax(1)

    def forward_heads(
        self, events: Tensor, place: Tensor, day: Tensor | None, masks: tuple[Tensor, Tensor]
    ) -> Tensor:
        """As `forward_head`, once for each of N pairs of masks (N, 256) and (N, 128) in place of dropout.

        Gives (N, B, C); what stands before the first mask is computed once.
        """
        layers: list[Any] = [*self.head]
        first, second, third = layers
        x = F.relu(first(self.joined(events, place, day)))
        out = []
        for kept, later in zip(*masks, strict=True):
            y = F.relu(F.linear(x, second.weight * kept, second.bias))
            y = F.relu(F.linear(y, third.weight * later, third.bias))
            out.append(self.classify(y).log_softmax(1))
        return torch.stack(out)

    def joined(self, events: Tensor, place: Tensor, day: Tensor | None) -> Tensor:
        """Both branches side by side, (B, 384), with the day of the year in the dynamic one."""
        if self.day is not None:
            if day is None:
                raise ValueError("this model knows the day of the year; pass day=(batch,), 1..366")
            if not torch.compiler.is_compiling():
                check_days(day)
            events = events + self.day(day)
        return torch.cat([events, place], dim=1)


class DayEncoding(nn.Module):
    """Sines and cosines of the day of the year, each with a learned weight round 1.

    The release's own frequencies: base 10, other exponents for a sine than for the cosine beside it.
    """

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        index = torch.arange(width, dtype=torch.float64)
        angle = torch.arange(DAYS_OF_YEAR, dtype=torch.float64)[:, None] / 10 ** (2 * index / width)
        waves = torch.where(index % 2 == 0, angle.sin(), angle.cos())
        self.register_buffer("table", waves.float(), persistent=False)

    def forward(self, day: Tensor) -> Tensor:  # (B,) -> (B, width)
        return self.table[day.long() - 1] * (1 + self.weight)


def check_windows(config: Any, dynamic: Tensor, static: Tensor) -> None:
    """ValueError for anything but windows of the config's variables, days and cells."""
    c = config
    cells = (c.window_cells, c.window_cells)
    wanted = (c.num_dynamic, c.num_days, *cells), (c.num_static, *cells)
    if tuple(dynamic.shape[1:]) != wanted[0] or tuple(static.shape[1:]) != wanted[1]:
        raise ValueError(
            f"this model reads dynamic maps (batch, {', '.join(map(str, wanted[0]))}) and static ones "
            f"(batch, {', '.join(map(str, wanted[1]))}), but got {tuple(dynamic.shape)} and "
            f"{tuple(static.shape)}; for whole regions use framecast.infer.danger_map"
        )


def check_days(day: Tensor) -> None:
    """ValueError for a day of the year outside 1..366; the release takes day 0 for 31 December."""
    if day.numel() and not (int(day.min()) >= 1 and int(day.max()) <= DAYS_OF_YEAR):
        raise ValueError(f"day of the year must be 1..366, got {int(day.min())}..{int(day.max())}")


def danger_loss(log_prob: Tensor, target: Tensor, class_weights: tuple[float, ...] = (0.5, 0.5)) -> Tensor:
    """Negative log-likelihood with class weights, a mean that their sum divides; equal ones change nothing.

    log_prob: (B, C); target: (B,) class index, -100 = not counted.
    """
    weights = torch.tensor(class_weights, dtype=log_prob.dtype, device=log_prob.device)
    return F.nll_loss(log_prob, target, weights)


# Official layout --------------------------------------------------------------------------------------


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The release's head is made of convolutions over a sequence of one step."""
    return {k: t.squeeze(-1) if re.fullmatch(r"lastlayer\d\.weight", k) else t for k, t in state.items()}


def _read_config(state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_dynamic": state["Block1.Block.0.weight"].shape[1],
        "num_static": state["Block4.Block.0.weight"].shape[1],
        "num_classes": state["lastlayer4.weight"].shape[0],
        "time_encoding": "PE_Weights" in state,
    }


OFFICIAL = (
    OfficialLayout(
        name="LOAN",
        model="loan_cnn",
        detect=r"loan1\.mlp_gamma\.weight",
        licence="MIT (c) 2023 Hakam Shams",
        keys={
            r"Block([123])\.Block\.0\.(.*)": r"dynamic\1.\2",
            r"Block4\.Block\.0\.(.*)": r"static1.\1",
            r"Block5\.Block\.0\.(.*)": r"static2.\1",
            r"Block6\.Block\.0\.(.*)": r"static3.\1",
            r"bn4\.(.*)": r"static_norm.\1",
            r"loan(\d)\.free_norm\.(.*)": r"modulate\1.norm.\2",
            r"loan(\d)\.free_norm_cond\.(.*)": r"modulate\1.condition_norm.\2",
            r"loan(\d)\.mlp_(gamma|beta)\.(.*)": r"modulate\1.\2.\3",
            r"PE_Weights": "day.weight",
            r"lastlayer1\.(.*)": r"head.0.\1",
            r"lastlayer2\.(.*)": r"head.1.\1",
            r"lastlayer3\.(.*)": r"head.2.\1",
            r"lastlayer4\.(.*)": r"classify.\1",
        },
        read_config=_read_config,
        ignored={r"PositionalEncoding\.pe": "the table of days is computed"},
        prepare=_prepare,
        head=r"classify\..*",
    ),
)


# Named sizes ------------------------------------------------------------------------------------------


def _loan(config: LOANConfig, overrides: dict[str, Any], name: str) -> LOAN:
    return LOAN(replace(config, **checked_overrides(LOANConfig, overrides, name)))


@register_model(
    tags=["earth", "danger"], paper="https://arxiv.org/abs/2212.08208", params=413_762, system="loan"
)
def loan_cnn(**overrides: Any) -> LOAN:
    """LOAN: wildfire danger of a cell from 10 days and 25 km around it, and the day of the year."""
    return _loan(LOANConfig(time_encoding=True), overrides, "loan_cnn")


@register_model(tags=["earth", "danger"], paper="https://arxiv.org/abs/2212.08208", params=413_506)
def loan_cnn_no_time(**overrides: Any) -> LOAN:
    """LOAN without the day of the year."""
    return _loan(LOANConfig(time_encoding=False), overrides, "loan_cnn_no_time")
