"""VideoMamba: sizes, weights of other sizes and layouts, the shortcut of the last layer, initial values,
half precision, and the objectives that train it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import roots
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.videomamba import VideoMamba
from framecast.backbones.videomamba_pretraining import (
    MaskedPretraining,
    SelfDistillation,
    direction_loss,
    sample_hidden,
    sine_positions,
)

TINY: dict[str, Any] = {"width": 32, "depth": 3, "patch_size": 8, "image_size": 32, "num_classes": 5}


def tiny(seed: int = 0, **config: Any) -> VideoMamba:
    """A small model whose weights are far from any special value."""
    torch.manual_seed(seed)
    model = fc.create_model("videomamba_tiny", **TINY | config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def images(*sizes: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, *(sizes or (32, 32)))


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


# Sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "params"),
    [("tiny", 7_033_744), ("small", 25_568_656), ("middle", 73_875_856), ("base", 97_143_184)],
)
def test_published_parameter_counts_of_clip_models(size: str, params: int) -> None:
    """Kinetics-400, 8 frames; the counts of image models stand in the registry."""
    with torch.device("meta"):
        model = fc.create_model(f"videomamba_{size}", num_frames=8, num_classes=400)
    assert sum(p.numel() for p in model.parameters()) == params


@pytest.mark.parametrize("path", [p for r in roots() for p in (r / "videomamba").glob("*layout*.json")])
def test_names_and_shapes_of_the_release(path: Path) -> None:
    released = json.loads(path.read_text())["keys"]
    video = {"num_frames": 8, "num_classes": 400} if "temporal_pos_embedding" in released else {}
    with torch.device("meta"):
        model = fc.create_model("videomamba_tiny", **video)
    assert {key: list(t.shape) for key, t in model.state_dict().items()} == released


# The model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{}, {"combine": "mean"}, {"bidirectional": False}, {"num_frames": 4}, {"head_dropout": 0.5}],
    ids=str,
)
def test_logits_need_only_the_first_row_of_the_last_layer(config: dict[str, Any]) -> None:
    """`forward` takes a shortcut; the way through all tokens must give the same."""
    model = tiny(**config)
    x = images(4, 32, 32) if "num_frames" in config else images()
    assert_close(model(x), model.forward_head(model.forward_features(x)), rtol=1e-5, atol=1e-6)


def test_gradients_of_the_shortcut() -> None:
    model, x = tiny(drop_path=0.3).train(), images()
    grads = []
    for answer in (lambda: model(x), lambda: model.forward_head(model.forward_features(x))):
        torch.manual_seed(2)
        model.zero_grad()
        answer().square().sum().backward()
        grads.append(gradients_of(model))
    for name, expected in grads[1].items():
        assert_close(grads[0][name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()), msg=name)


def test_mean_halves_what_the_mixers_say() -> None:
    halved, model, x = tiny(combine="mean"), tiny(), images()
    for layer in model.layers:
        layer.mixer.out_proj.weight.data *= 0.5
    assert_close(halved(x), model(x))


def test_both_ends_are_alike() -> None:
    """Swapping the directions' parameters mirrors the mixer."""
    mixer = tiny().layers[0].mixer
    mirrored = copy.deepcopy(mixer)
    for source, target in zip(mixer.walks, reversed(mirrored.walks), strict=True):
        for theirs, ours in zip(source, target, strict=True):
            if isinstance(theirs, nn.Module):
                ours.load_state_dict(theirs.state_dict())
            else:
                ours.data.copy_(theirs)
    tokens = torch.randn(2, 9, 32)
    assert_close(mirrored(tokens.flip(1)).flip(1), mixer(tokens), rtol=1e-5, atol=1e-6)


def test_one_frame_is_an_image() -> None:
    model, x = tiny(), images()
    clip_model = fc.import_checkpoint("videomamba", model.state_dict(), num_frames=1)
    with torch.no_grad():
        assert_close(clip_model(x[:, :, None]), model(x), rtol=1e-5, atol=1e-6)


def test_overlapping_patches() -> None:
    model = tiny(patch_stride=4)
    assert model.forward_features(images()).shape == (2, 1 + 7 * 7, 32)
    assert model.forward_features(images(33, 44)).shape == (2, 1 + 7 * 10, 32)
    with pytest.raises(ValueError, match="patch_stride is for image models"):
        tiny(patch_stride=4, num_frames=4)


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match=r"reads images \(B, 3, H, W\), but got \(2, 3, 4, 32, 32\)"):
        tiny()(images(4, 32, 32))
    with pytest.raises(ValueError, match=r"reads clips \(B, 3, T, H, W\), but got \(2, 3, 32, 32\)"):
        tiny(num_frames=4)(images())
    with pytest.raises(ValueError, match="num_frames 3 is no multiple of tubelet 2"):
        tiny(num_frames=3, tubelet=2)


