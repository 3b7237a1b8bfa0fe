"""Every registered model builds, runs, learns, is saved and exported; registering one is enough.

Models are shrunk by the names of their settings (`SMALL`) and fed by their tags (`inputs_of`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.checkpoints import ModelCard, card_of
from framecast.registry import Entry, find
from framecast.structures import Provenance

SMALL = {
    "num_classes": 5,
    "feature_dim": 12,
    "num_stages": 2,
    "num_layers": 2,
    "depth": 2,
    "width": 48,
    "num_heads": 3,
    "patch_size": 8,
    "image_size": 32,
    "num_frames": 4,
    "group_frames": 2,
    "time_steps": 2,
    "temporal_heads": 3,
    "head_width": 24,
    "pattern": "1:1",
    "window": 8,
    "stride": 4,
    "llm_width": 40,
}
SMALL_MAPS: dict[str, Any] = {
    "in_channels": 6,
    "widths": (8, 16, 32),
    "depths": (2, 1, 1),
    "decoder_depths": (1, 1, 2),
    "heads": (2, 2, 4),
    "decoder_heads": (2, 2, 2),
    "drop_path": 0.01,  # whole branches left out have no gradient
    "window": 4,
}
GRID = (21, 26)
VIDEOS, FRAMES = 3, 37
LENGTHS = torch.tensor([37, 20, 9])


def tagged(tag: str) -> list[str]:
    return [name for name in fc.list_models() if tag in find("model", name).tags]


# models that are half a language model have tests of their own: tests/models/test_video_panda_model.py
every_model = pytest.mark.parametrize(
    "name", [n for n in fc.list_models() if "language" not in find("model", n).tags]
)


@cache
def on_meta(name: str) -> Any:
    with torch.device("meta"):
        return fc.create_model(name)


def small(name: str, **config: Any) -> Any:
    """A small model of that name with weights that are far from any special value."""
    default = on_meta(name).config
    sizes = SMALL_MAPS if "maps" in find("model", name).tags else SMALL
    settings = {
        f.name: sizes[f.name] for f in fields(default) if f.name in sizes and getattr(default, f.name)
    }
    torch.manual_seed(0)
    model = fc.create_model(name, **settings | config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def inputs_of(entry: Entry) -> tuple[Tensor, ...]:
    """A batch as the model's kind takes it; sequences come with a mask."""
    torch.manual_seed(1)
    if "recognition" in entry.tags:
        return (pixels(entry.name, VIDEOS),)
    if "ask" in entry.tags:
        return (torch.randn(VIDEOS, 3, SMALL["num_frames"], 32, 32),)
    if "danger" in entry.tags:  # daily maps, static ones, day of the year
        c = on_meta(entry.name).config
        cells = (c.window_cells, c.window_cells)
        maps = torch.rand(VIDEOS, c.num_dynamic, c.num_days, *cells), torch.rand(VIDEOS, c.num_static, *cells)
        return *maps, torch.tensor([1, 200, 366])
    if "maps" in entry.tags:
        steps = [4] if "steps" in entry.tags else []
        return (torch.randn(VIDEOS, SMALL_MAPS["in_channels"], *steps, *GRID),)
    if "rows" in entry.tags:
        return (torch.rand(VIDEOS, SMALL["num_classes"], 128),)
    mask = torch.arange(FRAMES) < LENGTHS[:, None]
    if "tokens" in entry.tags:
        return torch.randn(VIDEOS, SMALL["num_classes"] + 1, FRAMES) * mask[:, None], mask
    if "diffusion" in entry.tags:  # x_t, times, observation, the last x̂_0, mask
        x = torch.randn(VIDEOS, 12 + 2 * SMALL["num_classes"], FRAMES) * mask[:, None]
        noisy, self_cond, observed = x.split([SMALL["num_classes"], SMALL["num_classes"], 12], dim=1)
        return noisy, torch.tensor([999, 500, 3]), observed, self_cond, mask
    known = {"segmentation", "frames"} & set(entry.tags)
    assert known, f"say here what models with the tags {entry.tags} take"
    return torch.randn(VIDEOS, 12, FRAMES) * mask[:, None], mask


def pixels(name: str, batch: int, height: int = 32, width: int = 32) -> Tensor:
    """Images, or clips for a model that reads them."""
    frames = [SMALL["num_frames"]] if reads_clips(name) else []
    return torch.randn(batch, 3, *frames, height, width)


