"""Questions about videos through the ordinary loop: samples, teacher, stages, resume, scores."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from torchvision.utils import save_image

import framecast as fc
from framecast.infer.evaluation import evaluate_run
from framecast.recipes import build_video_qa
from framecast.recipes.build import build_task, get_recipe
from framecast.recipes.build_video_qa import question_sides
from framecast.tasks.video_qa import Teacher
from framecast.tasks.video_qa_samples import Clips, augmented, clip_key
from framecast.train.checkpoint import training_tensors
from framecast.train.config import apply_overrides
from framecast.train.loop import train
from framecast.train.optim import make_optimizer
from framecast.train.video_qa_recipe import VideoQaRecipe
from tiny_language_model import tiny_language_model
from video_factory import write_video

EYES = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 8, "image_size": 32}
STAB = json.dumps({**EYES, "num_frames": 4, "dropout": 0.0})
COLOURS = {"dark": 20, "light": 230}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, dark or light, each asked about twice; a language model."""
    root = tmp_path_factory.mktemp("talks")
    tiny_language_model(root / "language")
    with (root / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "question", "answer"])
        for i in range(6):
            name, value = list(COLOURS.items())[i % 2]
            write_video(root / f"{i}.mp4", 12, turn=lambda x, v=value: np.full_like(x, v))
            writer.writerow([f"{i}.mp4", "what?", "yes" if name == "dark" else "no"])
            writer.writerow([f"{i}.mp4", "who walks?", "cat" if name == "dark" else "dog"])
    return root


def recipe(folder: Path, *changes: str, name: str = "video_panda_small_align") -> VideoQaRecipe:
    own = [
        f"data.root={folder / 'questions.csv'}",
        f"model.config.language_model={folder / 'language'}",
        f"model.config.stab={STAB}",
        "alignment.text=1",
        "alignment.answers=0",
        "model.config.template=chat",
        "model.config.word_length=false",
        "precision=float32",
        "batch_size=2",
        "max_new_tokens=4",
        "data.holdout=0.34",
        *changes,
    ]
    made = apply_overrides(get_recipe(name), own)
    assert isinstance(made, VideoQaRecipe)
    return made


def test_a_sample_is_a_clip_with_all_that_is_asked_about_it(folder: Path) -> None:
    task: Any = build_task(recipe(folder))
    model = task.build_model()
    assert len(task.train_data) == 4
    sample = task.train_data[0]
    assert len(sample["talk"].turns) == 2
    assert sample["talk"].clip.shape == (3, 4, 32, 32)
    assert torch.equal(sample["talk"].clip, task.train_data[0]["talk"].clip)
    forgetful = Clips(task.clips.settings, keep_mb=0)
    assert torch.equal(forgetful[task.train_data.groups[0][0]].clip, sample["talk"].clip)
    one_by_one: Any = build_task(recipe(folder, "data.max_turns=1"))
    assert len(one_by_one.train_data) == 8
    assert task.product(model) is model.panda


def test_no_video_is_on_both_sides(folder: Path) -> None:
    learn, held = question_sides(recipe(folder).data)
    assert {q.video for q in learn}.isdisjoint({q.video for q in held})
    assert len(learn) + len(held) == 12
    with pytest.raises(ValueError, match="names no questions"):
        question_sides(recipe(folder).data.model_copy(update={"root": ""}))


def test_it_learns_what_it_sees_and_answers_on_other_videos(folder: Path, tmp_path: Path) -> None:
    """Dark and light clips: the answers are in the pixels, and without them cannot be known."""
    changes = ("epochs=60", "eval_every=60", "save_every=60", "optim.lr=1e-2", "schedule.warmup=0")
    seen = recipe(folder, *changes, "model.config.tuning=lora")
    scores = train(seen, build_task(seen), tmp_path / "seen")["metrics"]
    blind = recipe(folder, *changes, "blind=true", "model.config.tuning=lora")
    guessed = train(blind, build_task(blind), tmp_path / "blind")["metrics"]
    assert scores["normalised"] == 100
    assert guessed["normalised"] <= 50
    assert evaluate_run(tmp_path / "seen").scores["answers"]["normalised"] == scores["normalised"]
    assert evaluate_run(tmp_path / "blind").scores["answers"] == guessed
    answer = fc.ask(tmp_path / "seen", folder / "0.mp4", "what?", max_new_tokens=4)
    assert answer.text == "yes"


