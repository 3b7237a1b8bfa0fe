"""A frozen encoder as the eyes of a language model, and teachers of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.testing import assert_close

import framecast as fc
from framecast.models.video_panda_teachers import is_transformers_folder, read_vision_teacher
from tiny_language_model import tiny_language_model

VIT = {"image_size": 32, "patch_size": 8, "depth": 2, "width": 12, "num_heads": 2}
ENCODER = {"name": "vit_tiny", "config": VIT, "image_size": 32, "num_frames": 4}


def model_with_encoder(folder: Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    language = tiny_language_model(folder / "language")
    encoder = {**ENCODER, **settings}
    return fc.create_model("video_panda", language_model=str(language), template="chat", encoder=encoder)


def test_its_tokens_are_laid_out_as_those_of_the_block(tmp_path: Path) -> None:
    model = model_with_encoder(tmp_path)
    stab = {"width": 16, "num_heads": 2, "temporal_heads": 2, "patch_size": 8, "image_size": 32}
    other = fc.create_model("video_panda", language_model=str(tmp_path / "language"), stab=stab).eval()
    clip, valid = torch.randn(1, 3, 4, 32, 32), torch.zeros(1, 4, 32, 32, dtype=torch.bool)
    valid[:, :3, :16] = True  # a lying frame; the last one is empty
    (ours,), (theirs,) = model.eval().see(clip, valid), other.see(clip, valid)
    assert ours.grids == ((1, 2), (1, 2), (1, 2), (0, 0))
    assert ours.grids[:3] == theirs.grids[:3]
    assert [len(frame) for frame in ours.frames[:3]] == [len(frame) for frame in theirs.frames[:3]]
    assert len(ours.frames[3]) == 0


def test_a_frame_is_seen_alone_and_where_it_is(tmp_path: Path) -> None:
    """A change in one frame changes that frame's tokens only."""
    model = model_with_encoder(tmp_path).eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    changed = clip.clone()
    changed[:, :, 2] += torch.randn(32, 32)
    (before,), (after,) = model.see(clip), model.see(changed)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(before.frames, after.frames, strict=True)]
    assert same == [True, True, False, True]
    patches = model.stab.encoder.forward_features(clip[:, :, 0], None)[:, 1:]
    wanted = torch.nn.functional.layer_norm(patches, (12,)).unflatten(1, (4, 4))[0, :2, :2].mean((0, 1))
    assert_close(before.frames[0][1], model.stab.projector(wanted))


def test_only_the_map_and_the_row_ends_are_trained(tmp_path: Path) -> None:
    model = model_with_encoder(tmp_path).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"stab.projector.weight", "stab.projector.bias", "stab.row_token"}
    assert not model.stab.encoder.training
    folder = fc.save(model, tmp_path / "saved")
    again: Any = fc.load(folder)
    clip = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(again.see(clip)[0].frames[1], model.eval().see(clip)[0].frames[1])


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set stab\.image_size to a multiple of 16"):
        model_with_encoder(tmp_path, image_size=40)
    language = str(tmp_path / "language")
    with pytest.raises(ValueError, match="the eyes of a model are one of them"):
        fc.create_model("video_panda", language_model=language, encoder=ENCODER, stab={"width": 16})


SMALL = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL |= {"image_size": 32, "patch_size": 8}


@pytest.mark.parametrize("family", ["clip", "dinov2", "siglip"])
def test_teachers_of_the_library(family: str, tmp_path: Path) -> None:
    """Whatever stands in front of the patches is counted; frames of other sizes are read."""
    prefix = {"clip": 1, "dinov2": 1, "siglip": 0}[family]
    made = {
        "clip": lambda: transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**SMALL, intermediate_size=16)
        ),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=2)),
        "siglip": lambda: transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(**SMALL, intermediate_size=16)
        ),
    }
    torch.manual_seed(0)
    made[family]().save_pretrained(tmp_path)
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    assert is_transformers_folder(tmp_path)
    teacher = read_vision_teacher(tmp_path)
    assert (teacher.stride, teacher.feature_dim, teacher.num_prefix_tokens) == (8, 12, prefix)
    assert teacher.config.mean == (0.5, 0.4, 0.3)
    assert not any(p.requires_grad for p in teacher.parameters())
    images = torch.randn(2, 3, 48, 48)
    assert teacher.forward_features(images).shape == (2, prefix + 36, 12)
    assert not torch.equal(teacher.forward_features(images, 0), teacher.forward_features(images, 1))
    with pytest.raises(ValueError, match=r"layer 3 asked of a teacher with blocks 0\.\.2"):
        teacher.forward_features(images, 3)


def test_what_is_no_teacher_is_told(tmp_path: Path) -> None:
    language = tiny_language_model(tmp_path / "language")
    with pytest.raises(ValueError, match="which has no patches to be a teacher of"):
        read_vision_teacher(language)
    assert not is_transformers_folder(tmp_path)
    torch.manual_seed(0)
    assert not is_transformers_folder(fc.save(fc.create_model("vit_tiny", **VIT), tmp_path / "ours"))


def test_tokens_as_long_as_words(tmp_path: Path) -> None:
    """Their directions stay, however long they have grown; empty frames stay empty."""
    free = model_with_encoder(tmp_path).eval()
    model = fc.create_model(
        "video_panda", **{**vars(free.config), "word_length": True, "llm_fingerprint": ""}
    ).eval()
    model.load_state_dict(free.state_dict(), strict=False)
    with torch.no_grad():
        for eyes in (free.stab, model.stab):
            eyes.projector.weight.mul_(50)
    clip, valid = torch.randn(1, 3, 4, 32, 32), torch.ones(1, 4, 32, 32, dtype=torch.bool)
    valid[:, 3] = False
    (ours,), (grown,) = model.see(clip, valid), free.see(clip, valid)
    words = model.language_model.get_input_embeddings().weight.norm(dim=1).mean()
    assert_close(ours.frames[0].norm(dim=1), words.expand(len(ours.frames[0])))
    turned = torch.nn.functional.cosine_similarity(ours.frames[0], grown.frames[0])
    assert_close(turned, torch.ones_like(turned))
    assert len(ours.frames[3]) == 0
