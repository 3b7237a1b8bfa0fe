"""From a recipe of questions about videos to the task that trains: questions, start, teacher."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from framecast.backbones.stab import Stab
from framecast.checkpoints import load
from framecast.data.question_records import by_clip
from framecast.data.video_questions import Question, open_video_qa, split_by_source
from framecast.infer.backbone import open_backbone
from framecast.models.video_panda import VideoPanda
from framecast.models.video_panda_encoder import EncoderConfig, FrozenEncoder
from framecast.models.video_panda_teachers import is_transformers_folder, read_vision_teacher
from framecast.registry import create_model, entries
from framecast.tasks.video_qa import Teacher, VideoQaTask, Weights
from framecast.tasks.video_qa_samples import clip_settings
from framecast.train.video_qa_recipe import AlignmentSettings, VideoQaDataSettings, VideoQaRecipe

NO_DATA = "the recipe names no questions; pass --data FILE or FOLDER (or --set data.root=…)"


def video_qa_task(recipe: VideoQaRecipe) -> VideoQaTask:
    """Questions of both sides, and the task on them; errors name the file or setting."""
    learn, held = question_sides(recipe.data)
    held = some_clips(held, recipe.data.scored)
    config = model_config(recipe)
    encoder = open_encoder(config) if recipe.start is None else None
    with torch.device("meta"):  # what is wrong with the settings is said before a run folder is made
        shape = cast(VideoPanda, create_model(recipe.model.name, **config))

    def make() -> VideoPanda:
        model = cast(VideoPanda, create_model(recipe.model.name, **config))
        if recipe.start is not None:
            take_over(model, load(recipe.start))
        if encoder is not None and isinstance(model.stab, FrozenEncoder):
            model.stab.encoder.load_state_dict(encoder.state_dict())
        return model

    return VideoQaTask(
        learn,
        held,
        make=make,
        settings=clip_settings(shape),
        teacher=open_teacher(recipe.alignment),
        weights=weights_of(recipe),
        layer_step=recipe.alignment.layer_step,
        heads=recipe.alignment.heads,
        max_turns=recipe.data.max_turns,
        mirror=recipe.data.mirror,
        augment=recipe.data.augment,
        max_new_tokens=recipe.max_new_tokens,
        keep_mb=recipe.data.keep_mb,
        blind=recipe.blind,
        source=recipe.data.root,
    )


def weights_of(recipe: VideoQaRecipe) -> Weights:
    """What does not see has no eyes to align."""
    settings = recipe.alignment
    return Weights(settings.text, 0.0 if recipe.blind else settings.answers, settings.teacher_weight)


def question_sides(settings: VideoQaDataSettings) -> tuple[list[Question], list[Question]]:
    """Questions to learn from and to be scored on; the second list may be empty.

    Types are chosen after the division, so stages with questions of other types hold back the same videos.
    """
    if not settings.root:
        raise ValueError(NO_DATA)

    def opened(split: str | None) -> list[Question]:
        return list(
            open_video_qa(
                settings.root,
                settings.layout,
                videos=settings.videos,
                split=split,
                missing=settings.missing,
            )
        )

    if settings.train is not None:
        learn, held = opened(settings.train), opened(settings.test) if settings.test else []
    elif settings.holdout:
        learn, held = split_by_source(opened(None), settings.holdout, settings.holdout_seed)
    else:
        learn, held = opened(None), []
    known = {question.type for question in learn}
    if strangers := sorted(set(settings.types) - known):
        raise ValueError(
            f"data.types: no question to learn from is of type {strangers[0]!r}; there are "
            f"{', '.join(sorted(map(repr, known)))}"
        )
    wanted = set(settings.types) or known | {question.type for question in held}
    return [q for q in learn if q.type in wanted], [q for q in held if q.type in wanted]


def some_clips(questions: list[Question], count: int | None) -> list[Question]:
    """The questions about so many clips, evenly spread over all."""
    groups = by_clip(questions)
    if count is None or count >= len(groups):
        return questions
    return [q for i in range(count) for q in groups[i * len(groups) // count]]


def model_config(recipe: VideoQaRecipe) -> dict[str, Any]:
    """The recipe's settings of the model, over those of the model that it starts from."""
    config: dict[str, Any] = {}
    if recipe.start is not None:
        before: Any = load(recipe.start)
        if isinstance(before, Stab):
            config = {"stab": {k: v for k, v in asdict(before.config).items() if k != "llm_width"}}
        elif isinstance(before, VideoPanda):
            config = asdict(before.config)
        else:
            raise ValueError(
                f"{recipe.start} answers no questions; start from a run of the stage before, or from "
                "imported eyes"
            )
    given = dict(recipe.model.config)
    config["stab"] = {**config.get("stab", {}), **given.pop("stab", {})}
    return config | given


def open_encoder(config: dict[str, Any]) -> nn.Module | None:
    """The backbone of known weights that serves as eyes, if one does; its settings go into the config."""
    if not config.get("encoder"):
        return None
    given = {"name": EncoderConfig.name, **config["encoder"]}
    encoder = open_backbone(given["name"])[0]
    config["encoder"] = {**given, "config": asdict(cast(Any, encoder).config)}
    return encoder


def take_over(model: VideoPanda, before: Any) -> None:
    """Weights of the stage before, or of eyes alone; what they did not have stays as it is.

    Raises ValueError where shapes differ.
    """
    state = before.state_dict()
    if isinstance(before, Stab):
        state = {f"stab.{key}": tensor for key, tensor in state.items()}
    elif before.config.tuning != model.config.tuning:
        state = {key: tensor for key, tensor in state.items() if "lora_" not in key}
    wanted = model.state_dict()
    misshapen = [k for k, tensor in state.items() if k in wanted and wanted[k].shape != tensor.shape]
    if misshapen:
        raise ValueError(f"the start does not fit: {', '.join(misshapen[:4])} have other shapes")
    model.load_state_dict(state, strict=False)


def open_teacher(settings: AlignmentSettings) -> Teacher | None:
    """A backbone by name with its known weights, a saved model, or a folder of transformers, frozen."""
    if settings.teacher is None:
        return None
    model: Any
    if settings.teacher in entries("model"):
        model = open_backbone(settings.teacher)[0]
    elif is_transformers_folder(settings.teacher):
        model = read_vision_teacher(settings.teacher)
    else:
        model = load(settings.teacher)
    lacking = [n for n in ("forward_features", "num_prefix_tokens", "stride") if not hasattr(model, n)]
    if lacking:
        raise ValueError(f"{settings.teacher} gives no features of patches ({', '.join(lacking)} is missing)")
    return Teacher(model.eval().requires_grad_(False), settings.image_size, settings.layer)
