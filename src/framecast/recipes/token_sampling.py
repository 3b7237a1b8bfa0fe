"""Fine-tuning through Adaptive Token Sampling, and scoring a trained ViT with it as it is.

framecast train cifar_vit --data DATA/cifar10_small
framecast adapt runs/cifar_vit --macs 50% --out adapted           # no training
framecast train cifar_vit_ats --data DATA/cifar10_small --set weights=adapted

Weights are those of a ViT that was trained. Where they come from a model that `framecast adapt` has made, the
blocks and budgets are its own too; else all of the tokens may stay, as in the release, and the sampling alone
says how many do. Gradients pass through what is kept, the choice itself is a constant.
`--set steps=0` trains nothing: the model is scored as it is and saved.
"""

from __future__ import annotations

from framecast.recipes.imagenet import AUGMENT
from framecast.recipes.recognition import VIT, cifar_vit, recognition
from framecast.registry import register_recipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings
from framecast.train.recognition_recipe import (
    RecognitionAugmentSettings,
    RecognitionDataSettings,
    RecognitionLossSettings,
    RecognitionRecipe,
)


def _imagenet(name: str, model: str, weights: str, expected: str) -> RecognitionRecipe:
    """DeiT's augmentation, a small learning rate. Images come three times in a batch: 30 epochs are 10."""
    return RecognitionRecipe(
        name=name,
        model=ModelSettings(name=model, config={"drop_path": 0.1}),
        weights=weights,
        data=RecognitionDataSettings(root=""),
        augment=AUGMENT,
        loss=RecognitionLossSettings(smoothing=0.1),
        optim=OptimSettings(name="adamw", lr=5e-4, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="warmup_cosine", warmup=1, min_lr=1e-6),
        batch_size=round(1024 / 3),
        epochs=10,
        precision="bf16",
        num_workers=10,
        expected=expected,
    )


@register_recipe(tags=["recognition", "ats", "published"], paper="https://arxiv.org/abs/2111.15667")
def imagenet_deit_small_ats() -> RecognitionRecipe:
    """DeiT-S fine-tuned through sampling on ImageNet-1K: top-1 79.7 at 2.9 G MACs (published, of 4.6 G).

    framecast train imagenet_deit_small_ats --data /data/imagenet
    framecast train imagenet_deit_small_ats --data /data/imagenet --set weights=runs/imagenet_deit_small
    """
    return _imagenet(
        "imagenet_deit_small_ats",
        "deit_small_ats",
        "facebook/deit-small-patch16-224",
        "top-1 79.7 at 2.9 G MACs (published)",
    )


@register_recipe(tags=["recognition", "ats", "published"], paper="https://arxiv.org/abs/2111.15667")
def imagenet_deit_small_ats_as_it_is() -> RecognitionRecipe:
    """DeiT-S with sampling on ImageNet-1K as it is: nothing is trained, it is scored and saved.

    Minutes on one GPU.

        framecast train imagenet_deit_small_ats_as_it_is --data /data/imagenet
    """
    changes = {"name": "imagenet_deit_small_ats_as_it_is", "steps": 0, "epochs": None, "expected": ""}
    return imagenet_deit_small_ats().model_copy(update=changes)


@register_recipe(tags=["recognition", "ats"], paper="https://arxiv.org/abs/2111.15667")
def imagenet_deit_tiny_ats() -> RecognitionRecipe:
    """DeiT-Ti fine-tuned through sampling on ImageNet-1K, as DeiT-S; nothing is published of it.

    framecast train imagenet_deit_tiny_ats --data /data/imagenet
    """
    return _imagenet("imagenet_deit_tiny_ats", "deit_tiny_ats", "facebook/deit-tiny-patch16-224", "")


@register_recipe(tags=["recognition", "ats"], paper="https://arxiv.org/abs/2111.15667")
def imagenet_deit_base_ats() -> RecognitionRecipe:
    """DeiT-B fine-tuned through sampling on ImageNet-1K, as DeiT-S; nothing is published of it.

    framecast train imagenet_deit_base_ats --data /data/imagenet
    """
    return _imagenet("imagenet_deit_base_ats", "deit_base_ats", "facebook/deit-base-patch16-224", "")


@register_recipe(tags=["recognition", "ats", "own data"], paper="https://arxiv.org/abs/2111.15667")
def recognition_ats() -> RecognitionRecipe:
    """Your own image ViT, made cheaper by `framecast adapt`, learns to do with the tokens that it keeps.

    The learning rate is small, and smaller in early blocks. Minutes on a GPU for thousands of images.

        framecast train recognition --data my_folder
        framecast adapt runs/recognition --macs 50% --out adapted
        framecast train recognition_ats --data my_folder --set weights=adapted
    """
    return recognition().model_copy(
        update={
            "name": "recognition_ats",
            "model": ModelSettings(name="deit_small_ats", config={"image_size": 224, "drop_path": 0.1}),
            "weights": "adapted",
            "trainable": "all",
            "augment": RecognitionAugmentSettings(scale=(0.3, 1.0)),
            "optim": OptimSettings(
                name="adamw", lr=1e-4, weight_decay=0.05, no_decay="vectors", layer_decay=0.75
            ),
            "schedule": ScheduleSettings(name="warmup_cosine", warmup=1, min_lr=1e-6),
            "clip_norm": 1.0,
            "epochs": 10,
            "eval_every": 5,
            "save_every": 5,
        }
    )


@register_recipe(tags=["recognition", "ats", "measured"], paper="https://arxiv.org/abs/2111.15667")
def cifar_vit_ats() -> RecognitionRecipe:
    """The ViT of `cifar_vit`, fine-tuned through sampling for 3 epochs on the same 5,000 images.

    framecast train cifar_vit --data DATA/cifar10_small
    framecast train cifar_vit_ats --data DATA/cifar10_small
    framecast train cifar_vit_ats --data DATA/cifar10_small --set model.config.budget=0.3
    framecast train cifar_vit_ats --data DATA/cifar10_small --set weights=adapted
    """
    plain = cifar_vit()
    config = {"image_size": 32, "patch_size": 4, "drop_path": 0.1, **VIT}
    return plain.model_copy(
        update={
            "name": "cifar_vit_ats",
            "model": ModelSettings(name="deit_tiny_ats", config=config),
            "weights": "runs/cifar_vit",
            "optim": plain.optim.model_copy(update={"lr": 3e-4}),
            "schedule": ScheduleSettings(name="cosine"),
            "epochs": 3,
            "eval_every": 3,
        }
    )
