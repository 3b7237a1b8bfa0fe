"""Video-Panda's vision part on one clip: ours, its equations written straight down, and a ViT-L/14 encoder.

    python benchmarks/video_panda.py [--quick] [--json FILE] [--rounds 3] [--frames 8] [--size 448]

CPU time of one thread in turn, multiply-adds, parameters, and extra peak memory of one call from fresh
processes. Ours and the reference hold the same weights, and their answers are compared; the ViT reads the
same frames one after the other. Random weights. The goals are those of 8 frames at 448 pixels: of less, the
parts that are as large for any input weigh more.

The papers count the ViT of a language model's encoder at 224 pixels, with attention over time (864 GMACs for
8 frames); the ratio to be reached is theirs.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from pairing import in_fresh_process, paired_times, peak_memory, ratio, report, reset_peak_memory, row
from reference_video_panda import ReferenceVideoPanda
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import framecast as fc

FRAMES, SIZE = 8, 448
QUICK = 4, 224
PUBLISHED = 864.1 / 105.5  # multiply-adds of Video-LLaVA's encoder over those of Video-Panda
LARGEST_ERROR = 1e-5  # of the answer, relative to its largest number
NAMES = ("ours", "reference", "ViT-L/14")


def build(name: str, size: int) -> Any:
    """A competitor with random weights, the same in ours and in the reference."""
    torch.manual_seed(0)
    if name == "ViT-L/14":
        return fc.create_model("vit_large", patch_size=14, image_size=size, num_classes=0).eval()
    reference = ReferenceVideoPanda().eval()
    if name == "reference":
        return reference
    return fc.import_checkpoint("video_panda", reference.state_dict())


def run(name: str, model: Any, frames: Tensor) -> Tensor:
    """Tokens of every frame (T, n, width) of frames (T, 3, H, W)."""
    if name == "ours":
        return torch.stack(model.encode(frames.transpose(0, 1)[None])[0].frames)
    if name == "reference":
        return torch.stack(model(frames))
    return torch.cat([model.forward_features(frame[None]) for frame in frames])


@torch.inference_mode()
def time_rows(num_frames: int, size: int, rounds: int) -> list[dict[str, Any]]:
    frames = torch.randn(num_frames, 3, size, size)
    models = {name: build(name, size) for name in NAMES}
    ours, theirs = (run(name, models[name], frames) for name in ("ours", "reference"))
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    if not error < LARGEST_ERROR:
        raise SystemExit(f"outputs differ by {error:.1e}; timing would mean nothing")
    pair = paired_times({n: lambda n=n: run(n, models[n], frames) for n in NAMES[:2]}, rounds)
    # The encoder takes as long as ten rounds of the others; once more beside ours is enough.
    vit = paired_times({n: lambda n=n: run(n, models[n], frames) for n in ("ours", "ViT-L/14")}, 1)
    title, whole = f"{num_frames} frames of {size}", (num_frames, size) == (FRAMES, SIZE)
    best, slow = (min(pair[name]) for name in NAMES[:2])
    encoder = min(vit["ViT-L/14"])
    faster, than_vit = ratio(pair, "reference", "ours"), ratio(vit, "ViT-L/14", "ours")
    vit_goal = f">= {PUBLISHED:.2f}" if whole else ""
    rows = [
        row(f"{title}, times faster", best, slow, "ms", faster, ">= 1.5" if whole else ""),
        row(f"{title}, times faster than ViT-L/14", min(vit["ours"]), encoder, "ms", than_vit, vit_goal),
        row("largest relative error", error, 1.0, "", error, f"<= {LARGEST_ERROR}"),
    ]
    macs = {name: multiply_adds(name, num_frames, size) for name in NAMES}
    params = {name: sum(p.numel() for p in models[name].parameters()) / 1e6 for name in NAMES}
    for unit, counts in (("GMAC", macs), ("M", params)):
        what = "multiply-adds" if unit == "GMAC" else "parameters"
        for other in NAMES[1:]:
            fewer = counts[other] / counts["ours"]
            name = f"{what}, times fewer" + (" than ViT-L/14" if other == "ViT-L/14" else "")
            rows.append(row(name, counts["ours"], counts[other], unit, fewer))
    return rows


def multiply_adds(name: str, num_frames: int, size: int) -> float:
    """Giga multiply-adds, counted without computing anything."""
    with torch.device("meta"), torch.inference_mode():
        model: nn.Module = ReferenceVideoPanda() if name == "reference" else make_empty(name, size)
        counter = FlopCounterMode(display=False)
        with counter:
            run(name, model.eval(), torch.empty(num_frames, 3, size, size))
    return counter.get_total_flops() / 2e9


def make_empty(name: str, size: int) -> nn.Module:
    if name == "ours":
        return fc.create_model("video_panda_stab")
    return fc.create_model("vit_large", patch_size=14, image_size=size, num_classes=0)


@torch.inference_mode()
def extra_memory(name: str, num_frames: int, size: int) -> int:
    """Bytes that one call takes beyond model and input, at its peak."""
    model, frames = build(name, size), torch.randn(num_frames, 3, size, size)
    small = frames[:4, :, :56, :56].contiguous()
    run(name, model, small)
    before = reset_peak_memory()
    run(name, model, frames)
    return peak_memory() - before


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="4 frames of 224 pixels, within a minute")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, help="a multiple of 4")
    parser.add_argument("--size", type=int, help="pixels, a multiple of 28")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    num_frames, size = QUICK if arguments.quick else (FRAMES, SIZE)
    num_frames, size = arguments.frames or num_frames, arguments.size or size
    if arguments.memory_of:
        return print(extra_memory(arguments.memory_of, num_frames, size))
    rows = time_rows(num_frames, size, arguments.rounds)
    own = ["--frames", str(num_frames), "--size", str(size)]
    used = {name: json.loads(in_fresh_process(__file__, "--memory-of", name, *own)) / 2**20 for name in NAMES}
    for other in NAMES[1:]:
        name = "extra peak memory, times less" + (" than ViT-L/14" if other == "ViT-L/14" else "")
        rows.append(row(name, used["ours"], used[other], "MB", used[other] / used["ours"]))
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
