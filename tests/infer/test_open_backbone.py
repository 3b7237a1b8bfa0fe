"""The weights of a backbone are found wherever they are, and are those of the backbone that was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

import framecast as fc
from framecast.infer.backbone import (
    KNOWN_WEIGHTS,
    backbone_factory,
    feature_settings,
    open_backbone,
    start_model,
)
from framecast.registry import find
from hugging_face import hugging_face

TINY: dict[str, Any] = {"width": 64, "depth": 2, "num_heads": 1, "image_size": 70}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return fc.create_model("vit_small_dinov2", **TINY).eval()


@pytest.fixture
def release(model: Any, tmp_path: Path) -> Path:
    """A folder as the hub has it: weights and the configuration of another library."""
    folder = tmp_path / "dinov2"
    folder.mkdir()
    save_file(
        {k: t.contiguous() for k, t in hugging_face(model.state_dict()).items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 64}))
    return folder


def assert_same(found: Any, model: Any) -> None:
    images = torch.randn(1, 3, 70, 70)
    with torch.no_grad():
        assert torch.equal(found.forward_features(images), model.forward_features(images))


def test_a_saved_model(model: Any, tmp_path: Path) -> None:
    found, source = open_backbone("vit_small_dinov2", str(fc.save(model, tmp_path / "saved")))
    assert source == str(tmp_path / "saved")
    assert_same(found, model)


def test_a_release_as_a_file_a_folder_and_on_the_hub(
    model: Any, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(release))
    for weights in (str(release / "model.safetensors"), str(release), "facebook/dinov2-tiny"):
        found, source = open_backbone("vit_small_dinov2", weights)
        assert source == weights
        assert_same(found, model)


def test_a_training_starts_from_a_saved_model_as_it_is(tmp_path: Path) -> None:
    """Tensors do not tell all: neither the pattern of the layers nor the number of heads."""
    sizes = {"width": 32, "depth": 4, "image_size": 32, "patch_size": 8}
    images = torch.randn(2, 3, 32, 32)
    for name, settings in {
        "stablemamba_tiny": sizes | {"pattern": "1:1", "num_heads": 4, "combine": "mean", "drop_path": 0.5},
        "vit_tiny": sizes | {"num_heads": 4, "drop_path": 0.5},
    }.items():
        torch.manual_seed(0)
        saved = fc.create_model(name, **settings).eval()
        started: Any = start_model(name, str(fc.save(saved, tmp_path / name)), {"image_size": 32})
        assert started.config == replace(saved.config, drop_path=0.0)
        assert torch.equal(started(images), saved(images))
    clips = {"image_size": 32, "num_frames": 1}
    clip_model: Any = start_model("stablemamba_tiny", str(tmp_path / "stablemamba_tiny"), clips)
    assert_close(clip_model(images[:, :, None]), fc.load(tmp_path / "stablemamba_tiny")(images))
    joint: Any = start_model("vit_tiny_joint", str(tmp_path / "vit_tiny"), clips)
    assert joint.config.num_heads == 4


def test_weights_of_another_backbone_are_refused(model: Any, tmp_path: Path) -> None:
    fc.save(model, tmp_path / "saved")
    with pytest.raises(ValueError, match="holds weights of vit_small_dinov2, not of vit_base"):
        open_backbone("vit_base", str(tmp_path / "saved"))


def test_what_brings_the_known_weights_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"the weights of vit_base_dinov2 are not here .* connection"):
        open_backbone("vit_base_dinov2")


def test_known_weights_are_of_registered_backbones_and_blocks() -> None:
    for name, known in KNOWN_WEIGHTS.items():
        assert "backbone" in find("model", name).tags
        assert known.layer is None or known.layer < 12
        settings = feature_settings(name)
        assert (settings.weights, settings.layer) == (known.source, known.layer)


def test_other_weights_do_not_take_the_best_block_of_the_known_ones(release: Path) -> None:
    settings = feature_settings("vit_small_dinov2", str(release))
    assert settings.layer is None
    assert Path(settings.weights).is_absolute()


def test_blocks_that_are_not_there(release: Path) -> None:
    with pytest.raises(ValueError, match="has blocks 0 to 1, layer 9 is none"):
        backbone_factory(feature_settings("vit_small_dinov2", str(release), layer=9))
