"""The segmentation task: losses do not depend on batch mates, scores are at the rate of the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from framecast.checkpoints import ModelCard
from framecast.data.segmentation import open_segmentation
from framecast.data.synthetic import write_lookalike
from framecast.structures import FeatureTrack, Provenance
from framecast.tasks.segmentation import SegmentationTask, check_features, score, segment_track
from framecast.tasks.segmentation_augment import Augmentation, Augmented
from framecast.tasks.segmentation_loss import smoothed_cross_entropy

TINY = {"num_stages": 2, "num_layers": 2, "width": 16, "window": 8, "stride": 4}
STILL = {"dropout": 0.0, "attention_dropout": 0.0, "channel_dropout": 0.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "breakfast"
    write_lookalike("breakfast", folder, seed=0, num_videos=8, feature_dim=12)
    return folder


def make_task(root: Path, sample_rate: int = 1, **config: object) -> SegmentationTask:
    sides = [
        open_segmentation(root, layout="breakfast", split=1, subset=s, sample_rate=sample_rate)
        for s in ("train", "test")
    ]
    return SegmentationTask(*sides, model="ltcontext", model_config=TINY | STILL | config)


def test_loss_of_a_batch_is_the_mean_of_its_videos(root: Path) -> None:
    task = make_task(root)
    model = task.build_model().double().eval()
    samples = [task.train_data[i] for i in range(3)]
    assert len({len(s["labels"]) for s in samples}) > 1, "the videos should differ in length"

    def loss(chosen: list[dict]) -> torch.Tensor:
        batch = task.collate(chosen)
        batch["features"] = batch["features"].double()
        return smoothed_cross_entropy(model(batch["features"], batch["mask"]), batch["labels"])[0]

    alone = torch.stack([loss([sample]) for sample in samples])
    assert_close(loss(samples), alone.mean(), rtol=1e-9, atol=0)


def test_ignored_frames_do_not_pull(root: Path) -> None:
    logits = torch.randn(2, 1, 5, 20, requires_grad=True)
    labels = torch.randint(5, (1, 20))
    labels[:, 8:] = -100
    smoothed_cross_entropy(logits, labels)[0].backward()
    assert logits.grad is not None
    assert logits.grad[..., 8:].abs().max() == 0
    assert logits.grad[..., :8].abs().min() > 0


def test_metrics_are_known_before_they_are_measured(root: Path) -> None:
    task = make_task(root)
    model = task.build_model().eval()
    assert list(task.evaluate(model, torch.device("cpu"))) == task.metric_names
    assert task.metric_names[:5] == ["accuracy", "edit", "f1@10", "f1@25", "f1@50"]
    assert "pooled: edit" in task.metric_names


def test_an_evaluation_reads_features_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they do not fit into the cache."""
    sides = [open_segmentation(root, layout="breakfast", split=1, subset=s) for s in ("train", "test")]
    task = SegmentationTask(*sides, model="ltcontext", model_config=TINY)
    data = sides[1]
    data._cache_left = 0
    data._tracks.clear()
    model = task.build_model().eval()
    task.evaluate(model, torch.device("cpu"))  # aligns labels and features for good
    read, load = [], data.folder.load_features

    def counted(video: str, **options: Any) -> FeatureTrack:
        read.append(video)
        return load(video, **options)

    monkeypatch.setattr(data.folder, "load_features", counted)
    task.evaluate(model, torch.device("cpu"))
    assert sorted(read) == sorted(data.videos)


