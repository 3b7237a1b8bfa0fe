"""Counts equal what the papers' equations say, part by part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import framecast as fc
from framecast.profile.counting import Counts, count

# GMACs at 224 pixels and 1000 classes, to the digits in which they are published.
VITS = {
    "vit_tiny": "1.25",
    "vit_small": "4.60",
    "vit_small_patch32": "1.14",
    "vit_base": "17.56",
    "vit_base_patch32": "4.41",
    "vit_large": "61.55",
    "vit_large_patch32": "15.38",
    "vit_huge": "167.3",
}
VIDEOS = {"timesformer_base": 196, "timesformer_hr": 1703, "timesformer_large": 2380}
# Published figures hold only the outer projections and the patches; then with the projections of
# the steps; then with the scans too, whose FLOPs are usually added to the MACs of the rest.
MAMBAS = {
    "videomamba_tiny": (1.1, 1.28, 1.82),
    "videomamba_small": (4.3, 4.82, 5.91),
    "videomamba_middle": (12.7, 14.15, 16.3),
    "videomamba_base": (16.9, 18.71, 20.9),
}


def counted(name: str, *shape: int, whole: bool = True, **config: Any) -> Counts:
    with torch.device("meta"):
        return count(fc.create_model(name, **config), torch.empty(1, *shape), whole=whole)


@pytest.mark.parametrize(("name", "gmacs"), VITS.items())
def test_vits_cost_what_is_published(name: str, gmacs: str) -> None:
    counts = counted(name, 3, 224, 224)
    decimals = len(gmacs.partition(".")[2])
    assert f"{counts.total.macs / 1e9:.{decimals}f}" == gmacs
    assert counts.total.flops == 2 * counts.total.macs


def test_parts_of_a_vit_follow_its_equations() -> None:
    tokens, width, depth = 197, 192, 12
    parts = {name: cost.macs for name, cost in counted("vit_tiny", 3, 224, 224).parts.items()}
    assert parts == {
        "patch embedding": 196 * 3 * 16 * 16 * width,
        "attention projections": depth * 4 * tokens * width**2,
        "attention products": depth * 2 * tokens**2 * width,
        "MLP": depth * 8 * tokens * width**2,
        "head": width * 1000,
        "other": 0,  # norms, positions, tokens: parameters only
    }


@pytest.mark.parametrize(("name", "gmacs"), VIDEOS.items())
def test_timesformers_cost_what_is_published(name: str, gmacs: float) -> None:
    config = fc.create_model(name, width=12, num_heads=1, depth=1).config
    shape = (3, config.num_frames, config.image_size, config.image_size)
    assert round(counted(name, *shape).total.macs / 1e9) == gmacs


@pytest.mark.parametrize(("name", "published"), MAMBAS.items())
def test_mambas_cost_what_is_published_and_what_was_left_out(
    name: str, published: tuple[float, float, float]
) -> None:
    counts = counted(name, 3, 224, 224)
    outer = ("in_proj", "out_proj", "patch_embed", "patch_embed.proj")
    zoo = sum(flops for (path, _), flops in counts.flops.items() if path.endswith(outer)) / 2e9
    scan, conv = (counts.parts[part] for part in ("scan", "convolution"))
    maps = (counts.total.macs - scan.macs - conv.macs) / 1e9
    usual = maps + (conv.macs + scan.flops) / 1e9
    assert zoo == pytest.approx(published[0], abs=0.07)
    assert maps == pytest.approx(published[1], abs=0.006)
    assert usual == pytest.approx(published[2], abs=0.06)


def test_ltcontext_follows_its_equations() -> None:
    frames, channels, classes, layers = 512, 2048, 48, 9
    window, stride = 64, 8
    pairs = frames * 2 * window - 2 * window * window // 2  # half a window of keys is missing at either end
    pairs += frames * frames // stride

    def stage(read: int, width: int) -> dict[str, int]:
        return {
            "linear maps": frames * (read * width + layers * width**2),
            "convolution": frames * layers * 3 * width**2,
            "attention projections": frames * layers * 2 * 2 * width**2,
            "attention products": layers * pairs * width,
            "head": frames * width * classes,
        }

    stages = [stage(channels, 64), *[stage(classes, 32)] * 3]
    expected = {part: sum(one[part] for one in stages) for part in stages[0]}
    expected["linear maps"] += frames * 64 * 32  # between the first stage and the others
    assert {k: v.macs for k, v in counted("ltcontext", channels, frames).parts.items()} == expected


SMALL: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "vit_tiny": ((3, 32, 32), {"width": 24, "depth": 2, "image_size": 32}),
    "videomamba_tiny": ((3, 2, 32, 32), {"width": 16, "depth": 2, "image_size": 32, "num_frames": 2}),
    "stablemamba_tiny": ((3, 32, 32), {"image_size": 32}),
    "timesformer_base": ((3, 2, 32, 32), {"width": 24, "num_heads": 3, "image_size": 32, "num_frames": 2}),
    "ltcontext": ((16, 100), {"feature_dim": 16}),
    "mstcn": ((16, 100), {"feature_dim": 16}),
    "frame_linear": ((16, 100), {"feature_dim": 16}),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("whole", [True, False])
def test_real_tensors_count_as_shapes_do(name: str, whole: bool) -> None:
    """Also where native kernels would run, which no counter can see."""
    shape, config = SMALL[name]
    model = fc.create_model(name, **config)
    real = count(model, torch.randn(1, *shape), whole=whole)
    shapes = counted(name, *shape, whole=whole, **config)
    assert real.flops == shapes.flops
    assert real.params == shapes.params


@pytest.mark.parametrize("name", SMALL)
def test_parts_add_up(name: str) -> None:
    shape, config = SMALL[name]
    model = fc.create_model(name, **config)
    counts = count(model, torch.randn(1, *shape))
    assert sum(cost.flops for cost in counts.parts.values()) == counts.total.flops > 0
    assert sum(cost.params for cost in counts.parts.values()) == counts.total.params
    assert counts.total.params == sum(p.numel() for p in model.parameters())


def test_a_batch_costs_its_size() -> None:
    model = fc.create_model("mstcn", feature_dim=16)
    one, four = (count(model, torch.randn(n, 16, 60)).total.flops for n in (1, 4))
    assert four == 4 * one


def test_what_nobody_reads_is_not_counted_as_run() -> None:
    """The last block answers only the class token, which the head reads."""
    run, whole = (counted("vit_tiny", 3, 224, 224, whole=whole) for whole in (False, True))
    assert run.parts["head"] == whole.parts["head"]
    assert run.parts["MLP"].macs < whole.parts["MLP"].macs


class Dropping(nn.Module):
    """Keeps the tokens whose first channel is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (1, N, 8)
        return self.mlp(x[:, x[0, :, 0] > 0])