def test_stages_follow_each_other(folder: Path, tmp_path: Path) -> None:
    first = recipe(folder, "epochs=1")
    train(first, build_task(first), tmp_path / "align")
    aligned: Any = fc.load(tmp_path / "align")
    for name, tuning in (("pretrain", "lora"), ("tune", "whole")):
        start = tmp_path / ("align" if name == "pretrain" else "pretrain")
        settings = [f"data.root={folder / 'questions.csv'}", f"start={start}", "epochs=1", "batch_size=2"]
        settings += [f"model.config.tuning={tuning}", "precision=float32", "max_new_tokens=4"]
        stage = apply_overrides(get_recipe(f"video_panda_small_{name}"), settings)
        task: Any = build_task(stage)
        model = task.build_model().panda
        assert model.config.stab == aligned.config.stab
        before: Any = fc.load(start)
        assert_close(dict(model.stab.state_dict()), dict(before.stab.state_dict()))
        train(stage, task, tmp_path / name)
    last: Any = fc.load(tmp_path / "tune")
    assert last.config.tuning == "whole"
    assert not last.config.language_model
    with pytest.raises(ValueError, match="answers no questions; start from"):
        build_task(recipe(folder, f"start={fc.save(fc.create_model('vit_tiny'), tmp_path / 'vit')}"))


def test_the_teacher_sees_the_same_frames_and_the_eyes_follow(folder: Path, tmp_path: Path) -> None:
    config = {"image_size": 32, "patch_size": 8, "depth": 1, "width": 12, "num_heads": 2}
    torch.manual_seed(0)
    fc.save(fc.create_model("vit_tiny", **config), tmp_path / "teacher")
    made = recipe(
        folder, f"alignment.teacher={tmp_path / 'teacher'}", "alignment.image_size=32", "alignment.heads=2"
    )
    task: Any = build_task(apply_overrides(made, ["alignment.layer=0"]))
    learner = task.build_model()
    task.prepare(torch.device("cpu"))
    frames = task.train_data[0]["teacher_features"]
    assert len(frames) == 4
    assert frames[0].shape == (2, 2, 12)
    batch = task.collate([task.train_data[i] for i in range(2)])
    loss, parts = task.loss(learner, batch)
    assert 0 < parts["teacher"] < 2
    assert float(loss.detach()) == pytest.approx(parts["text"] + parts["teacher"], rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in learner.panda.stab.parameters())
    with pytest.raises(ValueError, match=r"set alignment\.image_size to a multiple of 16"):
        Teacher(task.teacher.model, 40).settings(task.clips.settings)