def reads_clips(name: str) -> bool:
    return bool(getattr(on_meta(name).config, "num_frames", None))


def documented_shape(entry: Entry, model: Any) -> tuple[int, ...]:
    c = model.config
    if "recognition" in entry.tags:
        return (VIDEOS, c.num_classes or c.width)
    if "ask" in entry.tags:  # of each frame 2 x 2 tokens, an end of each row, one in front
        return (VIDEOS, c.num_frames, 1 + 2 * (2 + 1), c.llm_width)
    if "danger" in entry.tags:
        return (VIDEOS, c.num_classes)
    if "maps" in entry.tags:
        return (VIDEOS, len(c.targets), *GRID)
    if "tokens" in entry.tags:  # scores, length of the next segment, rest of this one
        return (VIDEOS, c.num_classes + 2)
    if "rows" in entry.tags:
        return (VIDEOS, c.num_classes, c.num_rows)
    return (getattr(c, "num_stages", 1), VIDEOS, c.num_classes, FRAMES)


@every_model
def test_parameter_count_is_the_stated_one(name: str) -> None:
    assert sum(p.numel() for p in on_meta(name).parameters()) == find("model", name).params


@every_model
def test_output_has_the_documented_shape(name: str) -> None:
    model, entry = small(name), find("model", name)
    with torch.inference_mode():
        out = model(*inputs_of(entry))
    assert tuple(out.shape) == documented_shape(entry, model)
    assert torch.isfinite(out).all()


@every_model
def test_every_parameter_has_a_finite_gradient(name: str) -> None:
    model, inputs = small(name).train(), inputs_of(find("model", name))
    loss = model(*inputs).square().mean()
    if hasattr(model, "forward_features"):  # scores need not depend on all that the last block does
        loss = loss + model.forward_features(*inputs).square().mean()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {key} is not finite"
        assert parameter.grad.abs().max() > 0, f"the gradient of {key} is zero"


@every_model
def test_saving_and_loading_changes_no_bit(name: str, tmp_path: Path) -> None:
    model, inputs = small(name), inputs_of(find("model", name))
    made = Provenance("vit_tiny", "0123", 3, "cls", (32, 32), (0.5,) * 3, (0.2,) * 3, 0.5, "tiny")
    card = ModelCard("segmentation", ("a", "b"), made, 2, "a test", "none", {"scores": {"edit": 1.5}})
    again = fc.load(fc.save(model, tmp_path / "saved", card))
    assert again.registered_name == name
    assert again.config == model.config
    assert card_of(again) == card
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    with torch.inference_mode():
        assert torch.equal(model(*inputs), again(*inputs))


@every_model
def test_batch_of_one_equals_part_of_a_batch(name: str) -> None:
    model, entry = small(name), find("model", name)
    assert_alone_equals_batch(model, entry)


@pytest.mark.parametrize("grad", [False, True], ids=["fast path", "differentiable path"])
@pytest.mark.parametrize("name", tagged("segmentation"))
def test_what_padding_holds_changes_nothing(name: str, grad: bool) -> None:
    features, mask = inputs_of(find("model", name))
    model = small(name)
    with torch.set_grad_enabled(grad):
        clean, dirty = model(features, mask), model(features + 3.0 * ~mask[:, None], mask)
    valid = mask[None, :, None].expand_as(clean)
    assert_close(clean[valid], dirty[valid], rtol=1e-5, atol=1e-6)


def assert_alone_equals_batch(model: nn.Module, entry: Entry) -> None:
    inputs = inputs_of(entry)
    with torch.no_grad():
        together = model(*inputs)
        for i in range(VIDEOS):
            if "danger" in entry.tags:
                alone, part = model(*(x[i : i + 1] for x in inputs))[0], together[i]
                assert_close(alone, part, rtol=1e-4, atol=1e-5)
                continue
            frames = int(LENGTHS[i])
            own = [x[i : i + 1, :, :frames] if x.ndim == 3 else x[i : i + 1] for x in inputs[:-1]]
            if "tokens" in entry.tags:
                alone, part = model(*own)[0], together[i]
            elif len(inputs) > 1:
                alone, part = model(*own)[:, 0], together[:, i, :, :frames]
            else:
                alone, part = model(inputs[0][i : i + 1])[0], together[i]
            assert_close(alone, part, rtol=1e-4, atol=1e-5)


