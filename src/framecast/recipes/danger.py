"""Recipes for wildfire danger: your own cube, and LOAN as published on FireCube's samples.

framecast train danger --data my_region/cube.yaml
"""

from __future__ import annotations

from typing import Any

from framecast.registry import register_recipe
from framecast.train.danger_recipe import DangerDataSettings, DangerRecipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings


@register_recipe(tags=["danger", "own data"])
def danger() -> DangerRecipe:
    """LOAN on your own cube: burnt cells and twice as many others of the split `train`, scored on `val`.

    A learning rate for some thousand windows; the published one is made for many more. The weights with the
    best area under the ROC curve are kept.

        framecast train danger --data my_region/cube.yaml
    """
    return DangerRecipe(
        name="danger",
        model=ModelSettings(name="loan_cnn"),
        data=DangerDataSettings(root="", test_negatives=10),
        optim=OptimSettings(name="adam", lr=1e-3, weight_decay=1e-4, eps=1e-4),
        schedule=ScheduleSettings(name="cosine", min_lr=1e-5),
        clip_norm=5.0,
        batch_size=32,
        epochs=12,
        select="auroc",
    )


def _published(
    name: str, model: str, config: dict[str, Any] | None = None, expected: str = ""
) -> DangerRecipe:
    """Section 6 of the training script: all positives, 2 negatives each; scored on all of 2019."""
    return DangerRecipe(
        name=name,
        model=ModelSettings(name=model, config=config or {}),
        data=DangerDataSettings(root=""),
        optim=OptimSettings(name="adam", lr=3e-5, weight_decay=0.02, eps=1e-4),
        schedule=ScheduleSettings(name="step", step_size=23, gamma=0.1),
        batch_size=256,
        epochs=40,
        save_every=2,
        select="loss",
        select_mode="min",
        expected=expected,
    )


@register_recipe(tags=["danger", "published"], paper="https://arxiv.org/abs/2212.08208")
def loan_firecube() -> DangerRecipe:
    """LOAN on FireCube's samples as published: validation loss 0.2411 in the released checkpoint.

    `--data` is the folder with positives/ and negatives_clc/ (about 250 GB). Years before 2019 train, 2019
    chooses the weights, `framecast evaluate` scores the years after it.

        framecast train loan_firecube --data /data/firecube/npy/spatiotemporal
    """
    return _published("loan_firecube", "loan_cnn", expected="validation loss 0.2411 (released checkpoint)")


@register_recipe(tags=["danger", "published"], paper="https://arxiv.org/abs/2212.08208")
def loan_firecube_no_time() -> DangerRecipe:
    """LOAN without the day of the year on FireCube: validation loss 0.2440 in the released checkpoint.

    framecast train loan_firecube_no_time --data /data/firecube/npy/spatiotemporal
    """
    expected = "validation loss 0.2440 (released checkpoint)"
    return _published("loan_firecube_no_time", "loan_cnn_no_time", expected=expected)


@register_recipe(tags=["danger", "ablation"], paper="https://arxiv.org/abs/2212.08208")
def loan_firecube_no_location() -> DangerRecipe:
    """LOAN with the location heard in the head only: what location-aware normalisation is worth.

    framecast train loan_firecube_no_location --data /data/firecube/npy/spatiotemporal
    """
    return _published("loan_firecube_no_location", "loan_cnn", {"location_aware": False})


@register_recipe(tags=["danger", "baseline"], paper="https://arxiv.org/abs/2212.08208")
def swin3d_firecube() -> DangerRecipe:
    """The 3-D Swin that LOAN was compared with, trained like LOAN.

    framecast train swin3d_firecube --data /data/firecube/npy/spatiotemporal
    """
    return _published("swin3d_firecube", "loan_swin3d")


@register_recipe(tags=["danger", "baseline"], paper="https://arxiv.org/abs/2212.08208")
def timesformer_firecube() -> DangerRecipe:
    """The TimeSformer that LOAN was compared with, trained like LOAN.

    framecast train timesformer_firecube --data /data/firecube/npy/spatiotemporal
    """
    return _published("timesformer_firecube", "loan_timesformer")


@register_recipe(tags=["danger", "baseline"], paper="https://arxiv.org/abs/1506.04214")
def convlstm_firecube() -> DangerRecipe:
    """A ConvLSTM over the days of a window, the earlier baseline on FireCube, trained like LOAN.

    framecast train convlstm_firecube --data /data/firecube/npy/spatiotemporal
    """
    return _published("convlstm_firecube", "danger_convlstm")
