"""How far JPEG moves what a model says: mean KL(clean || quality 10) in nats over the test images.

    python results/scan_or_attention/jpeg_divergence.py runs/scan_or_attention/cifar/*/seed*

Writes jpeg_divergence.json into every run folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from framecast.checkpoints import card_of, load
from framecast.data.corruptions import compress_jpeg
from framecast.recipes.build import open_recognition_data, view_protocol
from framecast.tasks.recognition import classify, views_of
from framecast.train.config import load_recipe
from framecast.train.recognition_recipe import RecognitionRecipe

QUALITY, AT_ONCE = 10, 50


@torch.inference_mode()
def divergence(run: Path) -> float:
    model, recipe = load(run), load_recipe(run)
    assert isinstance(recipe, RecognitionRecipe)
    data = open_recognition_data(recipe.data, "test")
    card, config = card_of(model), cast(Any, model).config
    protocol = view_protocol(card.protocol, data.kind)

    def log_probabilities(quality: int | None) -> Tensor:
        change = None if quality is None else lambda crops, source: compress_jpeg(crops, quality)
        views = views_of(data, config, protocol, card.frames, corrupt=change)
        parts = [
            torch.cat([views[i]["pixels"] for i in range(first, min(first + AT_ONCE, len(views)))])
            for first in range(0, len(views), AT_ONCE)
        ]
        return torch.cat([classify(model, part).double().log_softmax(1) for part in parts])

    clean, compressed = log_probabilities(None), log_probabilities(QUALITY)
    return float((clean.exp() * (clean - compressed)).sum(1).mean())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = divergence(Path(name))
        (Path(name) / "jpeg_divergence.json").write_text(json.dumps({"kl_quality_10": found}) + "\n")
        print(f"{name}: {found:.3f}")
