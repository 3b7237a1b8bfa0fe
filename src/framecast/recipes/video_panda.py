"""Video-Panda in three stages: eyes are aligned, everything is pre-trained, everything follows instructions.

The small ones have a language model of 135 M parameters and frames of 56 pixels, and train on a CPU.
"""

from __future__ import annotations

from framecast.registry import register_recipe
from framecast.train.recipe import ModelSettings, OptimSettings, ScheduleSettings
from framecast.train.video_qa_recipe import AlignmentSettings, VideoQaDataSettings, VideoQaRecipe

# What is trained, and how fast, by stage: (language model, learning rate, its factor for the eyes).
STAGES = {"align": ("frozen", 4e-5, 10.0), "pretrain": ("whole", 4e-5, 1.0), "tune": ("whole", 2e-5, 1.0)}
SMALL_EYES = {"width": 256, "image_size": 56, "patch_size": 7, "pool": 4, "dropout": 0.1}  # 7 tokens a frame


def published(stage: str, *, batch_size: int, warmup: int) -> VideoQaRecipe:
    """One stage on a cluster of 64 GPUs; the batch sizes are the paper's, four times those of the scripts."""
    tuning, lr, eyes = STAGES[stage]
    start = {"language_model": "lmsys/vicuna-7b-v1.5"} if stage == "align" else {}
    # a teacher that is at hand stands in for LanguageBind's video encoder, whose weights are not among ours
    teacher = AlignmentSettings(teacher="vit_small_dinov2") if stage == "align" else AlignmentSettings()
    factors = {"panda.stab": eyes, "teacher_alignment": eyes} if stage == "align" else {}
    return VideoQaRecipe(
        name=f"video_panda_{stage}",
        model=ModelSettings(name="video_panda", config={**start, "tuning": tuning}),
        data=VideoQaDataSettings(root="", layout="instructions", holdout=0, missing="leave-out"),
        alignment=teacher,
        optim=OptimSettings(name="adamw", lr=lr, lr_factors=factors),
        schedule=ScheduleSettings(name="cosine", per="step", warmup=warmup),
        epochs=1,
        batch_size=batch_size,
        accumulate=4,
        group_lengths=True,
        precision="bf16",
        parallel="fsdp",
        activation_checkpointing=True,
        num_workers=8,
        save_every_steps=50,
    )


@register_recipe(tags=["ask", "published"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_align() -> VideoQaRecipe:
    """First stage of Video-Panda: the eyes learn beside a frozen language model, on half of Valley-702k.

    64 GPUs, an epoch. The half is a file with half of the records. The published run starts from the eyes of
    EVE-7B, an image model (--set start=… where you have them imported), and has LanguageBind's teacher.

        framecast train video_panda_align --data DATA/train_json/valley_half.json
    """
    return published("align", batch_size=2048, warmup=5)


@register_recipe(tags=["ask", "published"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_pretrain() -> VideoQaRecipe:
    """Second stage of Video-Panda: everything learns, on Valley-702k. 64 GPUs, an epoch.

        framecast train video_panda_pretrain --data DATA/train_json/valley_.json \\
            --set start=runs/video_panda_align
    """
    return published("pretrain", batch_size=2048, warmup=3)


@register_recipe(tags=["ask", "published"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_tune() -> VideoQaRecipe:
    """Third stage of Video-Panda: everything, on Video-ChatGPT-100k; MSVD-QA 64.7, ActivityNet-QA 40.0.

    64 GPUs, an epoch; the scores are those that the paper's judge gave.

        framecast train video_panda_tune --data DATA/train_json/videochatgpt_tune_.json \\
            --set start=runs/video_panda_pretrain
    """
    return published("tune", batch_size=1024, warmup=1)


def small(stage: str, model: ModelSettings, *, lr: float, epochs: int, batch_size: int = 4) -> VideoQaRecipe:
    """A second per clip and its questions on one core; of the first stage a fortieth."""
    eyes = {} if stage == "align" else {"panda.stab": 0.1}  # which have learnt already
    return VideoQaRecipe(
        name=f"video_panda_small_{stage}",
        model=model,
        data=VideoQaDataSettings(root=""),
        optim=OptimSettings(name="adamw", lr=lr, weight_decay=0.05, no_decay="vectors", lr_factors=eyes),
        schedule=ScheduleSettings(name="cosine", per="step", warmup=10),
        clip_norm=1.0,
        precision="bf16",
        epochs=epochs,
        batch_size=batch_size,
        group_lengths=True,
        eval_every=epochs,
        save_every=1,
        max_new_tokens=24,
    )


@register_recipe(tags=["ask", "own data"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_small_align() -> VideoQaRecipe:
    """New eyes for a small language model, which learn what is said about which clip before it reads them.

        framecast train video_panda_small_align --data questions.csv --set model.config.language_model=FOLDER

    questions.csv has the columns video, question and answer. See results/video_panda. As published, through
    the layers of the language model and with a teacher: --set alignment.text=1 --set alignment.answers=0
    --set alignment.teacher=vit_small_dinov2.
    """
    config = {"stab": SMALL_EYES, "word_length": True, "template": "plain", "tuning": "frozen"}
    model = ModelSettings(name="video_panda", config=config)
    recipe = small("align", model, lr=1e-3, epochs=24, batch_size=16)
    direct = AlignmentSettings(text=0, answers=1, image_size=112, layer=9)  # the last two for a teacher
    return recipe.model_copy(update={"alignment": direct, "save_every": 8})


@register_recipe(tags=["ask", "own data"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_small_pretrain() -> VideoQaRecipe:
    """Eyes and a small language model learn together, best of all from sentences that tell a whole clip.

    Of the language model low-rank additions are learnt; --set model.config.tuning=whole for all of it.

        framecast train video_panda_small_pretrain --data captions.csv \\
            --set start=runs/video_panda_small_align
    """
    config = {"tuning": "lora"}
    return small("pretrain", ModelSettings(name="video_panda", config=config), lr=1e-3, epochs=1)


@register_recipe(tags=["ask", "own data"], paper="https://arxiv.org/abs/2412.18609")
def video_panda_small_tune() -> VideoQaRecipe:
    """The last stage: questions as they will be asked.

    framecast train video_panda_small_tune --data questions.csv --set start=runs/video_panda_small_pretrain
    """
    config = {"tuning": "lora"}
    return small("tune", ModelSettings(name="video_panda", config=config), lr=5e-4, epochs=2)
