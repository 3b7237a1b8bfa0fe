"""Maps ahead: vegetation, temperature, rain and drought from cubes of climate and satellite data.

framecast train vegetation --data my_region/cube.yaml       # targets, leads and years as the YAML says
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.map_recipe import MapAugmentSettings, MapDataSettings, MapLossSettings, MapRecipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings

# A hundredth of the published network: enough for some hundred small maps. The settings are those of all
# families, so that `--set model.name=focal_tsmp_swin` is all it takes to have another one.
SMALL = {
    "widths": (12, 24, 48),
    "depths": (1, 1, 1),
    "decoder_depths": (1, 1, 1),
    "focal_levels": (2, 2, 2),
    "decoder_focal_levels": (2, 2, 2),
    "heads": (2, 2, 4),
    "decoder_heads": (2, 2, 2),
    "window": 4,
}


@register_recipe(tags=["earth", "maps"])
def vegetation() -> MapRecipe:
    """Vegetation or any other target of your own cube, one to six steps ahead, by a small focal network.

    The network reads the last twelve maps, the targets' own among them, and corrects the newest departure
    from the climatology of the training years, which is damped with the lead. Measured in
    results/earth_maps: skill 0.31 one half-month ahead at Kilimanjaro, of which most is that departure. Half
    a minute per seed on one CPU core for maps of 10 x 10 cells.

        framecast train vegetation --data my_region/cube.yaml --seeds 0,1,2
        framecast train vegetation --data cube.yaml --set data.leads=[1,2] --set model.name=focal_tsmp_swin
    """
    return MapRecipe(
        name="vegetation",
        model=ModelSettings(name="focal_tsmp", config=SMALL | {"drop_path": 0.1, "dropout": 0.3}),
        data=MapDataSettings(
            root="",
            steps=12,
            leads=(1, 2, 4, 6),
            past_targets=True,
            season=True,
            place=True,
            anomalies=True,
            corrects=True,
            periods=24,
        ),
        loss=MapLossSettings(difference="l2"),
        augment=MapAugmentSettings(noise=0.5),
        optim=OptimSettings(name="adamw", lr=5e-4, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="cosine", warmup=1),
        epochs=8,
        batch_size=32,
        clip_norm=1.0,
        ema_decay=0.98,
        eval_every=2,
        save_every=8,
        keep_last=1,
        select="skill",
    )


@register_recipe(tags=["earth", "maps"])
def downscaling() -> MapRecipe:
    """What is observed on the day of a simulated or analysed weather map, on a finer grid: focal network.

    Measured in results/earth_maps on the Iberian peninsula: temperature to 1.52 K and rain to 3.04 mm a day
    (RMSE), level with ridge regression and gradient boosting. Four minutes per seed on one CPU core.

        framecast train downscaling --data iberia/cube.yaml --seeds 0,1,2
    """
    base = vegetation()
    changes = {"steps": 1, "leads": (0,), "past_targets": False, "corrects": False, "periods": 36}
    return base.model_copy(
        update={
            "name": "downscaling",
            "model": ModelSettings(name="focal_tsmp", config=SMALL | {"drop_path": 0.0, "dropout": 0.0}),
            "data": base.data.model_copy(update=changes),
            "augment": MapAugmentSettings(),
            "ema_decay": None,
            "optim": base.optim.model_copy(update={"lr": 3e-3}),
            "epochs": 12,
            "save_every": 12,
            "eval_every": 3,
            "batch_size": 16,
        }
    )


@register_recipe(tags=["earth", "maps", "published"], paper="https://doi.org/10.5194/gmd-17-2987-2024")
def focal_tsmp_terrsysmp() -> MapRecipe:
    """Focal-TSMP on TerrSysMP-NET as published: NDVI MAE 0.027, BT MAE 1.90 K per week on the test years.

    The release also weighs differences of VGG19's features by 0.1 (--set loss.perceptual=vgg19.safetensors,
    a file of yours), and averages two days drawn from each week, where this one averages all seven and adds
    noise to the simulated maps alone. Chosen by the error of BT, not by the loss. Days on one GPU.

        framecast train focal_tsmp_terrsysmp --data DATA/terrsysmp
    """
    return MapRecipe(
        name="focal_tsmp_terrsysmp",
        model=ModelSettings(name="focal_tsmp"),
        data=MapDataSettings(
            root="",
            targets=("BT", "NDVI"),
            leads=(0,),
            vegetation="NDVI",
            temperature="BT",
            keep_mb=0,
        ),
        loss=MapLossSettings(difference="l1"),
        augment=MapAugmentSettings(noise=0.01, flip=True, turn=True),
        optim=OptimSettings(name="adamw", lr=3e-4, weight_decay=0.05, no_decay="vectors"),
        schedule=ScheduleSettings(name="step", step_size=16, gamma=0.9),
        epochs=100,
        batch_size=1,
        seed=43,
        select="BT: mae",
        select_mode="min",
        activation_checkpointing=True,
    )