def test_eyes_learn_from_the_answers_alone(folder: Path, tmp_path: Path) -> None:
    """The first stage runs no layer of the language model, and is scored by what it tells apart."""
    made = recipe(folder, "alignment.text=0", "alignment.answers=1", "epochs=40", "optim.lr=1e-2")
    task: Any = build_task(made)
    learner = task.build_model()
    layers = learner.panda.language_model.model.layers
    layers[0].register_forward_hook(lambda *_: pytest.fail("the language model ran"))
    _, parts = task.loss(learner, task.collate([task.train_data[i] for i in range(4)]))
    assert parts.keys() == {"answers", "answer_precision"}
    train(made, build_task(made), tmp_path / "align")
    lines = [json.loads(line) for line in (tmp_path / "align" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["kind"] == "eval"
    assert lines[-1]["answer_precision"] == 100  # of held-back clips
    assert lines[-2]["answers"] < 0.5 * lines[0]["answers"]


def test_a_recipe_that_teaches_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="there is no teacher; nothing is learnt"):
        recipe(folder, "alignment.text=0")
    with pytest.raises(ValueError, match=r"alignment\.text=0 teaches the language model nothing"):
        build_task(
            recipe(folder, "alignment.text=0", "alignment.answers=1", "model.config.tuning=lora")
        ).build_model()
    with pytest.raises(ValueError, match="no eyes to align"):
        recipe(folder, "alignment.text=0", "alignment.answers=1", "blind=true")


def wide(folder: Path, *changes: str) -> Any:
    """A task about one wide clip, lighter to the right, with margins above and below."""
    ramp = np.linspace(0, 250, 64, dtype=np.uint8)
    write_video(
        folder / "wide.mp4", 12, size=(24, 64), turn=lambda x: np.broadcast_to(ramp[:, None], x.shape)
    )
    (folder / "wide.csv").write_text("video,question,answer\nwide.mp4,what?,yes\n")
    task: Any = build_task(recipe(folder, f"data.root={folder / 'wide.csv'}", "data.holdout=0", *changes))
    task.build_model()
    return task


def test_mirrored_clips_keep_their_margins_and_teacher(folder: Path) -> None:
    plain, turned = wide(folder), wide(folder, "data.mirror=1")
    for task in (plain, turned):
        key = clip_key(task.train_data.groups[0][0])
        task.train_data.teacher = {key: (torch.arange(6.0).view(1, 3, 2), None, None, None)}
    before, after = plain.train_data[0], turned.train_data[0]
    assert not torch.equal(before["talk"].clip, before["talk"].clip.flip(-1))
    assert torch.equal(after["talk"].clip, before["talk"].clip.flip(-1))
    assert torch.equal(after["talk"].valid, before["talk"].valid.flip(-1))
    assert torch.equal(after["teacher_features"][0], before["teacher_features"][0].flip(1))
    assert after["teacher_features"][1] is None


def test_augmented_clips_move_as_one_and_keep_their_margins(folder: Path) -> None:
    clip = torch.rand(3, 1, 32, 32).expand(3, 4, 32, 32)
    assert_close(augmented(clip, 0.0), clip)
    torch.manual_seed(0)
    moved = augmented(clip, 0.2)
    assert not torch.allclose(moved, clip, atol=0.1)
    assert_close(moved, moved[:, :1].expand_as(moved))
    colours = augmented(torch.zeros(3, 1, 8, 8), 0.2).flatten(1)
    assert_close(colours, colours[:, :1].expand_as(colours))  # nothing to move: one shift for each colour
    assert 0 < colours.abs().max() <= 0.4
    sample = wide(folder, "data.augment=0.1").train_data[0]["talk"]
    assert not sample.valid.all()
    assert sample.clip[:, sample.valid].any()
    assert not sample.clip[:, ~sample.valid].any()
    with pytest.raises(ValueError, match=r"set data\.augment=0 or alignment\.teacher=null"):
        recipe(folder, "data.augment=0.1", "alignment.teacher=vit_small_dinov2")


def test_options_are_told_by_their_text(folder: Path) -> None:
    """The letter is what is learnt to be said; the eyes learn what it stands for."""
    task: Any = build_task(recipe(folder))
    tokenizer = task.build_model().panda.tokenizer
    group = task.train_data.groups[0]
    chosen = replace(group[0], options=("cat", "dog"), answer_index=1, turns=(("who?", "dog"),))
    task.train_data.groups = [(chosen,)]
    sample = task.train_data[0]
    assert "B" in tokenizer.decode(sample["talk"].turns[0].ids)
    assert "dog" in tokenizer.decode(sample["answers"][0])


def test_some_clips_are_scored_in_training(folder: Path) -> None:
    whole: Any = build_task(recipe(folder))
    some: Any = build_task(recipe(folder, "data.scored=1"))
    assert len(whole.eval_data) == 2
    assert some.eval_data == whole.eval_data[:1]


def test_clips_go_where_the_language_model_is(folder: Path) -> None:
    task: Any = build_task(recipe(folder))
    panda = task.build_model().panda
    talk = task.train_data[0]["talk"]
    (tokens,) = panda.to("meta").see_all([talk._replace(valid=None)])
    assert tokens.frames[0].device.type == "meta"


def test_stages_with_other_types_hold_back_the_same_videos(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"video": f"{i}.mp4", "question": f"{kind}?", "answer": "yes", "type": kind}
        for i in range(6)
        for kind in ("what", "tell")[: 1 + i % 2]
    ]
    (tmp_path / "typed.json").write_text(json.dumps(rows))
    own = (f"data.root={tmp_path / 'typed.json'}", f"data.videos={folder}")
    learn, held = question_sides(recipe(folder, *own).data)
    for kind in ("what", "tell"):
        mine, others = question_sides(recipe(folder, *own, f"data.types=[{kind}]").data)
        assert mine == [q for q in learn if q.type == kind]
        assert others == [q for q in held if q.type == kind]
    with pytest.raises(ValueError, match="of type 'when'; there are 'tell', 'what'"):
        question_sides(recipe(folder, *own, "data.types=[when]").data)


