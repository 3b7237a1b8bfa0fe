"""Recipes for temporal action segmentation: the published settings, and small ones measured here.

    framecast train breakfast_ltcontext --data /data/breakfast --splits all

Every recipe stands for one split; `--splits all` runs and averages them, as the literature reports.
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings
from framecast.train.segmentation_recipe import (
    SegmentationDataSettings,
    SegmentationLossSettings,
    SegmentationRecipe,
)

LTCONTEXT_OPTIM = OptimSettings(name="adam", lr=2.5e-4, weight_decay=1e-3)


@register_recipe(tags=["segmentation", "published"], paper="https://arxiv.org/abs/2308.11358")
def breakfast_ltcontext() -> SegmentationRecipe:
    """LTContext on Breakfast I3D features as published: F1@50 60.1, accuracy 74.2 (mean of 4 splits).

    About a day on one GPU for the four splits (150 epochs, one video a step).

        framecast train breakfast_ltcontext --data /data/breakfast --splits all
    """
    return SegmentationRecipe(
        name="breakfast_ltcontext",
        model=ModelSettings(name="ltcontext", config={"num_stages": 4, "window": 64, "stride": 8}),
        data=SegmentationDataSettings(root="", layout="breakfast", split=1, feature_dim=2048),
        loss=SegmentationLossSettings(smoothing=0.17),
        optim=LTCONTEXT_OPTIM,
        schedule=ScheduleSettings(name="cosine", hold=15, t_max=165, min_lr=5e-5),
        epochs=150,
        eval_every=10,
        save_every=2,
        seed=115,
        expected="F1@10/25/50 77.6/72.6/60.1, edit 77.0, accuracy 74.2 (published, mean of 4 splits)",
    )


@register_recipe(tags=["segmentation", "published"], paper="https://arxiv.org/abs/2308.11358")
def assembly101_ltcontext() -> SegmentationRecipe:
    """LTContext on Assembly101 TSM features as published: F1@50 22.6, accuracy 41.2 on validation.

    Several days on one GPU (4684 clips an epoch, up to 30,000 frames each, 120 epochs).

        framecast train assembly101_ltcontext --data /data/assembly101
    """
    base = breakfast_ltcontext()
    return base.model_copy(
        update={
            "name": "assembly101_ltcontext",
            "model": ModelSettings(name="ltcontext", config={"num_stages": 4, "window": 64, "stride": 64}),
            "data": SegmentationDataSettings(
                root="", layout="assembly101", features="TSM_features", feature_dim=2048
            ),
            "schedule": ScheduleSettings(name="cosine", hold=15, t_max=105, min_lr=5e-5),
            "epochs": 120,
            "save_every": 1,
            "seed": 1115,
            "expected": "F1@10/25/50 33.9/30.0/22.6, edit 30.4, accuracy 41.2 (published, validation)",
        }
    )


@register_recipe(tags=["segmentation"], paper="https://arxiv.org/abs/2308.11358")
def salads50_ltcontext() -> SegmentationRecipe:
    """LTContext on 50Salads I3D features at 15 frames per second; its settings were never released.

    Ours are those of Breakfast with every 64th frame in the long-term attention, since videos are longer.
    Published: F1@50 82.0, accuracy 87.7 (mean of 5 splits). Half a day on one GPU.

        framecast train salads50_ltcontext --data /data/50salads --splits all
    """
    base = breakfast_ltcontext()
    return base.model_copy(
        update={
            "name": "salads50_ltcontext",
            "model": ModelSettings(name="ltcontext", config={"num_stages": 4, "window": 64, "stride": 64}),
            "data": SegmentationDataSettings(
                root="", layout="50salads", split=1, feature_dim=2048, sample_rate=2
            ),
            "expected": "F1@10/25/50 89.4/87.7/82.0, edit 83.2, accuracy 87.7 (published, mean of 5 splits)",
        }
    )


@register_recipe(tags=["segmentation", "published"], paper="https://arxiv.org/abs/1903.01945")
def breakfast_mstcn() -> SegmentationRecipe:
    """MS-TCN on Breakfast I3D features as published: 50 epochs of Adam at 5e-4, smoothing 0.15.

    framecast train breakfast_mstcn --data /data/breakfast --splits all
    """
    return SegmentationRecipe(
        name="breakfast_mstcn",
        model=ModelSettings(name="mstcn"),
        data=SegmentationDataSettings(root="", layout="breakfast", split=1, feature_dim=2048),
        optim=OptimSettings(name="adam", lr=5e-4),
        epochs=50,
        eval_every=10,
        save_every=2,
    )


@register_recipe(tags=["segmentation", "own data"])
def segmentation() -> SegmentationRecipe:
    """LTContext on your own folder of features and labels; a start that suits some tens of videos.

    Minutes on a laptop for 20 videos of a few minutes. Folders without splits are cut into 5 folds.

        framecast train segmentation --data my_folder
    """
    return SegmentationRecipe(
        name="segmentation",
        model=ModelSettings(name="ltcontext", config={"num_stages": 3, "num_layers": 9, "stride": 8}),
        data=SegmentationDataSettings(root="", split=1),
        loss=SegmentationLossSettings(smoothing=0.17),
        optim=OptimSettings(name="adamw", lr=5e-4, weight_decay=1e-2),
        schedule=ScheduleSettings(name="cosine", warmup=2, min_lr=1e-5),
        epochs=60,
        clip_norm=1.0,
        eval_every=20,
        save_every=10,
    )
