"""The dial meets one number on the images that it is given, says what it found, and is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import framecast as fc
from framecast.checkpoints import card_of
from framecast.data.synthetic_recognition import write_recognition_lookalike
from framecast.infer.token_search import Search, nearest
from framecast.infer.token_statistics import bars, macs_around_blocks, token_statistics
from framecast.profile.counting import count

SMALL = {"width": 24, "depth": 6, "num_heads": 3, "patch_size": 4, "image_size": 32, "num_classes": 5}


def sharpened(name: str = "vit_tiny", **config: Any) -> Any:
    """Random weights whose attention is not flat, so that images differ in what they keep."""
    torch.manual_seed(0)
    model = fc.create_model(name, **SMALL | config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "attn.qkv.weight" in key:
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module")
def host() -> Any:
    return sharpened()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def measured(model: Any, images: Tensor) -> Any:
    with torch.inference_mode(), model.record() as record:
        model(images)
    return token_statistics(model, record, macs_around_blocks(model, images))


@pytest.mark.parametrize(
    "target",
    [{"macs": 0.4}, {"macs": 0.6}, {"macs": 3e6}, {"tokens": 0.3}, {"tokens": 25}],
    ids=lambda t: "-".join(f"{k}={v:g}" for k, v in t.items()),
)
def test_the_target_is_met_on_the_images(host: Any, images: Tensor, target: dict[str, Any]) -> None:
    model, report = fc.calibrate(host, images, **target)
    found = measured(model, images)
    ((unit, value),) = target.items()
    whole = found.full_macs if unit == "macs" else found.tokens
    reached = found.macs if unit == "macs" else found.left[-1]
    wanted = value * whole if value < 1 else value
    assert reached == pytest.approx(report.reached)
    assert abs(reached - wanted) <= max(0.01 * wanted, 0.5 if unit == "tokens" else 0)
    assert report.met
    assert report.statistics == found
    assert report.statistics.inputs == len(images)
    assert f"on {len(images)} inputs" in str(report)
    assert fc.calibrate(host, images, **target)[1].sampling == report.sampling


def test_where_the_published_blocks_leave_too_little_sampling_begins_later(host: Any, images: Tensor) -> None:
    published = fc.adaptive(host).config.blocks
    cheap, dear = (fc.calibrate(host, images, macs=macs)[0].config.blocks for macs in (0.4, 0.7))
    assert cheap == published
    assert dear == published[-len(dear) :]
    assert len(dear) < len(published)


def test_where_one_stage_leaves_next_to_nothing_the_nearest_costs_are_named() -> None:
    host = sharpened()
    with torch.no_grad():
        for block in host.blocks:
            block.attn.qkv.weight.mul_(8)
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match=r"leaves .* from block 2 on and .* from block 3 on; ask for one"):
        fc.calibrate(host, pixels, macs=0.45)


def test_searched_blocks_move_answers_least(host: Any, images: Tensor) -> None:
    _, plain = fc.calibrate(host, images, macs=0.45)
    model, searched = fc.calibrate(host, images, macs=0.45, blocks="search")
    assert searched.met
    assert len(searched.tried) > 1
    assert searched.moved == min(spread.moved for spread in searched.tried)
    assert searched.moved <= plain.moved
    assert model.config.blocks == searched.sampling["blocks"]
    assert "spreads" in str(searched)


def test_an_adaptive_model_keeps_its_other_settings(host: Any, images: Tensor) -> None:
    own = fc.adaptive(host, blocks=[2, 4], grid="paper", semantics="mask")
    model, _ = fc.calibrate(own, images, macs=0.6)
    config = model.config
    assert (config.blocks, config.grid, config.semantics) == ((2, 4), "paper", "mask")
    assert model.host is host


def test_milliseconds_are_searched_for_like_the_rest(
    host: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that takes a nanosecond for each multiply-add."""

    def takes(self: Search, model: Any, rounds: int = 1) -> float:
        whole = count(host, images[:1], whole=True).total.macs
        return (whole if model is host else self.look(model)[0].macs) / 1e6

    monkeypatch.setattr(Search, "time", takes)
    model, report = fc.calibrate(host, images, ms=2.5)
    assert report.met
    assert measured(model, images).macs / 1e6 == pytest.approx(2.5, rel=0.1)
    assert report.timing is not None
    assert report.timing["batch"] == 1
    assert "ms unmodified" in str(report)
    with pytest.raises(ValueError, match=r"2e\+03 ms is wanted, and the unmodified model has"):
        fc.calibrate(host, images, ms=2000)
    with pytest.raises(ValueError, match="the unmodified model takes"):
        fc.calibrate(host, images, ms=0.01)


