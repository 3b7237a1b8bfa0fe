"""Video Transformers on Kinetics-400 as published: TimeSformer and XViT.

Training starts from an image ViT: `--set weights=FILE`, DeiT or ImageNet-21k weights of ViT-B/16.
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


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2102.05095")
def kinetics_timesformer() -> RecognitionRecipe:
    """TimeSformer, 8 frames of 224 pixels, every 32nd frame: top-1 77.9 on 3 crops (published).

    framecast train kinetics_timesformer --data /data/kinetics --set weights=vit_base.pth
    """
    return RecognitionRecipe(
        name="kinetics_timesformer",
        model=ModelSettings(name="timesformer_base", config={"drop_path": 0.1}),
        data=RecognitionDataSettings(
            root="", layout="lists", sampling="dense", stride=32, fps=30, protocol="timesformer/3x1"
        ),
        augment=RecognitionAugmentSettings(scale=None, short_side=(256, 320), interpolation="bilinear"),
        optim=OptimSettings(name="sgd", lr=0.005, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleSettings(name="step", milestones=(11, 14), gamma=0.1),
        weights="runs/imagenet_deit_base",
        batch_size=64,
        epochs=15,
        precision="bf16",
        num_workers=10,
        expected="top-1 77.9 with 3 crops of one clip (published)",
    )


@register_recipe(tags=["recognition", "published"], paper="https://arxiv.org/abs/2106.05968")
def kinetics_xvit() -> RecognitionRecipe:
    """XViT, 16 frames, every 16th, on Kinetics-400; Kinetics-600 top-1 84.5 on 3 crops (published).

    framecast train kinetics_xvit --data /data/kinetics --set weights=vit_base_in21k.npz
    """
    return RecognitionRecipe(
        name="kinetics_xvit",
        model=ModelSettings(name="xvit_base", config={"num_frames": 16}),
        data=RecognitionDataSettings(
            root="", layout="lists", sampling="dense", stride=16, protocol="xvit/3x1"
        ),
        augment=RecognitionAugmentSettings(rand_augment="rand-m9-mstd0.5-inc1", mixup=0.4),
        loss=RecognitionLossSettings(smoothing=0.3),
        optim=OptimSettings(name="sgd", lr=0.03, momentum=0.9, weight_decay=1e-5),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=5),
        weights="runs/imagenet_deit_base",
        batch_size=64,
        epochs=30,
        precision="bf16",
        num_workers=10,
        expected="Kinetics-600: top-1 84.5 with 3 crops of one clip (published)",
    )
