"""Kinetics-400 and Something-Something V2 as published: VideoMamba and, alike, StableMamba.

Training starts from ImageNet weights: the run of the ImageNet recipe, or `--set weights=FILE` for released
ones. 8 frames unless told; for more frames `--set model.config.num_frames=16`, and so on.
VideoMamba's learning rates are given per 256 augmented clips; every clip is read once and augmented twice.
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings
from framecast.train.recognition_recipe import (
    RecognitionAugmentSettings,
    RecognitionDataSettings,
    RecognitionLossSettings,
    RecognitionRecipe,
)

AUGMENT = RecognitionAugmentSettings(
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    augment_first=True,
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeats=2,
)
WEAK = AUGMENT.model_copy(update={"rand_augment": "rand-m5-n2-mstd0.25-inc1"})  # of the tiny models
KINETICS = RecognitionDataSettings(root="", layout="lists", sampling="sparse", protocol="kinetics/3x4")
SSV2 = RecognitionDataSettings(root="", layout="ssv2", sampling="segments", protocol="ssv2/3x2")


def fine_tuned(
    name: str,
    model: str,
    data: RecognitionDataSettings,
    *,
    lr: float,
    epochs: int,
    drop_path: float,
    weight_decay: float,
    weights: str,
    batch: int = 512,
    frames: int = 8,
    layer_decay: float | None = None,
    hflip: float = 0.5,
    expected: str,
) -> RecognitionRecipe:
    """VideoMamba's fine-tuning on clips. lr: per 256 augmented clips. batch: clips in a step."""
    scale = batch * AUGMENT.repeats / 256
    augment = WEAK if model.endswith("tiny") else AUGMENT
    return RecognitionRecipe(
        name=name,
        model=ModelSettings(name=model, config={"num_frames": frames, "drop_path": drop_path}),
        data=data,
        augment=augment.model_copy(update={"hflip": hflip}),
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(
            name="adamw",
            lr=lr * scale,
            weight_decay=weight_decay,
            no_decay="vectors",
            layer_decay=layer_decay,
        ),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=5, min_lr=1e-6 * scale),
        weights=weights,
        batch_size=batch,
        epochs=epochs,
        precision="bf16",
        num_workers=10,
        eval_every=5,
        select="top1",
        expected=expected,
    )


def as_stablemamba(recipe: RecognitionRecipe) -> RecognitionRecipe:
    """A VideoMamba's recipe for the StableMamba of its size: from its own weights, gradients are clipped."""
    model = recipe.model.model_copy(update={"name": stable(recipe.model.name)})
    return recipe.model_copy(
        update={
            "name": stable(recipe.name),
            "model": model,
            "weights": stable(recipe.weights or ""),
            "clip_norm": 5.0,
            "expected": "above VideoMamba (published: up to +1.7 points)",
        }
    )