def test_time_is_really_taken(host: Any, images: Tensor) -> None:
    search = Search(fc.adaptive(host), images, "macs", 0.5, None, batch=4)
    assert search.time(host, rounds=1) > 0


def test_a_machine_that_changes_its_mind_is_reported(
    host: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes(self: Search, model: Any, rounds: int = 5) -> float:
        whole = self.look(model)[0].macs if model is not host else 1e9
        return whole / 1e6 * (3 if rounds > 5 else 1)  # slower whenever it is looked at closely

    monkeypatch.setattr(Search, "time", takes)
    with pytest.warns(UserWarning, match="times vary here"):
        _, report = fc.calibrate(host, images, ms=2.5)
    assert not report.met


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "given are none"),
        ({"macs": 0.5, "ms": 3}, "given are macs and ms"),
        ({"macs": 1}, "unmodified model"),
        ({"macs": -1}, "must be above 0"),
        ({"macs": 1e12}, "the unmodified model has .* ask for less"),
        ({"tokens": 66}, "the unmodified model has 65.0 tokens"),
        ({"macs": 0.1}, "leaves between .* let earlier blocks sample too"),
        ({"macs": 0.1, "blocks": "search"}, "none of .* spreads meets the target"),
        ({"macs": 0.8, "blocks": [1]}, "block 1 leaves between .* let fewer or later"),
        ({"macs": 0.99}, "leaves between .*; ask for less"),
        ({"macs": 0.5, "blocks": [9]}, "block 9 cannot sample"),
        ({"macs": 0.5, "blocks": "all"}, "or 'search'"),
        ({"macs": 0.5, "batch": 0}, "batch is 0"),
        ({"macs": 0.5, "tolerance": 1e-9}, "nearest that can be met"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(
    host: Any, images: Tensor, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        fc.calibrate(host, images, **settings)


def test_a_saved_model_samples_as_calibrated(host: Any, images: Tensor, tmp_path: Path) -> None:
    model, report = fc.calibrate(host, images, macs=0.5)
    loaded: Any = fc.load(fc.save(model, tmp_path / "adapted"))
    assert loaded.config.sampling() == report.sampling
    torch.testing.assert_close(loaded(images), model(images))
    assert card_of(loaded).notes["calibration"]["statistics"]["inputs"] == len(images)
    assert report.dial() in (tmp_path / "adapted" / "README.md").read_text()
    assert "calibration" not in card_of(host).notes


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("vit_tiny_joint", {"num_frames": 4, "patch_size": 8}),
        ("timesformer_base", {"num_frames": 4, "patch_size": 8, "image_size": 48}),
        ("xvit_base", {"num_frames": 4, "group_frames": 4, "patch_size": 8, "image_size": 48}),
    ],
)
def test_models_of_clips_have_the_dial_too(name: str, config: dict[str, Any]) -> None:
    host = sharpened(name, **config)
    side = host.config.image_size
    clips = torch.randn(4, 3, 4, side, side, generator=torch.Generator().manual_seed(2))
    _, report = fc.calibrate(host, clips, macs=0.5, tolerance=0.03)
    assert report.statistics.share == pytest.approx(0.5, rel=0.03)
    patches = 4 * (side // 8) ** 2
    frames = 1 if "joint" in name else 4
    assert report.statistics.tokens == patches // host.config.__dict__.get("tubelet", 1) + frames


def test_folders_are_read_as_the_model_was_evaluated(tmp_path: Path) -> None:
    write_recognition_lookalike("folders", tmp_path / "images", kind="image")
    host = sharpened(image_size=64)
    _, report = fc.calibrate(host, tmp_path / "images", macs=0.5, limit=6)
    assert report.statistics.inputs == 6
    with pytest.raises(FileNotFoundError, match="matches no file"):
        fc.calibrate(host, tmp_path / "nothing", macs=0.5)
    with pytest.raises(ValueError, match="limit is 0"):
        fc.calibrate(host, tmp_path / "images", macs=0.5, limit=0)
    with pytest.raises(ValueError, match="is expected"):
        fc.calibrate(host, torch.zeros(3, 64, 64), macs=0.5)
    with pytest.raises(ValueError, match="normalise them"):
        fc.calibrate(host, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), macs=0.5)


