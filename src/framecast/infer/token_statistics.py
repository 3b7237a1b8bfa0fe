"""How many tokens an adaptive model keeps, and what it costs, over all inputs that went through it.

    with model.record(with_ids=False) as record:
        ...                                   # every image of a data set
    print(token_statistics(model, record, macs_around_blocks(model, pixels)))

MACs are those of the whole model, patch embedding and head included, as `framecast profile` counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from framecast.backbones.adaptive_model import AdaptiveModel, SamplingRecord

BINS = 10  # of a histogram: tenths of all tokens
BARS = "·▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class TokenStatistics:
    """Over `inputs` images, clips, or views of them; tokens count the class token too."""

    inputs: int
    tokens: int  # of a whole input
    blocks: tuple[int, ...]  # that sample, 0-based; not a last one that hands on the class token alone
    left: tuple[float, ...]  # tokens after each of them, mean
    histograms: tuple[tuple[int, ...], ...]  # inputs that are left (0, 10], (10, 20], … (90, 100] % of them
    macs: float  # of an input, mean
    fewest_macs: int
    most_macs: int
    full_macs: int  # of the unmodified model, all tokens through all layers

    @property
    def share(self) -> float:
        """Of the unmodified model's multiply-adds, mean."""
        return self.macs / self.full_macs

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}

    def rows(self) -> list[dict[str, str]]:
        """A row of text for each stage."""
        return [
            {
                "block": str(block),
                "tokens left": f"{left:.1f}",
                f"of {self.tokens}": f"{left / self.tokens:.0%}",
                "inputs by tokens left, 0 to 100 %": bars(counts),
            }
            for block, left, counts in zip(self.blocks, self.left, self.histograms, strict=True)
        ]

    def cost(self) -> str:
        """The multiply-adds in one sentence."""
        low, high = self.fewest_macs / self.full_macs, self.most_macs / self.full_macs
        return (
            f"{in_units(self.macs)} of {in_units(self.full_macs)} MACs per input, {self.share:.1%} of the "
            f"unmodified model; from {low:.0%} to {high:.0%}, mean of {self.inputs}"
        )


def token_statistics(model: AdaptiveModel, record: SamplingRecord, around: int = 0) -> TokenStatistics:
    """What a record of at least one input says; around: multiply-adds before and after the blocks."""
    assert len(record.macs), "nothing went through the model"
    prefix = record.sequences * getattr(model, "num_prefix_tokens", 1)
    tokens = prefix + record.sequences * record.num_patches
    stages = [
        i
        for i, block in enumerate(model.config.blocks)
        if block < model.depth - 1 or int(record.counts[:, i].max()) > prefix
    ]
    counts = record.counts[:, stages]
    tenths = (BINS * counts - 1) // tokens
    macs = record.macs + around
    return TokenStatistics(
        inputs=len(record.macs),
        tokens=tokens,
        blocks=tuple(model.config.blocks[i] for i in stages),
        left=tuple(counts.double().mean(0).tolist()),
        histograms=tuple(tuple(column.bincount(minlength=BINS).tolist()) for column in tenths.T),
        macs=float(macs.double().mean()),
        fewest_macs=int(macs.min()),
        most_macs=int(macs.max()),
        full_macs=record.full_macs + around,
    )


@torch.inference_mode()
def macs_around_blocks(
    model: AdaptiveModel, pixels: Tensor, run: Callable[[AdaptiveModel, Tensor], Any] | None = None
) -> int:
    """Multiply-adds of one input before and after the blocks, for pixels (B, …): embedding and head.

    run: how the model is called where it does not read the pixels as they are.
    """
    inside = set((getattr(model.host, "blocks", None) or model.host.layers).parameters())
    outside = [p for p in model.host.parameters() if p not in inside]
    with model.record(with_ids=False) as record, _Products(outside) as products:
        model(pixels[:1]) if run is None else run(model, pixels[:1])
    return products.macs // len(record.macs)


class _Products(TorchFunctionMode):
    """Adds up what linear maps and convolutions with these weights cost."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.storages = {weight.untyped_storage()._cdata for weight in weights}  # views share them
        self.macs = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.linear, F.conv2d, F.conv3d) and args[1].untyped_storage()._cdata in self.storages:
            self.macs += out.numel() * args[1][0].numel()
        return out


def bars(counts: Sequence[int]) -> str:
    """A histogram in one line of text; whatever is not empty is seen."""
    most = max([*counts, 1])
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] for count in counts)


def in_units(number: float) -> str:
    """1.63 G, 14.1 M."""
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{prefix}"
    return f"{number:g}"
