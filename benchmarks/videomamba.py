"""VideoMamba on a CPU: against its own matrix products, against its equations written down, beside a ViT.

    python benchmarks/videomamba.py [--quick] [--json FILE]

CPU time of one thread, median of paired rounds, each size in a fresh process. "Matrix products" are all of
the release's forward pass, the patch embedding and the head among them, and nothing else: no scan, no
convolution, no norm, no gate. The ViT is a joint space-time one of the same width with half as many blocks,
which are twice as large: both have the same number of weights. Random weights, clips of 224 pixels, batch 1.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
import torch.nn.functional as F
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory
from reference_videomamba import reference_layer
from torch import Tensor

import framecast as fc
from framecast.ops import memory

GEMM_GOALS = {"tiny": 1.6, "small": 1.4, "middle": 1.3}  # times the time of the matrix products
REFERENCE_GOALS = {("tiny", 16): 36.0, ("small", 8): 19.0, ("middle", 8): 15.0}  # times the reference's speed
LARGEST_ERROR = 1e-6  # of a layer's answer, relative to its largest number
CLASSES = 400


def build(size: str, frames: int) -> Any:
    torch.manual_seed(0)
    return fc.create_model(f"videomamba_{size}", num_frames=frames, num_classes=CLASSES).eval()


def build_vit(model: Any, frames: int) -> Any:
    c = model.config
    sizes = {"width": c.width, "depth": c.depth // 2, "num_heads": c.width // 64}
    return fc.create_model("vit_tiny_joint", num_frames=frames, num_classes=CLASSES, **sizes).eval()


def row(name: str, ours: float, theirs: float, unit: str, value: float, goal: str = "") -> dict:
    """One line of the report; the goal is "<= number" or ">= number"."""
    bound = float(goal[3:]) if goal else 0.0
    holds = (value <= bound if goal.startswith("<") else value >= bound) if goal else None
    figures = {"ours": ours, "reference": theirs, "unit": unit, "ratio": value}
    return {"name": name, **figures, "goal": goal, "holds": holds}


# The matrix products alone ----------------------------------------------------------------------------


class MatrixProducts:
    """Every linear map of a VideoMamba on inputs of the right shapes."""

    def __init__(self, model: Any, clip: Tensor) -> None:
        self.model, self.clip = model, clip
        width = model.config.width
        tokens = 1 + model.frames_of(clip) * model.config.grid[0] * model.config.grid[1]
        self.h = torch.randn(1, tokens, width)
        self.c = torch.randn(2, 1, tokens, 2 * width)

    def __call__(self) -> None:
        self.model.patch_embed(self.clip)
        for layer in self.model.layers:
            mixer = layer.mixer
            mixer.in_proj(self.h)
            for c, walk in zip(self.c, mixer.walks, strict=True):
                low_rank = walk.x_proj(c)[..., : mixer.dt_rank]
                F.linear(low_rank, walk.dt_proj.weight)
            mixer.out_proj(self.c[0])
        self.model.head(self.h[:, 0])


@torch.inference_mode()
def model_rows(size: str, frames: int, rounds: int) -> list[dict]:
    model, clip = build(size, frames), torch.randn(1, 3, frames, 224, 224)
    vit = build_vit(model, frames)
    runs = {"ours": lambda: model(clip), "products": MatrixProducts(model, clip), "vit": lambda: vit(clip)}
    times = paired_times(runs, rounds)
    best = {name: min(values) for name, values in times.items()}
    title, goal = f"{size} {frames} frames", f"<= {GEMM_GOALS[size]}"
    ours, products = best["ours"], best["products"]
    over, against = ratio(times, "ours", "products"), ratio(times, "ours", "vit")
    return [
        row(f"{title}, times its matrix products", ours, products, "ms", over, goal),
        row(f"{title}, times the ViT's time", ours, best["vit"], "ms", against),
    ]


# One layer against the equations ----------------------------------------------------------------------


@torch.inference_mode()
def layer_rows(size: str, frames: int, rounds: int) -> list[dict]:
    """Four of our layers as they follow each other in the model, against one layer of the equations."""
    layers = build(size, frames).layers[1:5]
    h, r = torch.randn(2, 1, 1 + frames * 14 * 14, layers[0].mixer.in_proj.in_features)
    weights = layers[0].state_dict()
    pairs = layers[0](h, r), reference_layer(weights, h, r)
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*pairs, strict=True))
    if not error < LARGEST_ERROR:
        raise SystemExit(f"outputs differ by {error:.1e}; timing would mean nothing")

    def ours() -> None:
        carried = h, r
        with memory.reused():
            for layer in layers:
                carried = layer(*carried)

    times = paired_times({"ours": ours, "reference": lambda: reference_layer(weights, h, r)}, rounds)
    times["ours"] = [value / len(layers) for value in times["ours"]]
    best = {name: min(values) for name, values in times.items()}
    title, bound = f"{size} {frames} frames, a layer", REFERENCE_GOALS.get((size, frames))
    speed, goal = ratio(times, "reference", "ours"), f">= {bound}" if bound else ""
    return [
        row(f"{title}, times faster", best["ours"], best["reference"], "ms", speed, goal),
        row(f"{title}, relative error", error, 1.0, "", error, f"<= {LARGEST_ERROR}"),
    ]


# Training and memory ----------------------------------------------------------------------------------


def training_rows(size: str, rounds: int) -> list[dict]:
    """A training step on images against the forward pass that it contains."""
    torch.manual_seed(0)
    model, images = fc.create_model(f"videomamba_{size}"), torch.randn(4, 3, 224, 224)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(images), torch.arange(4)).backward()

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    times = paired_times({"step": step, "forward": forward}, rounds)
    best = {name: min(values) for name, values in times.items()}
    name = f"{size} training step, 4 images, times forward"
    return [row(name, best["step"], best["forward"], "ms", ratio(times, "step", "forward"))]


@torch.inference_mode()
def extra_memory(name: str, size: str, frames: int) -> int:
    """Bytes that one call takes beyond model and clip, at its peak."""
    model = build(size, frames)
    model = build_vit(model, frames) if name == "vit" else model
    clip = torch.randn(1, 3, frames, 224, 224)
    model(clip[:, :, :1])
    before = reset_peak_memory()
    model(clip)
    return peak_memory() - before


def memory_rows(size: str, frames: int) -> list[dict]:
    ours, vit = (alone("memory", name, size, frames) / 2**20 for name in ("ours", "vit"))
    return [row(f"{size} {frames} frames, extra memory beside the ViT", ours, vit, "MB", ours / vit)]


def alone(part: str, *arguments: object) -> Any:
    """A part of the benchmark in a fresh process, since what malloc learns from one size changes the next."""
    return json.loads(in_fresh_process(__file__, "--part", part, *map(str, arguments)))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="tiny and small with 8 frames, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    match arguments.part:
        case ["model", size, frames, rounds]:
            return print(json.dumps(model_rows(size, int(frames), int(rounds))))
        case ["layer", size, frames, rounds]:
            return print(json.dumps(layer_rows(size, int(frames), int(rounds))))
        case ["training", size, rounds]:
            return print(json.dumps(training_rows(size, int(rounds))))
        case ["memory", name, size, frames]:
            return print(extra_memory(name, size, int(frames)))
    quick = arguments.quick
    sizes = ["tiny", "small"] if quick else ["tiny", "small", "middle"]
    lengths = [8] if quick else [8, 16]
    rows = []
    for size in sizes:
        for frames in lengths:
            rows += alone("model", size, frames, 3 if quick else 7)
    for size in sizes:
        for frames in lengths:
            rows += alone("layer", size, frames, 1 if quick else 3)
    for size in ["tiny"] if quick else sizes[:2]:
        rows += alone("training", size, 3)
    if not quick:
        rows += memory_rows("tiny", 8) + memory_rows("tiny", 64)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