def test_a_timm_model_keeps_the_settings_in_a_file(images: Tensor, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 4, "depth": 6, "num_classes": 5}
    plain = timm.create_model("vit_tiny_patch16_224", **settings).eval()
    model, report = fc.calibrate(plain, images, macs=0.45)
    kept = json.loads(report.write(tmp_path / "sampling.json").read_text())
    again = fc.adaptive(plain, **kept["sampling"])
    torch.testing.assert_close(again(images), model(images))
    with pytest.raises(ValueError, match="only those can be saved"):
        fc.save(model, tmp_path / "model")
    write_recognition_lookalike("folders", tmp_path / "files", kind="image", per_class=1)
    assert fc.calibrate(plain, tmp_path / "files", macs=0.45, tolerance=0.05)[1].met


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_place_is_found_in_few_looks(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    heights = torch.rand(1000, generator=random).pow(4).cumsum(0)
    target = float(heights[0] + torch.rand((), generator=random) * (heights[-1] - heights[0]))
    looks = []

    def value(place: int) -> float:
        looks.append(place)
        return float(heights[place])

    found = nearest(value, target, 999, close=0.0)
    assert abs(heights[found] - target) == (heights - target).abs().min()
    assert len(looks) <= 22
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("name", ["vit_tiny", "vit_tiny_joint"])
def test_multiply_adds_are_those_of_the_profile(name: str) -> None:
    host = sharpened(name, **({"num_frames": 4} if "joint" in name else {}))
    pixels = torch.randn(2, 3, *([4] if "joint" in name else []), 32, 32)
    model = fc.adaptive(host, budget=0.5)
    found = measured(model, pixels)
    assert found.full_macs == count(host, pixels[:1], whole=True).total.macs
    assert found.fewest_macs <= found.macs <= found.most_macs < found.full_macs


def test_histograms_hold_every_input(host: Any, images: Tensor) -> None:
    model = fc.adaptive(host, budget=0.5)
    found = measured(model, images)
    assert found.blocks == model.config.blocks[:-1]  # the last one hands on the class token alone
    with model.record() as record:
        model(images)
    for i, histogram in enumerate(found.histograms):
        assert sum(histogram) == len(images)
        shares = record.counts[:, i] / found.tokens
        assert histogram[4] == int(((shares > 0.4) & (shares <= 0.5)).sum())
    assert bars([0, 1, 100]) == "·▁█"


def test_a_record_without_ids_counts_the_same(host: Any, images: Tensor) -> None:
    model = fc.adaptive(host, budget=0.5)
    with model.record() as whole:
        model(images)
    with model.record(with_ids=False) as lean:
        model(images)
    assert torch.equal(whole.counts, lean.counts)
    assert lean.ids == []
    assert (lean.num_patches, lean.sequences) == (64, 1)