def export(model: nn.Module, *inputs: Tensor) -> torch.export.ExportedProgram:
    """The program for batches of any size."""
    with torch.no_grad():
        any_batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
        return torch.export.export(model, inputs, dynamic_shapes=any_batch)


@every_model
def test_export_gives_the_same_numbers_for_any_batch(name: str) -> None:
    model = small(name)
    inputs = inputs_of(find("model", name))
    masked = len(inputs) > 1 and "danger" not in find("model", name).tags
    inputs = inputs[:-1] if masked else inputs  # sequences without a mask
    program = export(model, *(x[:2] for x in inputs)).module()
    with torch.no_grad():
        for size in (VIDEOS, 1):
            batch = [x[:size] for x in inputs]
            assert_close(program(*batch), model(*batch), rtol=1e-4, atol=1e-5)


def forms(name: str) -> list[int | None]:
    """Values of num_frames: an image model that can be one for clips counts twice."""
    own = getattr(on_meta(name).config, "num_frames", 0)
    return [None, 8] if own is None else [own or None]


@pytest.mark.parametrize(("name", "frames"), [(n, f) for n in tagged("recognition") for f in forms(n)])
def test_every_size_is_exported(name: str, frames: int | None) -> None:
    """In its own width, image size and clip length, without computing anything; two of its many blocks.

    benchmarks/export.py compares the numbers of all sizes with all blocks.
    """
    config: dict[str, Any] = {"depth": 2} | ({"num_frames": frames} if frames else {})
    if hasattr(on_meta(name).config, "pattern"):
        config["pattern"] = "1:1"
    with torch.device("meta"):
        model = fc.create_model(name, **config).eval()
        program = export(model, torch.empty(2, *input_shape(model)))
    (scores,) = (node for node in program.graph.nodes if node.op == "output")
    assert scores.args[0][0].meta["val"].shape[1:] == (model.config.num_classes or model.config.width,)


def input_shape(model: Any) -> tuple[int, ...]:
    """(3, H, W) or (3, T, H, W) as the config says."""
    c = model.config
    height, width = (c.image_size,) * 2 if isinstance(c.image_size, int) else c.image_size
    frames = getattr(c, "num_frames", None)
    return (3, *([frames] if frames else []), height, width)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["vit_tiny", "vit_tiny_joint", "videomamba_tiny", "stablemamba_tiny", "timesformer_base", "xvit_base"],
)
def test_a_whole_model_of_every_family_is_exported(name: str) -> None:
    """All blocks, on small pixels."""
    model = fc.create_model(name).eval()
    x = torch.randn(2, *input_shape(model)[:-2], 64, 64)
    with torch.no_grad():
        assert_close(export(model, x).module()(x), model(x), rtol=1e-4, atol=1e-5)


@every_model
def test_unknown_and_impossible_settings_are_named(name: str) -> None:
    fields_of = {f.name for f in fields(on_meta(name).config)}
    key = next(key for key in ("num_classes", "in_channels", "llm_width") if key in fields_of)
    slip = key[:-2] + key[-1]  # num_classs
    with pytest.raises(ValueError, match=rf"no setting '{slip}', did you mean '{key}'\?"):
        fc.create_model(name, **{slip: 3})
    with pytest.raises(ValueError, match=f"{key} is 'three'"):
        fc.create_model(name, **{key: "three"})
    with pytest.raises(ValueError, match=f"{key} is -3; it must be zero or more"):
        fc.create_model(name, **{key: -3})


