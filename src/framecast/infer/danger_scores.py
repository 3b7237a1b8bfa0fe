"""Scores of danger on the test side of a cube or of FireCube's samples: models and baselines alike."""

from __future__ import annotations

import torch
from torch import nn

from framecast.checkpoints import card_of
from framecast.data.danger_windows import DangerInput
from framecast.recipes.build_danger import open_danger
from framecast.tasks.danger import DangerScores, score_model
from framecast.train.danger_recipe import DangerDataSettings


def evaluate_danger(
    model: nn.Module, settings: DangerDataSettings, device: torch.device | str = "cpu"
) -> tuple[DangerScores, int]:
    """Scores of the split `settings.test`, and the number of samples.

    Raises ValueError where the data has other variables than the model was trained with.
    """
    notes = card_of(model).notes
    reads = DangerInput.from_notes(notes) if "scaling" in notes else None
    data = open_danger(settings, settings.test, reads)
    return score_model(model.eval(), data, device, settings.regions), len(data)