def test_half_precision_keeps_the_residual_wide() -> None:
    model, x = tiny(), images()
    seen: list[torch.dtype] = []
    model.layers[1].register_forward_hook(lambda m, given, carried: seen.extend(t.dtype for t in carried))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
    assert seen == [torch.bfloat16, torch.float32]
    with torch.no_grad():
        assert_close(logits.float(), model(x), rtol=0, atol=0.1)
        assert_close(model.bfloat16()(x.bfloat16()).float(), logits.float(), rtol=0, atol=0.1)
    assert seen[4:] == [torch.bfloat16, torch.float32]


def test_training_under_autocast_lowers_the_loss() -> None:
    model = tiny(drop_path=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, target = images(), torch.tensor([0, 3])
    losses = []
    for _ in range(15):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("frames", [None, 4])
def test_export_for_any_batch_size(frames: int | None) -> None:
    model = tiny(num_frames=frames)
    x = images(32, 32) if frames is None else images(frames, 32, 32)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
        for given in (x, torch.cat([x, x + 1, x - 1])):
            assert_close(program.module()(given), model(given), rtol=1e-5, atol=1e-5)


# Initial values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt_init", ["videomamba", "mamba"])
def test_initial_values(dt_init: str) -> None:
    torch.manual_seed(0)
    model = fc.create_model("videomamba_tiny", **TINY, dt_init=dt_init, num_frames=4)
    mixer = model.layers[1].mixer
    assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).expand(64, 16))
    assert_close(mixer.A_b_log, mixer.A_log)
    assert (mixer.D == 1).all()
    steps = F.softplus(torch.cat([mixer.dt_proj.bias, mixer.dt_proj_b.bias])).detach()
    if dt_init == "videomamba":
        assert_close(steps, torch.full_like(steps, math.log(2)))
    else:
        assert 1e-3 <= steps.min() < 5e-3
        assert 2e-2 < steps.max() <= 0.1
    assert mixer.out_proj.weight.abs().max() <= 64**-0.5 / math.sqrt(3)
    assert not model.temporal_pos_embedding.any()
    assert not model.cls_token.any()
    assert 0.015 < model.pos_embed.std() < 0.025


def test_what_is_decayed_and_in_which_layer() -> None:
    model = tiny(num_frames=4)
    names = {name for name, _ in model.named_parameters()}
    spared = model.no_weight_decay()
    tables = {"cls_token", "pos_embed", "temporal_pos_embedding"}
    assert tables | {"layers.0.mixer.D_b", "norm_f.weight"} <= spared
    assert not spared & {n for n in names if n.endswith(("_log", "proj.weight", "conv1d.weight"))}
    groups = model.layer_groups()
    assert len(groups) == 5
    for name in names:
        homes = [group for group in groups if any(f"{name}.".startswith(f"{p}.") for p in group)]
        assert len(homes) == 1, name


def test_drop_path_grows_with_depth() -> None:
    model = tiny(depth=5, drop_path=0.4)
    assert [layer.drop_path.rate for layer in model.layers] == pytest.approx([0, 0, 0.1, 0.2, 0.3])
    assert model.drop_path.rate == 0.4


# Weights ----------------------------------------------------------------------------------------------


class TestImport:
    @pytest.mark.parametrize("container", [None, "model", "module"])
    @pytest.mark.parametrize("prefix", ["", "backbone.", "encoder."])
    def test_wrappers(self, container: str | None, prefix: str, tmp_path: Path) -> None:
        model = tiny(num_frames=4, tubelet=2)
        state = {prefix + key: tensor for key, tensor in model.state_dict().items()}
        torch.save({container: state} if container else state, tmp_path / "x.pth")
        again = fc.import_checkpoint("videomamba", tmp_path / "x.pth")
        assert again.config == model.config
        assert torch.equal(again(images(4, 32, 32)), model(images(4, 32, 32)))
        assert again.import_report.complete

    def test_named_size(self) -> None:
        model = fc.import_checkpoint("videomamba", fc.create_model("videomamba_small").state_dict())
        assert model.registered_name == "videomamba_small"

    def test_image_weights_for_longer_and_larger_clips(self) -> None:
        """A still clip of the inflated model looks like the image, in every frame."""
        image_model = tiny()
        model = fc.import_checkpoint("videomamba", image_model.state_dict(), num_frames=6, tubelet=2)
        assert model.import_report.resampled == ["patch_embed.proj.weight", "temporal_pos_embedding"]
        x = images()
        clip = x[:, :, None].expand(-1, -1, 6, -1, -1)
        frames = model.embed(clip)[:, 1:].unflatten(1, (3, 16))
        for frame in frames.unbind(1):
            assert_close(frame, image_model.embed(x)[:, 1:], rtol=1e-5, atol=1e-6)
        wide = fc.import_checkpoint("videomamba", model.state_dict(), image_size=(48, 40), num_frames=8)
        assert wide.pos_embed.shape[1] == 1 + 6 * 5
        assert wide.temporal_pos_embedding.shape[1] == 4
        x = images(8, 48, 40)
        assert_close(wide(x), model(x), rtol=1e-4, atol=1e-5)  # its tables follow x as well

    def test_kinetics_710_to_400(self) -> None:
        state = tiny(num_classes=710).state_dict()
        model = fc.import_checkpoint("videomamba", state, num_classes=400)
        assert torch.equal(model.head.weight, state["head.weight"][:400])
        assert model.import_report.resampled == ["head.weight", "head.bias"]

    def test_a_new_head_for_other_classes(self) -> None:
        model = fc.import_checkpoint("videomamba", tiny().state_dict(), num_classes=7)
        assert model(images()).shape == (2, 7)
        assert model.import_report.fresh == ["head.weight", "head.bias"]
        bare = fc.import_checkpoint("videomamba", tiny().state_dict(), num_classes=0)
        assert bare(images()).shape == (2, 32)

    def test_another_width_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not fit VideoMamba"):
            fc.import_checkpoint("videomamba", tiny().state_dict(), width=48)

    def test_another_state_space_model(self) -> None:
        with pytest.raises(ValueError, match="tensors that tell the model's size are missing"):
            fc.import_checkpoint("videomamba", {"backbone.layers.0.mixer.A_log": torch.zeros(4, 16)})