def stable(name: str) -> str:
    return name.replace("videomamba", "stablemamba")


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def kinetics_videomamba_tiny() -> RecognitionRecipe:
    """VideoMamba-Ti on Kinetics-400, 8 frames: top-1 76.9 (published).

    framecast train kinetics_videomamba_tiny --data /data/kinetics
    """
    return fine_tuned(
        "kinetics_videomamba_tiny",
        "videomamba_tiny",
        KINETICS,
        lr=2e-4,
        epochs=70,
        drop_path=0.1,
        weight_decay=0.1,
        weights="runs/imagenet_videomamba_tiny",
        expected="top-1 76.9 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def kinetics_videomamba_small() -> RecognitionRecipe:
    """VideoMamba-S on Kinetics-400, 8 frames: top-1 79.3 (published).

    framecast train kinetics_videomamba_small --data /data/kinetics
    """
    return fine_tuned(
        "kinetics_videomamba_small",
        "videomamba_small",
        KINETICS,
        lr=2e-4,
        epochs=50,
        drop_path=0.35,
        weight_decay=0.05,
        weights="runs/imagenet_videomamba_small",
        expected="top-1 79.3 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def kinetics_videomamba_middle() -> RecognitionRecipe:
    """VideoMamba-M on Kinetics-400, 8 frames: top-1 80.6 (published).

    framecast train kinetics_videomamba_middle --data /data/kinetics
    """
    return fine_tuned(
        "kinetics_videomamba_middle",
        "videomamba_middle",
        KINETICS,
        lr=2e-4,
        epochs=50,
        drop_path=0.8,
        weight_decay=0.05,
        weights="runs/imagenet_videomamba_middle",
        expected="top-1 80.6 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def kinetics_videomamba_middle_mask() -> RecognitionRecipe:
    """VideoMamba-M on Kinetics-400 from masked pre-training, 8 frames: top-1 82.0 (published).

    Start from the released or your own pre-trained weights: `--set weights=FOLDER`.

        framecast train kinetics_videomamba_middle_mask --data /data/kinetics
    """
    return fine_tuned(
        "kinetics_videomamba_middle_mask",
        "videomamba_middle",
        KINETICS,
        lr=1e-4,
        epochs=45,
        drop_path=0.4,
        weight_decay=0.05,
        weights="runs/pretrained_videomamba_middle",
        layer_decay=0.8,
        expected="top-1 82.0 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def kinetics_stablemamba_tiny() -> RecognitionRecipe:
    """StableMamba-Ti on Kinetics-400, 8 frames: VideoMamba's recipe, no teacher.

    framecast train kinetics_stablemamba_tiny --data /data/kinetics
    """
    return as_stablemamba(kinetics_videomamba_tiny())


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def kinetics_stablemamba_small() -> RecognitionRecipe:
    """StableMamba-S on Kinetics-400, 8 frames: VideoMamba's recipe, no teacher.

    framecast train kinetics_stablemamba_small --data /data/kinetics
    """
    return as_stablemamba(kinetics_videomamba_small())


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def kinetics_stablemamba_middle() -> RecognitionRecipe:
    """StableMamba-M on Kinetics-400, 8 frames: VideoMamba's recipe, no teacher.

    framecast train kinetics_stablemamba_middle --data /data/kinetics
    """
    return as_stablemamba(kinetics_videomamba_middle())


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def ssv2_videomamba_tiny() -> RecognitionRecipe:
    """VideoMamba-Ti on Something-Something V2, 8 frames: top-1 65.1 (published).

    framecast train ssv2_videomamba_tiny --data /data/ssv2
    """
    return fine_tuned(
        "ssv2_videomamba_tiny",
        "videomamba_tiny",
        SSV2,
        lr=4e-4,
        epochs=35,
        drop_path=0.1,
        weight_decay=0.1,
        weights="runs/imagenet_videomamba_tiny",
        hflip=0.0,
        expected="top-1 65.1 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def ssv2_videomamba_small() -> RecognitionRecipe:
    """VideoMamba-S on Something-Something V2, 8 frames: top-1 66.6 (published).

    framecast train ssv2_videomamba_small --data /data/ssv2
    """
    return fine_tuned(
        "ssv2_videomamba_small",
        "videomamba_small",
        SSV2,
        lr=4e-4,
        epochs=30,
        drop_path=0.35,
        weight_decay=0.05,
        weights="runs/imagenet_videomamba_small",
        hflip=0.0,
        expected="top-1 66.6 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def ssv2_videomamba_middle() -> RecognitionRecipe:
    """VideoMamba-M on Something-Something V2, 8 frames: top-1 67.3 (published).

    framecast train ssv2_videomamba_middle --data /data/ssv2
    """
    return fine_tuned(
        "ssv2_videomamba_middle",
        "videomamba_middle",
        SSV2,
        lr=4e-4,
        epochs=30,
        drop_path=0.8,
        weight_decay=0.05,
        weights="runs/imagenet_videomamba_middle",
        hflip=0.0,
        expected="top-1 67.3 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2403.06977")
def ssv2_videomamba_middle_mask() -> RecognitionRecipe:
    """VideoMamba-M on Something-Something V2 from masked pre-training, 8 frames: top-1 70.2 (published).

    Start from the released or your own pre-trained weights: `--set weights=FOLDER`.

        framecast train ssv2_videomamba_middle_mask --data /data/ssv2
    """
    return fine_tuned(
        "ssv2_videomamba_middle_mask",
        "videomamba_middle",
        SSV2,
        lr=1e-4,
        epochs=30,
        drop_path=0.4,
        weight_decay=0.05,
        weights="runs/pretrained_videomamba_middle",
        layer_decay=0.8,
        hflip=0.0,
        expected="top-1 70.2 with 8 frames (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def ssv2_stablemamba_tiny() -> RecognitionRecipe:
    """StableMamba-Ti on Something-Something V2, 8 frames: VideoMamba's recipe, no teacher.

    framecast train ssv2_stablemamba_tiny --data /data/ssv2
    """
    return as_stablemamba(ssv2_videomamba_tiny())


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def ssv2_stablemamba_small() -> RecognitionRecipe:
    """StableMamba-S on Something-Something V2, 8 frames: VideoMamba's recipe, no teacher.

    framecast train ssv2_stablemamba_small --data /data/ssv2
    """
    return as_stablemamba(ssv2_videomamba_small())


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2409.11867")
def ssv2_stablemamba_middle() -> RecognitionRecipe:
    """StableMamba-M on Something-Something V2, 8 frames: VideoMamba's recipe, no teacher.

    framecast train ssv2_stablemamba_middle --data /data/ssv2
    """
    return as_stablemamba(ssv2_videomamba_middle())
