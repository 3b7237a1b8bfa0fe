"""Scores on corrupted data: what is counted, kept, taken up again and summed up."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import framecast as fc
from framecast.checkpoints import ModelCard, save
from framecast.data.corruptions import CORRUPTIONS, SEVERITIES, compress_jpeg, corrupt, corruption_seed
from framecast.data.recognition import RecognitionData, open_recognition
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.infer import robustness
from framecast.infer.evaluation import evaluate_run
from framecast.infer.robustness import (
    CLEAN,
    JPEG_QUALITIES,
    Robustness,
    changed,
    fingerprint,
    measure_robustness,
    quality_variant,
    variant,
    wanted_variants,
)
from framecast.tasks.recognition import collect_probabilities, views_of

VIT = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 1, "num_heads": 3}
KEYS = wanted_variants(("gaussian", "fog", "jpeg"), (1, 5))


def world(folder: Path, kind: str) -> tuple[Path, Path]:
    """A data set and a saved model of random weights that is far from sure of anything."""
    data = write_recognition_lookalike("folders", folder / kind, kind=kind, per_class=3)
    classes = open_recognition(data).classes
    torch.manual_seed(0)
    model = fc.create_model("vit_tiny", **VIT, num_classes=len(classes)).eval()
    with torch.no_grad():
        model.head.weight.normal_(std=3.0)
    protocol = {"image": "image/center-1.0", "video": "kinetics/3x4"}[kind]
    frames = {"image": None, "video": 2}[kind]
    card = ModelCard(task="recognition", classes=classes, protocol=protocol, frames=frames)
    return data, save(model, folder / f"{kind}_model", card)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return world(tmp_path_factory.mktemp("images"), "image")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return world(tmp_path_factory.mktemp("clips"), "video")


@pytest.mark.parametrize("kind", ["images", "clips"])
def test_scores_are_those_of_views_with_a_corruption(kind: str, request: pytest.FixtureRequest) -> None:
    """Decoding once gives what an evaluation through `corrupt` of the views gives, one variant at a time."""
    root, model_folder = request.getfixturevalue(kind)
    result = measure_robustness(model_folder, KEYS, data=root)
    assert set(result.scores) == set(KEYS)
    plain = evaluate_run(model_folder, data=root)
    assert result.clean == next(iter(plain.scores.values()))["top1"]
    assert result.num_items == plain.num_items

    model = fc.load(model_folder)
    data = open_recognition(root, subset="test")
    protocol = robustness.view_protocol(result.protocol, data.kind)

    def fogged(crops: torch.Tensor, source: str) -> torch.Tensor:
        flat = crops.reshape(-1, *crops.shape[-3:])
        return corrupt(flat, "fog", 5, corruption_seed(source, "fog")).view_as(crops)

    views = views_of(data, model.config, protocol, model.card.frames, corrupt=fogged)
    with torch.no_grad():
        wanted = collect_probabilities(model, views, data.classes, protocol).compute()
    assert result.scores["fog/5"] == pytest.approx({k: wanted[k] for k in ("top1", "top5")})


def test_every_item_is_decoded_once(clips: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    frames = RecognitionData.frames

    def counted(self: RecognitionData, index: int, *args: object) -> torch.Tensor:
        decoded.append(index)
        return frames(self, index, *args)  # ty: ignore[invalid-argument-type]

    monkeypatch.setattr(RecognitionData, "frames", counted)
    root, model = clips
    result = measure_robustness(model, KEYS, data=root)
    assert sorted(decoded) == list(range(result.num_items))


def test_the_file_is_extended_and_not_measured_twice(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, model = images
    path = tmp_path / "robustness.json"
    calls: list[str] = []
    real = changed

    def counted(crops: torch.Tensor, key: str, sources: list[str]) -> torch.Tensor:
        calls.append(key)
        return real(crops, key, sources)

    monkeypatch.setattr(robustness, "changed", counted)
    measure_robustness(model, ["fog/1"], data=root, path=path)
    assert set(calls) == {CLEAN, "fog/1"}
    calls.clear()
    both = measure_robustness(model, ["snow/2", "fog/1"], data=root, path=path)
    assert set(calls) == {"snow/2"}
    assert list(both.scores) == [CLEAN, "snow/2", "fog/1"]  # in the usual order
    assert Robustness.read(path) == both
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [(r["variant"], r["level"]) for r in rows] == [("clean", ""), ("snow", "2"), ("fog", "1")]

    calls.clear()
    other = fc.load(model)
    with torch.no_grad():
        other.head.weight.add_(1e-3)
    save(other, tmp_path / "other", other.card)
    measure_robustness(tmp_path / "other", ["fog/1"], data=root, path=path)
    assert set(calls) == {CLEAN, "fog/1"}, "scores of other weights are not taken over"
    assert list(tmp_path.glob("*.partial.json")) == []


def test_an_interrupted_call_goes_on(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, model = images
    monkeypatch.setattr(robustness, "VIEWS_AT_ONCE", 2)
    straight = measure_robustness(model, KEYS, data=root)
    path, calls = tmp_path / "robustness.json", 0
    real = changed

    def failing(crops: torch.Tensor, key: str, sources: list[str]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2 * len(KEYS) + 1:  # in the third batch
            raise KeyboardInterrupt
        return real(crops, key, sources)

    monkeypatch.setattr(robustness, "changed", failing)
    with pytest.raises(KeyboardInterrupt):
        measure_robustness(model, KEYS, data=root, path=path)
    assert not path.exists()
    assert json.loads((tmp_path / "robustness.partial.json").read_text())["seen"] == 4
    calls = 100
    assert measure_robustness(model, KEYS, data=root, path=path) == straight
    batches = -(-straight.num_items // 2)
    assert calls - 100 == (batches - 2) * len(KEYS)


def test_jpeg_severities_are_points_of_the_curve() -> None:
    severities = wanted_variants(("jpeg",))
    assert severities == [CLEAN, *(quality_variant(q) for q in (25, 18, 15, 10, 7))]
    assert set(severities) < set(wanted_variants(jpeg_curve=True))
    crops = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(changed(crops, variant("jpeg", 2), ["a", "b"]), compress_jpeg(crops, 18))


def test_crops_and_frames_of_an_item_share_their_numbers() -> None:
    crops = torch.full((2, 3, 3, 16, 16), 128, dtype=torch.uint8)
    noisy = changed(crops, "gaussian/3", ["a", "b"])
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert not torch.equal(noisy[0], noisy[1])
    clips = torch.full((2, 3, 4, 3, 16, 16), 128, dtype=torch.uint8)
    assert torch.equal(changed(clips, "gaussian/3", ["a", "b"])[:, 1, 2], noisy[:, 0])
    assert torch.equal(changed(crops, CLEAN, ["a", "b"]), crops)


def made_up(drop: float = 2.0) -> Robustness:
    scores = {CLEAN: {"top1": 80.0, "top5": 95.0}}
    for name in CORRUPTIONS:
        for s in SEVERITIES:
            scores[variant(name, s)] = {"top1": 80 - drop * s, "top5": 95.0}
    return Robustness("m", "w", "d", None, "test", 10, "image", "image/center-1.0", scores)


def test_summary() -> None:
    facts = made_up().summary()
    assert facts["corrupted_top1"] == pytest.approx(74)
    assert facts["drop"] == pytest.approx(6)
    assert facts["relative_drop"] == pytest.approx(7.5)
    assert facts["mce"] == pytest.approx(np.mean([26 / c.alexnet for c in CORRUPTIONS.values()]))
    part = made_up().only([CLEAN, "fog/1", "fog/2"])
    assert (part.summary()["mce"], part.corruption_error("fog")) == (None, None)
    assert part.summary()["corrupted_top1"] == pytest.approx(77)
    assert part.only([CLEAN]).summary()["drop"] is None
    assert part.corruptions() == {"fog": {1: 78.0, 2: 76.0}}
    assert part.jpeg_curve() == {}


def test_alexnet_itself_has_an_mce_of_100() -> None:
    alexnet = made_up()
    for name, corruption in CORRUPTIONS.items():
        for s in SEVERITIES:
            alexnet.scores[variant(name, s)]["top1"] = 100 * (1 - corruption.alexnet)
    assert alexnet.summary()["mce"] == pytest.approx(100)
    assert np.mean([c.alexnet for c in CORRUPTIONS.values()]) == pytest.approx(0.789, abs=5e-4)


def test_the_curve_needs_all_qualities() -> None:
    result = made_up()
    for q in JPEG_QUALITIES[:-5]:
        assert result.jpeg_curve() == {}
        result.scores[quality_variant(q)] = {"top1": 79.0, "top5": 90.0}
    assert tuple(result.jpeg_curve()) == JPEG_QUALITIES


def test_fingerprints_tell_weights_apart() -> None:
    one = fc.create_model("vit_tiny", **VIT, num_classes=3)
    before = fingerprint(one)
    assert fingerprint(one) == before
    with torch.no_grad():
        one.head.bias[0] += 1e-6
    assert fingerprint(one) != before


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"scores": {"clean": 3}}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "robustness.json").write_text(text)
    with pytest.raises(ValueError, match="holds no robustness scores"):
        Robustness.read(tmp_path)


def test_a_model_without_answers_is_named(images: tuple[Path, Path], tmp_path: Path) -> None:
    root, folder = images
    model = fc.load(folder)
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    save(model, tmp_path / "broken", model.card)
    with pytest.raises(ValueError, match="not finite"):
        measure_robustness(tmp_path / "broken", ["fog/1"], data=root)
