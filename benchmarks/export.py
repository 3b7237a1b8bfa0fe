"""Every registered image and clip model as it is, exported with torch.export and compared with itself.

    python benchmarks/export.py [--models "vit_*"] [--json FILE]

Random weights, the model's own image size and clip length (8 frames for those that can be both), two clips to
export with and one to compare on, so the batch size is free. The largest difference of the scores is
relative to the largest score. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pairing import machine

import framecast as fc
from framecast.registry import find

LARGEST_DIFFERENCE = 1e-5
CLIP_LENGTH = 8


def clip_lengths(name: str) -> list[int | None]:
    """Of the forms of the model; None = images."""
    with torch.device("meta"):
        own = getattr(fc.create_model(name).config, "num_frames", 0)
    return [None, CLIP_LENGTH] if own is None else [own or None]


@torch.no_grad()
def compare(name: str, frames: int | None) -> dict[str, Any]:
    torch.manual_seed(0)
    model: Any = fc.create_model(name, **({"num_frames": frames} if frames else {})).eval()
    for parameter in model.parameters():  # no zeros and ones that would hide what they multiply
        parameter.add_(0.01 * torch.randn_like(parameter))
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn(2, 3, *([frames] if frames else []), height, width)
    start = time.perf_counter()
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    seconds = time.perf_counter() - start
    ours, exported = model(x[:1]), program(x[:1])
    difference = float((exported - ours).abs().max() / ours.abs().max())
    return {
        "model": name,
        "input": "x".join(map(str, x.shape[2:])),
        "parameters": sum(p.numel() for p in model.parameters()),
        "difference": difference,
        "export seconds": round(seconds, 1),
        "holds": difference <= LARGEST_DIFFERENCE,
    }


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--models", default="*", help="names or a pattern")
    parser.add_argument("--json", help="write the rows there")
    arguments = parser.parse_args()
    rows = []
    for name in fc.list_models(arguments.models):
        if "recognition" not in find("model", name).tags:
            continue
        for frames in clip_lengths(name):
            row = compare(name, frames)
            rows.append(row)
            mark = "holds" if row["holds"] else "MISSED"
            figures = f"{row['difference']:<10.1e} {row['export seconds']:>5} s  {mark}"
            print(f"{name:22} {row['input']:12} {row['parameters']:>13,}  {figures}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"rows": rows, "machine": machine()}, indent=2) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