def test_dropped_tokens_are_not_counted() -> None:
    x = torch.ones(1, 10, 8)
    x[:, :7, 0] = -1
    assert count(Dropping(), x).parts["MLP"].macs == 3 * 8 * 8


class Unseen(nn.Module):
    """Work that torch's operators do not show."""

    cost_part = "token sampling"

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)

    def extra_flops(self, inputs: tuple[Tensor, ...], output: Tensor) -> dict[str, int]:
        return {"token sampling": inputs[0].shape[1]}


def test_a_module_names_its_part_and_adds_its_own_costs() -> None:
    parts = count(nn.Sequential(Unseen(), nn.Linear(8, 2)), torch.randn(1, 5, 8)).parts
    assert parts["token sampling"].flops == 2 * 5 * 8 * 8 + 5
    assert parts["token sampling"].params == 8 * 8 + 8
    assert parts["linear maps"].macs == 5 * 8 * 2


class Attending(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("shape", [(2, 3, 10, 4), (1, 1, 7, 4)])
def test_fused_attention_is_two_products(shape: tuple[int, ...]) -> None:
    videos, heads, queries, depth = shape
    q, k = torch.randn(shape), torch.randn(videos, heads, 13, depth)
    v = torch.randn(videos, heads, 13, 6)
    parts = count(Attending(), q, k, v).parts
    assert parts["attention products"].macs == videos * heads * queries * 13 * (depth + 6)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = fc.create_model("vit_tiny", **SMALL["vit_tiny"][1]).train()
    model.blocks[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    count(model, torch.randn(1, 3, 32, 32))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