# Objectives -------------------------------------------------------------------------------------------


class TestPretraining:
    def test_direction_loss(self) -> None:
        a = torch.randn(2, 5, 7)
        assert_close(direction_loss(a, 3 * a), torch.tensor(0.0))
        assert_close(direction_loss(a, -a), torch.tensor(4.0))

    def test_self_distillation_learns(self) -> None:
        teacher, both = tiny(seed=5, width=48), SelfDistillation(tiny(), 48).train()
        optimizer = torch.optim.Adam(both.parameters(), lr=2e-3)
        losses = []
        for _ in range(12):
            with torch.no_grad():
                wanted = teacher.forward_features(images())
            loss = direction_loss(both(images())[1], wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]
        assert not any(name.startswith("teacher") for name in both.state_dict())

    def test_hidden_patches_are_not_read(self) -> None:
        model = MaskedPretraining(tiny(num_frames=4, num_classes=0), 24)
        hidden = sample_hidden(torch.rand(2, 4, 16), 0.25, generator=torch.Generator().manual_seed(0))
        clip = images(4, 32, 32)
        blanked = clip.unflatten(3, (4, 8)).unflatten(5, (4, 8)).clone()  # (B, 3, T, 4, 8, 4, 8)
        cover = hidden[:, 1:].view(2, 1, 4, 4, 1, 4, 1)
        blanked = torch.where(cover, torch.tensor(9.0), blanked).view_as(clip)
        with torch.no_grad():
            aligned = model(clip, hidden)
            assert aligned.shape == (1, 2, 1 + 4 * 4, 24)
            assert_close(aligned.norm(dim=-1), torch.ones(1, 2, 17))
            assert torch.equal(model(blanked, hidden), aligned)

    @pytest.mark.parametrize("skip", [False, True])
    def test_the_release_trains_neither_the_last_layer_nor_the_last_norm(self, skip: bool) -> None:
        model = MaskedPretraining(tiny(num_frames=4, num_classes=0), 24, skip_last_output=skip)
        hidden = sample_hidden(torch.rand(2, 4, 16))
        direction_loss(model(images(4, 32, 32), hidden), torch.randn(1, 2, 1 + 4 * 3, 24)).backward()
        gradients = gradients_of(model.model)
        untrained = {name for name, gradient in gradients.items() if not gradient.any()}
        last = {name for name in gradients if name.startswith(("layers.2.", "norm_f."))}
        assert untrained == (last if skip else set())

    def test_several_layers_are_read(self) -> None:
        model = MaskedPretraining(tiny(num_frames=4, num_classes=0), 24, layers=(1, 2))
        assert model(images(4, 32, 32), sample_hidden(torch.rand(2, 4, 16))).shape == (2, 2, 13, 24)
        with pytest.raises(ValueError, match=r"layers \(3,\) asked of a model with layers 0\.\.2"):
            MaskedPretraining(tiny(), layers=(3,))

    def test_patches_are_drawn_by_attention(self) -> None:
        attention = torch.full((1, 1, 10), 0.01)
        attention[..., 3] = 10.0
        drawn = torch.stack([sample_hidden(attention.expand(1, 2, 10), 0.2) for _ in range(50)])
        assert drawn.shape == (50, 1, 21)
        assert not drawn[..., 0].any()
        assert ((~drawn[..., 1:]).view(50, 2, 10).sum(-1) == 2).all()
        assert (~drawn[..., 4]).float().mean() > 0.9
        even = sample_hidden(torch.zeros(1, 1, 10), 0.2)  # no attention at all: any two
        assert int((~even).sum()) == 3

    def test_unequal_numbers_of_visible_tokens(self) -> None:
        hidden = torch.zeros(2, 65, dtype=torch.bool)
        hidden[0, 5] = True
        with pytest.raises(ValueError, match=r"equally many visible tokens, got \[64, 65\]"):
            MaskedPretraining(tiny(num_frames=4))(images(4, 32, 32), hidden)

    def test_sine_positions(self) -> None:
        table = sine_positions(50, 8)
        assert table.shape == (1, 50, 8)
        assert_close(table[0, :, 0], torch.arange(50.0).sin())
        assert_close(table[..., 0::2].square() + table[..., 1::2].square(), torch.ones(1, 50, 4))