@pytest.mark.parametrize("name", tagged("backbone"))
class TestBackbone:
    """What `framecast features` asks of a backbone."""

    def test_tokens(self, name: str) -> None:
        model = small(name)
        given = pixels(name, 2, 2 * model.stride, 5 * model.stride)
        tokens = model.forward_features(given)
        num_patches = 10 * (SMALL["num_frames"] if reads_clips(name) else 1)
        assert tokens.shape == (2, model.num_prefix_tokens + num_patches, model.feature_dim)
        assert model.forward_features(given, layer=0).shape == tokens.shape
        assert len(model.config.mean) == len(model.config.std) == 3

    def test_the_last_block_is_the_output_before_its_norm(self, name: str) -> None:
        model = small(name)
        given = pixels(name, 1)
        last = model.forward_features(given, layer=model.config.depth - 1)
        norm = model.norm_f if hasattr(model, "norm_f") else model.norm
        assert_close(norm(last), model.forward_features(given))

    def test_the_head_reads_the_tokens(self, name: str) -> None:
        """`forward` may leave out what the head does not read; the scores are the same."""
        model = small(name)
        given = pixels(name, 2)
        assert_close(model(given), model.forward_head(model.forward_features(given)))

    def test_every_parameter_is_in_one_layer(self, name: str) -> None:
        model = small(name)
        groups = model.layer_groups()
        assert len(groups) == model.config.depth + 2
        for key, _ in model.named_parameters():
            homes = [i for i, group in enumerate(groups) for p in group if f"{key}.".startswith(f"{p}.")]
            assert len(homes) == 1, f"{key} is in the layers {homes}"
        assert {key for key in model.no_weight_decay() if "pos_embed" in key}

    def test_misfits_are_named(self, name: str) -> None:
        model = small(name)
        with pytest.raises(ValueError, match="30x32 pixels cannot be cut into patches of 8"):
            model(pixels(name, 1, height=30))
        with pytest.raises(ValueError, match=r"layer 2 asked of an? \w+ with (blocks|layers) 0\.\.1"):
            model.forward_features(pixels(name, 1), layer=2)


BOTH_FORMS = [n for n in tagged("backbone") if getattr(on_meta(n).config, "num_frames", 0) is None]


@pytest.mark.parametrize("name", BOTH_FORMS)
def test_the_form_for_clips(name: str, tmp_path: Path) -> None:
    """Models for images that become models for clips by `num_frames`."""
    model = small(name, num_frames=SMALL["num_frames"])
    clips = torch.randn(2, 3, SMALL["num_frames"], 32, 32)
    with torch.no_grad():
        logits = model(clips)
        assert logits.shape == (2, 5)
        assert_close(model(clips[:1])[0], logits[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(fc.load(fc.save(model, tmp_path / "saved"))(clips), logits)
        assert_close(export(model, clips).module()(clips[:1]), logits[:1], rtol=1e-4, atol=1e-5)


class TestFrameLinear:
    @pytest.mark.parametrize("config", [{"median_window": 5}, {"standardise": True}])
    def test_batch_of_one_equals_part_of_a_batch(self, config: dict[str, Any]) -> None:
        assert_alone_equals_batch(small("frame_linear", **config), find("model", "frame_linear"))

    def test_median_removes_an_outlier_and_keeps_an_edge(self) -> None:
        model = fc.create_model("frame_linear", num_classes=2, feature_dim=2, median_window=3).eval()
        with torch.no_grad():
            model.head.weight.copy_(5 * torch.eye(2))
            model.head.bias.zero_()
            labels = torch.tensor([0, 0, 0, 1, 0, 0, 1, 1, 1, 1])
            features = nn.functional.one_hot(labels).T.float()[None]
            smoothed = model(features)[0, 0].argmax(0)
        assert smoothed.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]

    def test_even_window_is_refused(self) -> None:
        with pytest.raises(ValueError, match="median_window must be odd"):
            fc.create_model("frame_linear", median_window=4)


@pytest.mark.parametrize("name", [n for n in fc.list_models() if hasattr(on_meta(n).config, "standardise")])
def test_standardised_model_does_not_care_for_the_scale_of_its_features(name: str) -> None:
    """Training statistics are kept in the model: scaled and shifted features give the same answer."""
    rng = np.random.default_rng(0)
    tracks = [rng.normal(size=(12, 50)).astype(np.float32) for _ in range(3)]
    scale, shift = np.float32(7), np.arange(12, dtype=np.float32)[:, None]
    outputs = []
    for a, b in ((np.float32(1), np.float32(0)), (scale, shift)):
        model = small(name, standardise=True)
        model.standardise.fit(a * track + b for track in tracks)
        with torch.no_grad():
            outputs.append(model(torch.from_numpy(a * tracks[0] + b)[None]))
    assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_configs_are_frozen_and_hold_what_the_name_says() -> None:
    model = fc.create_model("ltcontext", num_classes=3, feature_dim=4, num_stages=2, num_layers=1)
    with pytest.raises(AttributeError):
        model.config.window = 2
    assert replace(model.config, window=32).window == 32
    assert fc.list_models("vit_*dinov2") == ["vit_base_dinov2", "vit_small_dinov2"]
    with pytest.raises(ValueError, match="unknown model 'ltcontxt', did you mean 'ltcontext'"):
        fc.create_model("ltcontxt")
