"""Recognition: classes are learnt, the head alone learns on frozen features, teachers stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import framecast as fc
from framecast.data.recognition_samples import load_views
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.infer.classifier import Classifier
from framecast.recipes.build import build_task, get_recipe, recognition_task
from framecast.registry import list_recipes
from framecast.tasks.recognition import RecognitionTask, classify
from framecast.train.loop import train
from framecast.train.recognition_recipe import RecognitionRecipe

SIZE = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 2}
VIT = SIZE | {"num_heads": 3}
CLIP = SIZE | {"num_frames": 4}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recognition_lookalike("folders", tmp_path_factory.mktemp("data") / "images", kind="image")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recognition_lookalike("folders", tmp_path_factory.mktemp("data") / "clips", kind="video")


def recipe(root: Path, model: str, config: dict[str, Any], **changes: Any) -> RecognitionRecipe:
    frames = 4 if root.name == "clips" and "num_frames" not in config else None
    values = {
        "name": "test",
        "model": {"name": model, "config": config},
        "data": {"root": str(root), "frames": frames},
        "augment": {"scale": None, "hflip": 0.0},
        "optim": {"lr": 3e-3},
        "batch_size": 8,
        "steps": 3,
    }
    return RecognitionRecipe.model_validate(values | changes)


def test_an_image_model_learns_shapes(images: Path, tmp_path: Path) -> None:
    task = build_task(recipe(images, "vit_tiny", VIT, steps=60, eval_every_steps=60))
    scores = train(recipe(images, "vit_tiny", VIT, steps=60, eval_every_steps=60), task, tmp_path / "run")
    chance = 100 / len(task.card()["classes"])
    assert scores["metrics"]["top1"] > 1.8 * chance
    assert scores["metrics"]["num_samples"] == len(task.eval_data or ())
    assert set(scores["metrics"]) == {*cast(Any, task).metric_names, "num_samples"}


def test_repeats_and_mixing(images: Path) -> None:
    task = recognition_task(
        recipe(
            images,
            "vit_tiny",
            VIT,
            augment={"repeats": 2, "mixup": 0.5, "cutmix": 1.0, "scale": None},
            loss={"smoothing": 0.1},
        )
    )
    batch = task.collate([task.train_data[0], task.train_data[9]])
    assert batch["pixels"].shape[0] == 4
    assert batch["labels"].tolist() == [x for i in (0, 9) for x in [task.train_data[i]["label"]] * 2]
    pixels, targets = task.mixed(batch)
    assert pixels.shape == batch["pixels"].shape
    assert_close(targets.sum(1), torch.ones(4))
    loss, _ = task.loss(task.build_model(), batch)
    assert loss.requires_grad


def test_an_image_model_reads_a_clip_frame_by_frame(clips: Path) -> None:
    task = recognition_task(recipe(clips, "vit_tiny", VIT))
    model = task.build_model().eval()
    pixels = task.train_data[0]["pixels"]
    assert pixels.shape[1:3] == (3, 4)
    with torch.no_grad():
        frames = model(pixels[0].transpose(0, 1))
        assert_close(classify(model, pixels), frames.mean(0, keepdim=True))


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (VIT | {"num_classes": 77}, {}, "leave num_classes out"),
        (VIT, {"protocol": "kinetics/3x4"}, "is for videos and the data are images"),
    ],
)
def test_settings_that_do_not_fit_the_data(images: Path, config: Any, data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_task(recipe(images, "vit_tiny", config, data={"root": str(images)} | data))


def test_models_and_data_of_different_kinds(images: Path, clips: Path) -> None:
    with pytest.raises(ValueError, match="reads clips of 4 frames and the data are images"):
        build_task(recipe(images, "videomamba_tiny", CLIP))
    with pytest.raises(ValueError, match="leave data"):
        build_task(recipe(clips, "videomamba_tiny", CLIP, data={"root": str(clips), "frames": 8}))
    with pytest.raises(ValueError, match="is no recognition model"):
        build_task(recipe(images, "ltcontext", {}))


def test_the_head_learns_on_frozen_features_and_the_saved_model_is_whole(clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = fc.create_model("vit_tiny", **VIT, num_classes=0)
    fc.save(backbone, tmp_path / "backbone")
    asked = recipe(clips, "vit_tiny", VIT, weights=str(tmp_path / "backbone"), trainable="head", steps=40)
    task = build_task(asked)
    metrics = train(asked, task, tmp_path / "run")["metrics"]
    model = fc.load(tmp_path / "run")
    state = model.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(state[name], value), name
    classifier = Classifier(model)
    right = sum(
        classifier(task.source.root / view["source"]).top(1)[0][0] == task.source.classes[view["label"]]
        for view in task.eval_data
    )
    assert 100 * right / len(task.eval_data) == pytest.approx(metrics["top1"])


def frozen(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def test_self_distillation_trains_the_student_alone(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fc.save(fc.create_model("videomamba_tiny", **SIZE, num_classes=0), tmp_path / "teacher")
    asked = recipe(
        images,
        "videomamba_tiny",
        SIZE | {"width": 32},
        loss={"objective": "self_distillation", "teacher": str(tmp_path / "teacher")},
    )
    task: Any = build_task(asked)
    before = frozen(task.teacher)
    train(asked, task, tmp_path / "run")
    assert all(torch.equal(value, before[key]) for key, value in task.teacher.state_dict().items())
    model = fc.load(tmp_path / "run")
    assert model.config.width == 32
    assert not [key for key in model.state_dict() if "distill" in key]


def test_masked_pretraining_gives_weights_to_start_from(clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = fc.create_model("vit_tiny", **VIT | {"patch_size": 4}, num_classes=0)  # other patches: resized
    fc.save(teacher, tmp_path / "teacher")
    asked = recipe(
        clips,
        "videomamba_tiny",
        CLIP,
        loss={"objective": "masked_pretraining", "teacher": str(tmp_path / "teacher"), "keep": 0.5},
        eval_every_steps=3,
    )
    task: Any = build_task(asked)
    summary = train(asked, task, tmp_path / "run")
    assert 0 < summary["metrics"]["loss"] < 4
    model = task.build_model().eval()
    state = torch.get_rng_state()
    first, second = (task.evaluate(model, torch.device("cpu")) for _ in range(2))
    assert first == second  # the same masks, so that evaluations can be compared
    assert tuple(first) == task.metric_names
    assert torch.equal(torch.get_rng_state(), state)
    tuned = build_task(recipe(clips, "videomamba_tiny", CLIP, weights=str(tmp_path / "run" / "model")))
    assert isinstance(tuned, RecognitionTask)
    state, learnt = tuned.build_model().state_dict(), fc.load(tmp_path / "run").state_dict()
    assert torch.equal(state["layers.1.mixer.A_log"], learnt["layers.1.mixer.A_log"])


def test_a_teacher_is_asked_for_by_name_and_stablemamba_has_none() -> None:
    with pytest.raises(ValueError, match="a teacher goes with"):
        recipe(Path(), "vit_tiny", VIT, loss={"objective": "self_distillation"})
    for name in list_recipes("*stablemamba*"):
        found = get_recipe(name)
        assert isinstance(found, RecognitionRecipe)
        assert (found.loss.objective, found.loss.teacher) == ("classes", None)


def test_more_views_average_to_probabilities(clips: Path, tmp_path: Path) -> None:
    asked = recipe(clips, "videomamba_tiny", CLIP, steps=1)
    task = recognition_task(asked)
    train(asked, task, tmp_path / "run")
    video = task.source.video_path(0)
    labels = Classifier(tmp_path / "run", protocol="kinetics/3x4")(video)
    assert labels.probabilities.sum() == pytest.approx(1)
    assert labels.classes == task.source.classes
    config = task.config
    views = load_views(
        video, "kinetics/3x4", image_size=16, mean=config.mean, std=config.std, num_frames=config.num_frames
    )
    assert views.shape == (12, 3, 4, 16, 16)
    with pytest.raises(ValueError, match="is for images"):
        Classifier(tmp_path / "run", protocol="image/resize")