def test_resume_is_exact(folder: Path, tmp_path: Path) -> None:
    changes = ("epochs=3", "save_every=1", "eval_every=3", "model.config.tuning=lora", "schedule.t_max=6")
    whole, part = recipe(folder, *changes), recipe(folder, *changes, "epochs=2", "eval_every=2")
    train(whole, build_task(whole), tmp_path / "straight")
    train(part, build_task(part), tmp_path / "parts")
    train(whole, build_task(whole), tmp_path / "parts")
    straight, parts = (fc.load(tmp_path / name).state_dict() for name in ("straight", "parts"))
    assert straight.keys() == parts.keys()
    assert all(torch.equal(straight[key], parts[key]) for key in straight)


def test_learning_rates_by_part(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, "optim.lr_factors={panda.stab: 3.0, panda.stab.projector: 0.5}", "epochs=1")
    train(made, build_task(made), tmp_path / "run")
    wrong = recipe(folder, "optim.lr_factors={stab: 3.0}", "epochs=1")
    with pytest.raises(ValueError, match="no parameter's name begins with 'stab'; they begin with panda"):
        train(wrong, build_task(wrong), tmp_path / "wrong")


def test_the_published_first_stage_has_an_optimiser(folder: Path, tmp_path: Path) -> None:
    """Its learning rates are those of parts that are there."""
    config = {"image_size": 32, "patch_size": 8, "depth": 1, "width": 12, "num_heads": 2}
    fc.save(fc.create_model("vit_tiny", **config), tmp_path / "teacher")
    published = get_recipe("video_panda_align")
    assert isinstance(published, VideoQaRecipe)
    changes = (f"alignment.teacher={tmp_path / 'teacher'}", "alignment.image_size=32", "alignment.heads=2")
    made = recipe(folder, *changes, "alignment.layer=0").model_copy(update={"optim": published.optim})
    optimizer = make_optimizer(build_task(made).build_model(), made.optim)
    assert {group["lr_scale"] for group in optimizer.param_groups} == {10.0}


def test_later_questions_of_a_talk_know_the_earlier_ones(folder: Path, tmp_path: Path) -> None:
    talk = (
        '[{"video": "0.mp4", "conversations": ['
        '{"from": "human", "value": "<video>\\nwhat?"}, {"from": "gpt", "value": "cat"},'
        '{"from": "human", "value": "who?"}, {"from": "gpt", "value": "dog"}]}]'
    )
    (tmp_path / "talk.json").write_text(talk)
    changes = ("data.layout=instructions", f"data.root={tmp_path / 'talk.json'}", f"data.videos={folder}")
    task: Any = build_task(recipe(folder, *changes, "data.holdout=0"))
    tokenizer = task.build_model().panda.tokenizer
    first, second = task.train_data[0]["talk"].turns
    assert "what?" in tokenizer.decode(second.ids)
    assert "cat" in tokenizer.decode(second.ids)
    assert "who?" not in tokenizer.decode(first.ids)
    assert task.eval_data is None


