"""Anticipation: published settings on features, and runs on label sequences that are measured on a CPU.

framecast train anticipation --data my_folder          # groundTruth/*.txt or segments.csv, no features
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.anticipation_recipe import (
    AnticipationDataSettings,
    AnticipationRecipe,
)
from framecast.train.recipe import ModelSettings, OptimSettings

# Published settings --------------------------------------------------------------------------------------


def published(
    name: str, model: ModelSettings, layout: str, sample_rate: int, *, epochs: int = 101
) -> AnticipationRecipe:
    """The releases' training: Adam at 5e-4, batches of 16, averaged weights; every split for itself."""
    split = None if layout == "assembly101" else 1  # has one training and one validation side
    return AnticipationRecipe(
        name=name,
        model=model,
        data=AnticipationDataSettings(
            root="", observe="features", layout=layout, split=split, sample_rate=sample_rate
        ),
        optim=OptimSettings(name="adam", lr=5e-4),
        batch_size=16,
        epochs=epochs,
        ema_decay=0.995,
        ema_every=10,
        ema_start=100,
        eval_every=epochs,
        save_every=5,
    )


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2407.11954")
def breakfast_gtda() -> AnticipationRecipe:
    """GTDA on Breakfast with I3D features: mean MoC 24.0 / 22.0 / 21.4 / 20.6 at 20 % observed.

    framecast train breakfast_gtda --data DATA/breakfast --splits all
    """
    model = ModelSettings(name="gtda", config={"channel_dropout": 0.4})
    return published("breakfast_gtda", model, "breakfast", 3, epochs=86)


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2501.08837")
def breakfast_manta() -> AnticipationRecipe:
    """MANTA on Breakfast with I3D features: mean MoC 27.7 and 23.8 at 10 % and 50 % ahead, 20 % observed.

    framecast train breakfast_manta --data DATA/breakfast --splits all
    """
    return published("breakfast_manta", ModelSettings(name="manta"), "breakfast", 3, epochs=91)


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2407.11954")
def salads50_gtda() -> AnticipationRecipe:
    """GTDA on 50Salads with I3D features; the release has no script for it, so Breakfast's settings.

    framecast train salads50_gtda --data DATA/50salads --splits all
    """
    return published("salads50_gtda", ModelSettings(name="gtda"), "50salads", 6)


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2501.08837")
def salads50_manta() -> AnticipationRecipe:
    """MANTA on 50Salads with I3D features; the release has no script for it, so Breakfast's settings.

    framecast train salads50_manta --data DATA/50salads --splits all
    """
    return published("salads50_manta", ModelSettings(name="manta"), "50salads", 6)


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2407.11954")
def assembly101_gtda() -> AnticipationRecipe:
    """GTDA on Assembly101 with TSM features: mean MoC 6.4, top-1 18.0 at 20 % observed, 10 % ahead.

    framecast train assembly101_gtda --data DATA/assembly101
    """
    model = ModelSettings(name="gtda", config={"channel_dropout": 0.3})
    return published("assembly101_gtda", model, "assembly101", 6, epochs=86)


@register_recipe(tags=["anticipation", "published"], paper="https://arxiv.org/abs/2501.08837")
def assembly101_manta() -> AnticipationRecipe:
    """MANTA on Assembly101 with TSM features: mean MoC 6.7, top-1 16.9 at 20 % observed, 10 % ahead.

    framecast train assembly101_manta --data DATA/assembly101
    """
    dropout = {"channel_dropout": 0.5, "drop_path": 0.5, "dropout": 0.5}
    model = ModelSettings(name="manta", config=dropout)
    return published("assembly101_manta", model, "assembly101", 6, epochs=56)
