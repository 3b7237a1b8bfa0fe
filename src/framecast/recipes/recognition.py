"""Recognition on your own images and clips, and small comparisons that are measured here on a CPU.

framecast train recognition --data my_folder          # a folder per class
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


@register_recipe(tags=["recognition", "own data"])
def recognition() -> RecognitionRecipe:
    """A linear classifier on frozen DINOv2 features, for your own folder of images or clips, a class each.

    The best start for tens to hundreds of files: every file goes through the backbone once, then an epoch
    takes no time. Without a test side a fifth of the files is held back.

        framecast train recognition --data my_folder
    """
    return RecognitionRecipe(
        name="recognition",
        model=ModelSettings(name="vit_small_dinov2", config={"image_size": 224}),
        weights="known",
        trainable="head",
        data=RecognitionDataSettings(root="", frames=8),
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(name="adamw", lr=3e-3, weight_decay=1e-2),
        schedule=ScheduleSettings(name="cosine"),
        batch_size=16,
        epochs=100,
        eval_every=100,
        save_every=100,
    )


@register_recipe(tags=["recognition", "own data"])
def recognition_scratch() -> RecognitionRecipe:
    """A small StableMamba from random weights on your own clips, for thousands of files or other looks.

    For images set model.config.num_frames=null.

        framecast train recognition_scratch --data my_folder
    """
    return RecognitionRecipe(
        name="recognition_scratch",
        model=ModelSettings(
            name="stablemamba_tiny", config={"image_size": 112, "num_frames": 8, "depth": 8, "drop_path": 0.1}
        ),
        data=RecognitionDataSettings(root=""),
        augment=RecognitionAugmentSettings(scale=(0.3, 1.0), erasing=0.25),
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(name="adamw", lr=5e-4, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=5, min_lr=1e-5),
        clip_norm=5.0,
        batch_size=16,
        epochs=60,
        eval_every=10,
        save_every=5,
    )


# Measured: three architectures of equal size, trained alike ----------------------------------------------


def _images(name: str, model: ModelSettings) -> RecognitionRecipe:
    """5,000 images of CIFAR-10, 32 x 32 pixels in patches of 4: 65 tokens."""
    config = {"image_size": 32, "patch_size": 4, "drop_path": 0.1}
    return RecognitionRecipe(
        name=name,
        model=ModelSettings(name=model.name, config=config | model.config),
        data=RecognitionDataSettings(root=""),
        augment=RecognitionAugmentSettings(scale=None, pad=4, mixup=0.2),
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(name="adamw", lr=2e-3, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=3, min_lr=1e-5),
        clip_norm=5.0,
        batch_size=100,
        epochs=25,
        eval_every=5,
        save_every=5,
    )


def _clips(name: str, model: ModelSettings) -> RecognitionRecipe:
    """210 clips cut from ceiling-camera videos: 8 frames of 64 x 64 pixels in patches of 16, 129 tokens."""
    config = {"image_size": 64, "patch_size": 16, "num_frames": 8, "drop_path": 0.1}
    return RecognitionRecipe(
        name=name,
        model=ModelSettings(name=model.name, config=config | model.config),
        data=RecognitionDataSettings(root="", layout="segments", split=1, keep_mb=1000),
        augment=RecognitionAugmentSettings(scale=(0.4, 1.0), erasing=0.25),
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(name="adamw", lr=2e-3, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=3, min_lr=1e-5),
        clip_norm=5.0,
        batch_size=20,
        epochs=100,
        eval_every=20,
        save_every=50,
    )


VIT = {"width": 64, "depth": 6, "num_heads": 2}
VIDEOMAMBA = {"width": 64, "depth": 7}
STABLEMAMBA = {"width": 64, "depth": 7, "pattern": "3:1"}


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2010.11929")
def cifar_vit() -> RecognitionRecipe:
    """A ViT of 0.3 M parameters on 5,000 images of CIFAR-10.

    framecast train cifar_vit --data DATA/cifar10_small --seeds 0,1,2
    """
    return _images("cifar_vit", ModelSettings(name="vit_tiny", config=VIT))


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2403.06977")
def cifar_videomamba() -> RecognitionRecipe:
    """VideoMamba of as many parameters on the same images, the same training.

    framecast train cifar_videomamba --data DATA/cifar10_small --seeds 0,1,2
    """
    return _images("cifar_videomamba", ModelSettings(name="videomamba_tiny", config=VIDEOMAMBA))


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2409.11867")
def cifar_stablemamba() -> RecognitionRecipe:
    """StableMamba (3:1) of as many parameters on the same images, the same training.

    framecast train cifar_stablemamba --data DATA/cifar10_small --seeds 0,1,2
    """
    return _images("cifar_stablemamba", ModelSettings(name="stablemamba_tiny", config=STABLEMAMBA))


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2010.11929")
def fir_clips_vit() -> RecognitionRecipe:
    """A joint space-time ViT of 0.4 M parameters on 210 clips of 9 actions, split by source video.

    framecast train fir_clips_vit --data DATA/fir_actions --splits 1,2 --seeds 0,1,2
    """
    return _clips("fir_clips_vit", ModelSettings(name="vit_tiny_joint", config=VIT))


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2403.06977")
def fir_clips_videomamba() -> RecognitionRecipe:
    """VideoMamba of as many parameters on the same clips, the same training.

    framecast train fir_clips_videomamba --data DATA/fir_actions --splits 1,2 --seeds 0,1,2
    """
    return _clips("fir_clips_videomamba", ModelSettings(name="videomamba_tiny", config=VIDEOMAMBA))


@register_recipe(tags=["recognition", "measured"], paper="https://arxiv.org/abs/2409.11867")
def fir_clips_stablemamba() -> RecognitionRecipe:
    """StableMamba (3:1) of as many parameters on the same clips, the same training.

    framecast train fir_clips_stablemamba --data DATA/fir_actions --splits 1,2 --seeds 0,1,2
    """
    return _clips("fir_clips_stablemamba", ModelSettings(name="stablemamba_tiny", config=STABLEMAMBA))


@register_recipe(tags=["recognition", "measured", "baseline"], paper="https://arxiv.org/abs/2304.07193")
def fir_clips_dinov2_head() -> RecognitionRecipe:
    """A linear classifier on frozen DINOv2 features of the same clips, 8 frames averaged.

    framecast train fir_clips_dinov2_head --data DATA/fir_actions --splits 1,2 --seeds 0,1,2
    """
    data = RecognitionDataSettings(root="", layout="segments", split=1, frames=8)
    return recognition().model_copy(update={"name": "fir_clips_dinov2_head", "data": data})
