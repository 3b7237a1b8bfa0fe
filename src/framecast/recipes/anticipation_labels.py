"""Anticipation from label sequences alone, on a CPU: diffusion models and the networks of 2018.

What these reach stands in results/anticipation.
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.anticipation_recipe import (
    AnticipationDataSettings,
    AnticipationLossSettings,
    AnticipationRecipe,
    ObservedSettings,
    SamplingSettings,
)
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings

SMALL_MANTA = {"num_layers": 6, "width": 64, "beyond": "held", "noisy": "evidence"}
SMALL_GTDA = {"num_stages": 3, "num_layers": 7, "width": 64, "beyond": "held", "noisy": "evidence"}


def on_labels(name: str, model: ModelSettings, sample_rate: int, *, epochs: int = 10) -> AnticipationRecipe:
    """Ground-truth labels of the past in, one label every few seconds.

    Ours, not the papers': what is told beyond the past and of the noisy labels, the weights of rare classes,
    and how futures are drawn.
    """
    return AnticipationRecipe(
        name=name,
        model=model,
        data=AnticipationDataSettings(root="", sample_rate=sample_rate),
        observed=ObservedSettings(shares=(0.2, 0.3), redraw=0.7, redraw_range=(0.12, 0.40)),
        loss=AnticipationLossSettings(class_weight=0.7),
        optim=OptimSettings(name="adam", lr=2e-3),
        schedule=ScheduleSettings(name="cosine", min_lr=1e-5),
        clip_norm=1.0,
        sampling=SamplingSettings(samples=25, steps=4, draw="redrawn"),
        batch_size=16,
        group_lengths=True,
        epochs=epochs,
        ema_decay=0.99,
        eval_every=epochs,
        save_every=max(1, epochs // 4),
    )


@register_recipe(tags=["anticipation", "own data"], paper="https://arxiv.org/abs/2501.08837")
def anticipation() -> AnticipationRecipe:
    """MANTA on your own label sequences: what happened so far in, 25 futures out; no video, no features.

        framecast train anticipation --data my_folder

    With features beside the labels: --set data.observe=features (or both).
    """
    return on_labels("anticipation", ModelSettings(name="manta", config=SMALL_MANTA), sample_rate=30)


@register_recipe(tags=["anticipation", "measured"], paper="https://arxiv.org/abs/2501.08837")
def breakfast_labels_manta() -> AnticipationRecipe:
    """MANTA on the label sequences of Breakfast, a label every two seconds; see results/anticipation.

    framecast train breakfast_labels_manta --data DATA/breakfast --splits all
    """
    recipe = on_labels("breakfast_labels_manta", ModelSettings(name="manta", config=SMALL_MANTA), 30)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": 1})})


@register_recipe(tags=["anticipation", "measured"], paper="https://arxiv.org/abs/2407.11954")
def breakfast_labels_gtda() -> AnticipationRecipe:
    """GTDA on the label sequences of Breakfast, a label every two seconds; see results/anticipation.

    framecast train breakfast_labels_gtda --data DATA/breakfast --splits all
    """
    recipe = on_labels("breakfast_labels_gtda", ModelSettings(name="gtda", config=SMALL_GTDA), 30)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": 1})})


def salads(name: str, model: ModelSettings) -> AnticipationRecipe:
    """A label every five seconds; 40 training videos, so many epochs."""
    recipe = on_labels(name, model, 150, epochs=150)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": 1})})


@register_recipe(tags=["anticipation", "measured"], paper="https://arxiv.org/abs/2501.08837")
def salads50_labels_manta() -> AnticipationRecipe:
    """MANTA on the label sequences of 50Salads, a label every five seconds; see results/anticipation.

    framecast train salads50_labels_manta --data DATA/50salads --splits all
    """
    return salads("salads50_labels_manta", ModelSettings(name="manta", config=SMALL_MANTA))


@register_recipe(tags=["anticipation", "measured"], paper="https://arxiv.org/abs/2407.11954")
def salads50_labels_gtda() -> AnticipationRecipe:
    """GTDA on the label sequences of 50Salads, a label every five seconds; see results/anticipation.

    framecast train salads50_labels_gtda --data DATA/50salads --splits all
    """
    return salads("salads50_labels_gtda", ModelSettings(name="gtda", config=SMALL_GTDA))


def networks_of_2018(
    name: str, model: ModelSettings, *, batch_size: int, epochs: int, class_weight: float
) -> AnticipationRecipe:
    """Adam at 1e-3 as in the release; ours: a falling rate, fewer epochs, weights of rare classes."""
    return AnticipationRecipe(
        name=name,
        model=model,
        data=AnticipationDataSettings(root="", split=1),
        loss=AnticipationLossSettings(class_weight=class_weight),
        optim=OptimSettings(name="adam", lr=1e-3),
        schedule=ScheduleSettings(name="cosine", min_lr=1e-5),
        clip_norm=5.0,
        sampling=SamplingSettings(samples=1),
        protocol="anticipation/2018",
        batch_size=batch_size,
        epochs=epochs,
        eval_every=epochs,
        save_every=max(1, epochs // 4),
    )


@register_recipe(tags=["anticipation", "published", "measured"], paper="https://arxiv.org/abs/1804.00892")
def breakfast_rnn() -> AnticipationRecipe:
    """The recurrent network of 2018 on Breakfast's labels: MoC 60.4 / 50.4 / 45.3 / 40.4 at 20 % observed.

    framecast train breakfast_rnn --data DATA/breakfast --splits all
    """
    model = ModelSettings(name="anticipation_rnn", config={"dropout": 0.3})
    return networks_of_2018("breakfast_rnn", model, batch_size=32, epochs=6, class_weight=0.5)


@register_recipe(tags=["anticipation", "published", "measured"], paper="https://arxiv.org/abs/1804.00892")
def breakfast_cnn() -> AnticipationRecipe:
    """The convolutional network of 2018 on Breakfast: MoC 58.0 / 49.1 / 44.0 / 39.3 at 20 % observed.

    framecast train breakfast_cnn --data DATA/breakfast --splits all
    """
    model = ModelSettings(name="anticipation_cnn")
    return networks_of_2018("breakfast_cnn", model, batch_size=64, epochs=4, class_weight=0.5)


@register_recipe(tags=["anticipation", "published", "measured"], paper="https://arxiv.org/abs/1804.00892")
def salads50_rnn() -> AnticipationRecipe:
    """The recurrent network of 2018 on 50Salads' labels: MoC 42.3 / 31.2 / 25.2 / 16.8 at 20 % observed.

    framecast train salads50_rnn --data DATA/50salads --splits all
    """
    model = ModelSettings(name="anticipation_rnn", config={"dropout": 0.3, "time_units": 20.0})
    return networks_of_2018("salads50_rnn", model, batch_size=8, epochs=48, class_weight=0.3)


@register_recipe(tags=["anticipation", "published", "measured"], paper="https://arxiv.org/abs/1804.00892")
def salads50_cnn() -> AnticipationRecipe:
    """The convolutional network of 2018 on 50Salads' labels: MoC 36.1 / 27.6 / 21.4 / 15.5 at 20 % observed.

    framecast train salads50_cnn --data DATA/50salads --splits all
    """
    model = ModelSettings(name="anticipation_cnn")
    return networks_of_2018("salads50_cnn", model, batch_size=16, epochs=45, class_weight=0.0)