def test_what_is_frozen_costs_nothing(folder: Path, tmp_path: Path) -> None:
    """No gradient, no state of the optimiser and no place in a checkpoint for the language model."""
    made = recipe(folder, "epochs=1")
    task: Any = build_task(made)
    learner = task.build_model().train()
    loss, _ = task.loss(learner, task.collate([task.train_data[0]]))
    loss.backward()
    language = list(learner.panda.language_model.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in language)
    optimizer = make_optimizer(learner, made.optim)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in learner.panda.stab.parameters()
    }
    assert not any("language_model" in key for key in training_tensors(learner, optimizer, None))
    assert not learner.panda.language_model.training


def test_lengths_put_clips_and_texts_apart(folder: Path) -> None:
    """Three sizes of samples: a clip weighs as many frames as it has, an image one, a text its words."""
    task: Any = build_task(recipe(folder))
    group = task.train_data.groups[0]
    text = replace(group[0], video=None, kind="text", start_s=None, end_s=None)
    image = replace(group[0], video=Path("a.png"), kind="image")
    task.train_data.groups = [group[:1], (image,), (text,)]
    clip, still, words = task.train_data.lengths
    assert clip - words == 4 * (still - words) > 0
    task.train_data.blind = True
    assert len(set(task.train_data.lengths)) == 1


def test_a_frozen_encoder_in_the_eyes_place(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The encoder starts from its known weights and never moves; later stages and answers go on from it."""
    config = {"image_size": 32, "patch_size": 8, "depth": 1, "width": 12, "num_heads": 2}
    torch.manual_seed(1)
    known = fc.create_model("vit_tiny", **config)
    monkeypatch.setattr(build_video_qa, "open_backbone", lambda name: (known, "here"))
    encoder = "model.config.encoder={name: vit_tiny, image_size: 32, num_frames: 4}"
    made = recipe(folder, "model.config.stab={}", encoder, "epochs=1")
    train(made, build_task(made), tmp_path / "run")
    trained: Any = fc.load(tmp_path / "run")
    assert_close(dict(trained.stab.encoder.state_dict()), dict(known.state_dict()))
    settings = [f"data.root={folder / 'questions.csv'}", f"start={tmp_path / 'run'}", "max_new_tokens=4"]
    stage = apply_overrides(get_recipe("video_panda_small_tune"), settings)
    after: Any = build_task(stage)
    assert_close(
        dict(after.build_model().panda.stab.state_dict()), dict(trained.stab.state_dict()), rtol=0, atol=0
    )
    assert isinstance(fc.ask(tmp_path / "run", folder / "0.mp4", "what?", max_new_tokens=2).text, str)


SCRIPT = """
import sys
from framecast.recipes.build import build_task
from framecast.train.config import load_recipe
from framecast.train.loop import train
from framecast.train.optim import make_optimizer

recipe = load_recipe(sys.argv[1])
print(train(recipe, build_task(recipe), sys.argv[2])["metrics"])
"""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("answers", [0, 1])
def test_two_processes_train_and_score_together(
    parallel: str, answers: int, folder: Path, tmp_path: Path
) -> None:
    """A clip on one process and a still on the other: not all parts of the eyes are used by both."""
    config = {"image_size": 32, "patch_size": 8, "depth": 1, "width": 12, "num_heads": 2}
    torch.manual_seed(0)
    fc.save(fc.create_model("vit_tiny", **config), tmp_path / "teacher")
    save_image(torch.full((3, 24, 32), 0.9), folder / "still.png")
    lines = [f"{name},what?,{answer}" for name, answer in (("0.mp4", "yes"), ("still.png", "no"))]
    (folder / "mixed.csv").write_text("\n".join(["video,question,answer", *lines, "1.mp4,what?,no"]))
    made = recipe(
        folder,
        f"data.root={folder / 'mixed.csv'}",
        f"alignment.teacher={tmp_path / 'teacher'}",
        "alignment.image_size=32",
        "alignment.heads=2",
        "alignment.layer=0",
        f"parallel={parallel}",
        f"alignment.answers={answers}",
        "steps=3",
        "group_lengths=false",
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json")))
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, tmp_path / "run.py", tmp_path / "recipe.yaml", tmp_path / "run"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["processes"] == 2
    alone = evaluate_run(tmp_path / "run").scores["answers"]
    assert summary["metrics"] == alone
