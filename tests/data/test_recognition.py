"""Every layout of labelled images and clips is read to the same thing: classes, items, pixels, sides."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from framecast.data.recognition import RECOGNITION_LAYOUTS, open_recognition
from framecast.data.recognition_samples import RecognitionSamples, RecognitionViews, load_views
from framecast.data.synthetic_recognition import MOTIONS, SHAPES, WRITERS, write_recognition_lookalike
from framecast.data.transforms import TransformSettings, train_transform
from framecast.data.video import read_frames
from video_factory import numbers_of, write_video

DATA = Path(os.environ.get("FRAMECAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SIDED = ("folders", "lists", "kinetics", "ssv2", "packed")
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PLAIN = train_transform(TransformSettings(24, MEAN, STD, scale=None, hflip=0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("recognition")
    return {layout: write_recognition_lookalike(layout, base / layout) for layout in WRITERS}


def test_every_layout_has_a_lookalike() -> None:
    assert set(WRITERS) - {"grouped-folders"} == set(RECOGNITION_LAYOUTS)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_is_recognised_and_its_sides_are_disjoint(layout: str, folders: dict[str, Path]) -> None:
    train, test, both = (
        open_recognition(folders[layout], layout="segments" if layout == "segments" else "auto", subset=side)
        for side in ("train", "test", "all")
    )
    assert both.layout == layout.removeprefix("grouped-")
    assert train.classes == test.classes == both.classes
    assert both.held_back == (layout not in SIDED)
    assert len(both.classes) == (3 if both.kind == "image" else 4)
    names = [{data.source(i) for i in range(len(data))} for data in (train, test, both)]
    assert all(len(n) == len(d) for n, d in zip(names, (train, test, both), strict=True))
    assert not names[0] & names[1]
    assert names[0] | names[1] == names[2]
    for data in (train, test):
        assert set(data.labels) == set(range(len(both.classes)))
    groups = [{item.group for item in data.items if item.group} for data in (train, test)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("layout", WRITERS)
def test_pixels_show_the_class(layout: str, folders: dict[str, Path]) -> None:
    data = open_recognition(folders[layout], layout=layout.removeprefix("grouped-"))
    for i in range(0, len(data), 3):
        word = data.classes[data.label(i)]
        if data.kind == "image":
            image = data.image(i)
            assert image.shape == (3, 32, 32)
            assert image.dtype == torch.uint8
            assert word in SHAPES
            continue
        clip = data.frames(i, [0, data.num_frames(i) - 1]).float().mean(1)  # (2, H, W)
        bright = clip > 105
        x = [one.nonzero()[:, 1].float().mean() for one in bright]
        moved, grown = float(x[1] - x[0]), int(bright[1].sum()) - int(bright[0].sum())
        shown = (
            ("to_right" if moved > 0 else "to_left") if abs(moved) > 8 else "grow" if grown > 0 else "shrink"
        )
        assert shown.replace("_", " ") in word.replace("_", " "), data.source(i)
        assert shown in MOTIONS


def test_clips_of_a_long_video_hold_exactly_their_frames(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "tape.mp4", 30)
    write_video(tmp_path / "videos" / "other.mp4", 10)
    table = "video,start,end,label\ntape,3,8,walk\ntape,6,20,sit\nother,0,10,sit\n"  # the first two overlap
    (tmp_path / "segments.csv").write_text(table)
    data = open_recognition(tmp_path, layout="segments")
    by_name = {data.source(i): i for i in range(len(data))}
    walk, sit = by_name["videos/tape.mp4#3-8"], by_name["videos/tape.mp4#6-20"]
    assert numbers_of(data.frames(walk, range(5))) == [3, 4, 5, 6, 7]
    assert data.num_frames(sit) == 14
    assert numbers_of(data.frames(sit, [13, 0, 13])) == [19, 6, 19]
    with pytest.raises(ValueError, match="has frames 0 to 4"):
        data.frames(walk, [5])
    (tmp_path / "segments.csv").write_text("video,start_s,end_s,label\ntape,0.3,0.8,walk\nother,0,1,sit\n")
    data = open_recognition(tmp_path, layout="segments")
    assert numbers_of(data.frames(1, range(data.num_frames(1)))) == [3, 4, 5, 6, 7]


def test_frames_can_be_counted_at_another_rate(tmp_path: Path) -> None:
    for word in ("a", "b"):
        (tmp_path / word).mkdir()
        write_video(tmp_path / word / "clip.mp4", 20, rate=10)
    data = open_recognition(tmp_path)
    assert data.num_frames(0) == 20
    assert data.num_frames(0, fps=30) == 60
    assert numbers_of(data.frames(0, [0, 2, 3, 59], fps=30)) == [0, 0, 1, 19]


def test_clips_are_kept_decoded_while_memory_lasts(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        "framecast.data.recognition.read_frames",
        lambda path, times: decoded.append(path) or read_frames(path, times),
    )
    plain = open_recognition(folders["lists"])
    expected = [plain.frames(i, [3, 0, 3]) for i in range(len(plain))]
    for memory, again in ((100, 0), (1e-6, len(plain) - 1)):  # the second has room for one clip alone
        data = open_recognition(folders["lists"], keep_mb=memory)
        for i, frames in enumerate(expected):
            assert torch.equal(data.frames(i, [3, 0, 3]), frames)
        decoded.clear()
        for i, frames in enumerate(expected):
            assert torch.equal(data.frames(i, [3, 0, 3]), frames)
        assert len(decoded) == again


def test_training_samples_decode_once_and_augment_often(folders: dict[str, Path]) -> None:
    images = open_recognition(folders["folders"], subset="train")
    settings = TransformSettings(24, MEAN, STD)
    torch.manual_seed(0)
    sample = RecognitionSamples(images, train_transform(settings), repeats=3)[0]
    assert sample["pixels"].shape == (3, 3, 24, 24)
    assert not torch.equal(sample["pixels"][0], sample["pixels"][1])
    assert sample["source"] == images.source(0)
    clips = open_recognition(folders["lists"], subset="train")
    samples = RecognitionSamples(clips, PLAIN, num_frames=4)
    assert samples[1]["pixels"].shape == (1, 3, 4, 24, 24)
    assert RecognitionSamples(clips, PLAIN)[1]["pixels"].shape == (1, 3, 24, 24)  # for image models
    torch.manual_seed(7)
    first = samples[2]["pixels"]
    torch.manual_seed(7)
    assert torch.equal(samples[2]["pixels"], first)


def test_views_are_clip_by_clip_with_crops_inside(tmp_path: Path) -> None:
    for word in ("a", "b"):
        (tmp_path / word).mkdir()
        write_video(tmp_path / word / "clip.mp4", 40, size=(48, 64))
    data = open_recognition(tmp_path)
    views = RecognitionViews(data, "kinetics/3x4", image_size=48, mean=(0, 0, 0), std=(1, 1, 1), num_frames=4)
    pixels = views[1]["pixels"]
    assert pixels.shape == (12, 3, 4, 48, 48)
    clips = pixels.unflatten(0, (4, 3))
    torch.testing.assert_close(clips[:, 0, ..., 8:], clips[:, 1, ..., :-8])  # crops lie 8 pixels apart
    single = RecognitionViews(data, "clip/1x1", image_size=48, mean=(0, 0, 0), std=(1, 1, 1), num_frames=4)
    assert single[0]["pixels"].shape == (1, 3, 4, 48, 48)
    same = load_views(
        tmp_path / "b" / "clip.mp4",
        "kinetics/3x4",
        image_size=48,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        num_frames=4,
    )
    assert torch.equal(same, pixels)


def test_corruptions_see_the_pixels_that_the_model_is_to_see(folders: dict[str, Path]) -> None:
    data = open_recognition(folders["packed"], subset="test")
    seen = []

    def black(crops: torch.Tensor, source: str) -> torch.Tensor:
        seen.append((tuple(crops.shape), crops.dtype, source))
        return torch.zeros_like(crops)

    views = RecognitionViews(data, "image/center-1.0", image_size=32, mean=MEAN, std=STD, corrupt=black)
    assert views[3]["pixels"].unique().tolist() == [-1.0]
    assert seen == [((1, 3, 32, 32), torch.uint8, data.source(3))]


def test_what_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    images, clips = open_recognition(folders["packed"]), open_recognition(folders["lists"])
    with pytest.raises(ValueError, match=r"kinetics/3x4 is for videos.*image/center-0.875"):
        RecognitionViews(images, "kinetics/3x4", image_size=32, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="num_frames is 4 and the data are images"):
        RecognitionSamples(images, PLAIN, num_frames=4)
    with pytest.raises(ValueError, match="did you mean 'sparse'"):
        RecognitionSamples(clips, PLAIN, num_frames=4, sampling="spase")
    with pytest.raises(ValueError, match="is a video"):
        clips.image(0)
    with pytest.raises(ValueError, match="did you mean 'folders'"):
        open_recognition(folders["folders"], layout="folder")
    with pytest.raises(ValueError, match="has a test side of its own"):
        open_recognition(folders["folders"], split=2)


REAL = {
    "cifar10_small": ({}, "packed", "image", 6000, 10, ""),
    "surveillance_fights": ({}, "folders", "video", 224, 2, "source"),
    "skate_tricks": ({}, "folders", "video", 151, 2, ""),
    "gesture_images/body": ({}, "folders", "image", 700, 14, ""),
    "fir_actions": ({"layout": "segments"}, "segments", "video", 210, 9, "video"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} in {DATA}; set FRAMECAST_DATA to a folder that has it")
    options, layout, kind, items, num_classes, group_by = REAL[name]
    train, test = (open_recognition(DATA / name, subset=side, **options) for side in ("train", "test"))
    found = (train.layout, train.kind, len(train) + len(test), len(train.classes), train.group_by)
    assert found == (layout, kind, items, num_classes, group_by)
    assert 0.15 < len(test) / items < 0.25
    groups = [{item.group for item in data.items if item.group} for data in (train, test)]
    assert not groups[0] & groups[1]
    settings = {"image_size": 32, "mean": MEAN, "std": STD}
    if kind == "image":
        views = RecognitionViews(test, "image/center-0.875", **settings)
        assert views[len(test) - 1]["pixels"].shape == (1, 3, 32, 32)
    else:
        views = RecognitionViews(test, "ssv2/3x2", num_frames=8, **settings)
        assert views[len(test) - 1]["pixels"].shape == (6, 3, 8, 32, 32)
        assert np.isfinite(views[0]["pixels"].numpy()).all()
