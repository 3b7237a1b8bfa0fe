"""Recipes whose results are measured in this repository, on a CPU; see `results/`.

Small data: tens of videos. What helps there is augmentation of the feature tracks and averaged weights; the
settings were chosen on videos held back from the training side, never on the test side.
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings
from framecast.train.segmentation_recipe import (
    SegmentationAugmentSettings,
    SegmentationDataSettings,
    SegmentationLossSettings,
    SegmentationRecipe,
)


@register_recipe(tags=["segmentation", "measured"])
def fir_actions_ltcontext() -> SegmentationRecipe:
    """LTContext on DINOv2 features of 16 untrimmed ceiling-camera videos, 5 folds by video.

    Measured in results/fir_actions; some minutes per fold on one CPU core.

        framecast train fir_actions_ltcontext --data DATA/fir_actions --splits all --seeds 0,1,2
    """
    return SegmentationRecipe(
        name="fir_actions_ltcontext",
        model=ModelSettings(
            name="ltcontext",
            config={
                "num_stages": 3,
                "num_layers": 7,
                "window": 32,
                "stride": 8,
                "standardise": True,
                "channel_dropout": 0.3,
                "attention_dropout": 0.0,
            },
        ),
        data=SegmentationDataSettings(root="", layout="mstcn", split=1, folds=5),
        loss=SegmentationLossSettings(smoothing=0.15),
        augment=SegmentationAugmentSettings(speed=0.3, noise=0.3, crop=0.2),
        optim=OptimSettings(name="adamw", lr=1e-3, weight_decay=1e-2),
        schedule=ScheduleSettings(name="cosine", warmup=2, min_lr=1e-5),
        clip_norm=1.0,
        ema_decay=0.98,
        batch_size=2,
        epochs=60,
        eval_every=60,
        save_every=60,
    )


def _other_model(
    recipe: SegmentationRecipe, name: str, model: ModelSettings, **changes: object
) -> SegmentationRecipe:
    return recipe.model_copy(update={"name": name, "model": model, **changes})


@register_recipe(tags=["segmentation", "measured"])
def fir_actions_mstcn() -> SegmentationRecipe:
    """MS-TCN on the same features, the same training.

    framecast train fir_actions_mstcn --data DATA/fir_actions --splits all --seeds 0,1,2
    """
    config = {"num_stages": 3, "num_layers": 9, "standardise": True}
    return _other_model(
        fir_actions_ltcontext(), "fir_actions_mstcn", ModelSettings(name="mstcn", config=config)
    )


@register_recipe(tags=["segmentation", "measured", "baseline"])
def fir_actions_linear() -> SegmentationRecipe:
    """A linear classifier per frame on the same features.

    framecast train fir_actions_linear --data DATA/fir_actions --splits all --seeds 0,1,2
    """
    model = ModelSettings(name="frame_linear", config={"standardise": True, "dropout": 0.5})
    return _other_model(
        fir_actions_ltcontext(),
        "fir_actions_linear",
        model,
        loss=SegmentationLossSettings(smoothing=0.0),
        optim=OptimSettings(name="adamw", lr=1e-3, weight_decay=1e-1),
    )


@register_recipe(tags=["segmentation", "measured", "baseline"])
def fir_actions_linear_median() -> SegmentationRecipe:
    """The linear classifier with a moving median over 21 steps (5 s) of its probabilities.

    framecast train fir_actions_linear_median --data DATA/fir_actions --splits all --seeds 0,1,2
    """
    base = fir_actions_linear()
    config = base.model.config | {"median_window": 21}
    return _other_model(base, "fir_actions_linear_median", ModelSettings(name="frame_linear", config=config))


@register_recipe(tags=["segmentation", "measured"])
def tas_scores_ltcontext() -> SegmentationRecipe:
    """LTContext on frame-wise SVM scores of 50 Salads or GTEA, beside published temporal models.

    Measured in results/tas_scores; some minutes per split on one CPU core.

        framecast train tas_scores_ltcontext --data DATA/tas_scores/salads50_mid --splits all
    """
    return SegmentationRecipe(
        name="tas_scores_ltcontext",
        model=ModelSettings(
            name="ltcontext",
            config={
                "num_stages": 3,
                "num_layers": 6,
                "window": 32,
                "stride": 8,
                "standardise": True,
                "channel_dropout": 0.1,
                "attention_dropout": 0.0,
            },
        ),
        data=SegmentationDataSettings(root="", layout="tas_scores", split=1),
        loss=SegmentationLossSettings(smoothing=0.15),
        augment=SegmentationAugmentSettings(speed=0.5, noise=0.5, crop=0.3),
        optim=OptimSettings(name="adamw", lr=2e-3, weight_decay=1e-2),
        schedule=ScheduleSettings(name="cosine", warmup=2, min_lr=1e-5),
        clip_norm=1.0,
        ema_decay=0.98,
        batch_size=4,
        epochs=150,
        eval_every=150,
        save_every=150,
    )


@register_recipe(tags=["segmentation", "measured"])
def tas_scores_mstcn() -> SegmentationRecipe:
    """MS-TCN on the same scores, the same training.

    framecast train tas_scores_mstcn --data DATA/tas_scores/salads50_mid --splits all
    """
    config = {"num_stages": 3, "num_layers": 7, "standardise": True}
    return _other_model(
        tas_scores_ltcontext(), "tas_scores_mstcn", ModelSettings(name="mstcn", config=config)
    )