@pytest.mark.parametrize("sample_rate", [1, 3])
def test_scores_are_at_the_rate_of_the_annotation(root: Path, sample_rate: int) -> None:
    task = make_task(root, sample_rate)
    data = task.eval_data
    assert data is not None

    class Oracle(torch.nn.Module):
        """Answers with the labels of the features it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.known = {data[i]["features"].tobytes(): data[i]["labels"] for i in range(len(data))}

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            labels = torch.from_numpy(self.known[features[0].numpy().tobytes()])
            return torch.nn.functional.one_hot(labels, len(data.classes)).T[None, None].float()

    scores = task.evaluate(Oracle(), torch.device("cpu"))
    assert scores["accuracy"] >= (100 if sample_rate == 1 else 85)
    assert scores["edit"] == pytest.approx(100)  # segments are longer than the steps between samples
    assert "pooled: accuracy" in scores


def test_card_names_classes_and_protocols(root: Path) -> None:
    card = make_task(root).card()
    assert card["task"] == "segmentation"
    assert len(card["classes"]) == 48
    assert card["notes"]["protocols"][0] == "breakfast/s1-mean-over-videos"


def test_wrong_number_of_classes_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"num_classes is 7 but the data in .* has 48"):
        make_task(root, num_classes=7)


def test_standardise_takes_the_statistics_of_the_training_side(root: Path) -> None:
    task = make_task(root, standardise=True)
    model = task.build_model()
    stacked = np.concatenate([s["features"] for s in task.source], axis=1)
    assert_close(model.standardise.mean, torch.from_numpy(stacked.mean(1)), rtol=1e-4, atol=1e-5)
    assert_close(model.standardise.std, torch.from_numpy(stacked.std(1)), rtol=1e-4, atol=1e-5)


class TestAugmentation:
    sample: ClassVar[dict] = {
        "video": "v",
        "features": np.arange(40.0, dtype=np.float32).reshape(2, 20),
        "labels": np.arange(20),
    }

    def test_labels_follow_their_features(self) -> None:
        torch.manual_seed(3)
        for _ in range(20):
            changed = Augmentation(speed=0.8, crop=0.4)(self.sample)
            assert np.array_equal(changed["features"][0], changed["labels"])
            assert (np.diff(changed["labels"]) >= 0).all(), "time runs forward"
            assert 4 <= len(changed["labels"]) <= 36

    def test_off_changes_nothing(self) -> None:
        changed = Augmentation()(self.sample)
        assert np.array_equal(changed["features"], self.sample["features"])
        assert np.array_equal(changed["labels"], self.sample["labels"])

    def test_same_seed_same_sample(self) -> None:
        data = Augmented([self.sample], Augmentation(speed=0.5, noise=0.3, crop=0.2, channel_drop=0.2))
        torch.manual_seed(1)
        first = data[0]
        torch.manual_seed(1)
        second = data[0]
        assert np.array_equal(first["features"], second["features"])
        assert (
            first["features"].shape != self.sample["features"].shape
            or (first["features"] != self.sample["features"]).any()
        )


class TestFeaturesOfAnotherKind:
    made = Provenance("vit_tiny", "abc", 9, "cls", (224, 224), (0.5,) * 3, (0.2,) * 3, None)

    def test_same_provenance_passes_whatever_the_video(self) -> None:
        track = FeatureTrack(
            np.zeros((4, 9)), None, replace(self.made, video_hash="other", weights_source="x")
        )
        check_features(self.made, track, wanted_dim=4)

    def test_other_block_is_named(self) -> None:
        track = FeatureTrack(np.zeros((4, 9)), None, replace(self.made, layer=11), "video.npy")
        with pytest.raises(ValueError, match=r"video.npy .*layer: 9 here, 11 there"):
            check_features(self.made, track, wanted_dim=4)

    def test_other_width_is_named(self) -> None:
        with pytest.raises(ValueError, match="5 channels, the model reads 4"):
            check_features(None, FeatureTrack(np.zeros((5, 9)), source="x"), wanted_dim=4)


def test_segment_track_covers_the_video_at_the_features_rate(root: Path) -> None:
    task = make_task(root, sample_rate=4)
    model = task.build_model().eval()
    model.card = ModelCard.from_json(task.card())
    track = FeatureTrack(np.random.default_rng(0).normal(size=(12, 103)), np.arange(103) / 10)
    segments = segment_track(model, track, "cooking")
    assert segments.num_frames == 103
    assert segments.starts[0] == 0
    assert np.array_equal(segments.starts[1:], segments.ends[:-1])
    assert segments.limits_s is not None
    assert segments.limits_s[-1, 1] == pytest.approx(10.3)
    assert segments.frame_probs is not None
    assert segments.frame_probs.shape == (48, 103)


def test_score_prefixes_are_free_of_data_set_and_split() -> None:
    from framecast.metrics.segmentation import SegmentationMetrics

    metrics = SegmentationMetrics(num_classes=3)
    metrics.update(np.array([0, 1, 1]), np.array([0, 1, 2]), "a")
    scores = score(metrics, ["breakfast/s2-mean-over-videos", "breakfast/s2-pooled"])
    assert set(scores) == {
        *(KEYS := ("accuracy", "edit", "f1@10", "f1@25", "f1@50")),
        *(f"pooled: {k}" for k in KEYS),
    }
