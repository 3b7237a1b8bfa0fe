"""StableMamba has no release to compare with. Its two ends have: without attention it is VideoMamba (in the
parity tests of VideoMamba), without Mamba it is a ViT. In between: sizes, order of layers, the residual
stream, stability, and what it takes over from a VideoMamba."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden import Fixture, fixtures, require
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.backbones import stablemamba
from framecast.backbones.stablemamba import StableMamba, StableMambaConfig
from framecast.nn.residual_stack import MambaLayer, TransformerLayer, attend_in_windows, attend_over_time

TINY: dict[str, Any] = {
    "width": 32,
    "depth": 4,
    "pattern": "1:1",
    "num_heads": 2,
    "patch_size": 8,
    "image_size": 32,
    "num_classes": 5,
}
PATTERN: dict[str, Any] = {"pattern": "1:1", "num_heads": 2}  # what tensors do not tell


def tiny(seed: int = 0, name: str = "stablemamba_tiny", **config: Any) -> Any:
    """A small model whose weights are far from any special value."""
    torch.manual_seed(seed)
    model = fc.create_model(name, **TINY | config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def inputs(frames: int | None = None) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 32, 32) if frames is None else torch.randn(2, 3, frames, 32, 32)


# The two ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", fixtures("vit"))
def test_without_mamba_it_is_a_vit(fixture: Fixture | None) -> None:
    fixture = require(fixture)
    if fixture.kind != "vit" or "norm.weight" not in fixture.part("state"):
        pytest.skip("not an image ViT that classifies its class token")
    model = fc.import_checkpoint(
        "stablemamba",
        fixture.part("state"),
        num_heads=fixture.config["heads"],
        norm_eps=fixture.config["ln_eps"],
    )
    assert not any(isinstance(layer, MambaLayer) for layer in model.layers)
    tolerance, given, expected = fixture.meta["tolerance"], fixture.part("in"), fixture.part("out")
    image = given["image"].requires_grad_()
    logits = model(image)
    assert_close(logits, expected["logits"], atol=tolerance["logits_atol"], rtol=0)
    for name, value in fixture.part("mid").items():
        if name == "tokens_final_norm":
            tokens = model.forward_features(image)
        else:
            tokens = model.forward_features(image, layer=int(name.removeprefix("block").removesuffix("_out")))
        assert_close(tokens, value, atol=tolerance["mid_atol"], rtol=0)
    gradients = fixture.part("grad")
    if gradients:
        F.cross_entropy(logits, given["target"]).backward()
        near = {"rtol": tolerance["grad_rtol"], "atol": tolerance["grad_atol"]}
        assert_close(image.grad, fixture.part("grad_input")["image"], **near)
        for name, parameter in model.named_parameters():
            theirs = name.replace("layers.", "blocks.").replace("norm_f.", "norm.")
            assert_close(parameter.grad, gradients[theirs], **near)


def test_without_attention_it_is_videomamba_bit_for_bit() -> None:
    config = {key: value for key, value in TINY.items() if key not in ("pattern", "num_heads")}
    for frames in (None, 4):
        reference = fc.create_model("videomamba_tiny", **config, num_frames=frames).eval()
        model = fc.import_checkpoint("stablemamba", reference.state_dict(), pattern="pure")
        assert model.state_dict().keys() == reference.state_dict().keys()
        assert torch.equal(model(inputs(frames)), reference(inputs(frames)))


# Sizes ------------------------------------------------------------------------------------------------

MILLIONS = {  # computed from the formulas of both blocks, 1000 classes, norms with biases
    "tiny": {"pure": 7.15, "11:1": 7.47, "7:1": 7.64, "5:1": 7.80, "3:1": 8.12},
    "small": {"pure": 25.80, "11:1": 27.26, "7:1": 27.99, "5:1": 28.72, "3:1": 30.18},
    "middle": {"pure": 74.22, "11:1": 77.63, "7:1": 81.04, "5:1": 82.74, "3:1": 87.86},
    "base": {"pure": 97.60, "11:1": 103.8, "7:1": 106.9, "5:1": 109.9, "3:1": 116.1},
}


@pytest.mark.parametrize("size", MILLIONS)
def test_parameter_totals(size: str) -> None:
    for pattern, millions in MILLIONS[size].items():
        with torch.device("meta"):
            model = fc.create_model(f"stablemamba_{size}", pattern=pattern)
        params = sum(p.numel() for p in model.parameters())
        assert params / 1e6 == pytest.approx(millions, abs=0.06 if millions > 100 else 0.015), pattern


@pytest.mark.parametrize(
    ("depth", "settings", "places"),
    [
        (24, {}, [7, 15, 23]),
        (32, {"pattern": "11:1"}, [11, 23]),
        (32, {"pattern": "5:1"}, [5, 11, 17, 23, 29]),
        (24, {"pattern": "23:1"}, [23]),
        (24, {"attention_place": "first"}, [0, 8, 16]),
        (24, {"attention_place": "middle"}, [4, 12, 20]),
        (32, {"pattern": "11:1", "attention_place": "first"}, [0, 12]),
        (3, {"pattern": "attn"}, [0, 1, 2]),
        (3, {"pattern": "pure"}, []),
    ],
)
def test_order_of_layers(depth: int, settings: dict[str, Any], places: list[int]) -> None:
    config = StableMambaConfig(depth=depth, **settings)
    assert [i for i in range(depth) if config.is_transformer(i)] == places


@pytest.mark.parametrize("pattern", ["7", "7:2", "0:1", "mamba", ""])
def test_unreadable_patterns(pattern: str) -> None:
    with pytest.raises(ValueError, match=r'must be "pure", "attn" or like "7:1"'):
        fc.create_model("stablemamba_tiny", pattern=pattern)


# The residual stream ----------------------------------------------------------------------------------


def plain_pre_norm(model: StableMamba, tokens: Tensor) -> Tensor:
    """x ← x + mix(norm(x)), without a carried pair."""
    x = tokens
    for layer in model.layers:
        if isinstance(layer, MambaLayer):
            x = x + layer.mixer(layer.norm(x))
        else:
            x = x + layer.attn(layer.norm1(x))
            x = x + layer.mlp(layer.norm2(x)) if layer.mlp is not None else x
    return model.norm_f(x)


@pytest.mark.parametrize(
    "config",
    [{}, {"norm": "layer"}, {"mlp_ratio": 0.0}, {"combine": "mean"}, {"attention_place": "first"}],
    ids=str,
)
def test_the_carried_pair_is_the_plain_residual_stream(config: dict[str, Any]) -> None:
    model, x = tiny(**config), inputs()
    with torch.no_grad():
        expected = plain_pre_norm(model, model.embed(x))
        assert_close(model.forward_features(x), expected, rtol=1e-6, atol=1e-6)
        assert_close(model(x), model.forward_head(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["joint", "window", "divided"])
def test_logits_need_only_the_first_row_of_the_last_layer(attention: str) -> None:
    model, x = tiny(attention=attention, window=3, num_frames=8), inputs(8)
    assert_close(model(x), model.forward_head(model.forward_features(x)), rtol=1e-5, atol=1e-6)


# Attention over clips ---------------------------------------------------------------------------------


def changed_by(layer: TransformerLayer, frame: int, frames: int) -> list[int]:
    """Frames, and -1 for the class token, whose tokens depend on those of `frame`."""
    tokens = torch.randn(1, 1 + frames * 4, 32)
    other = tokens.clone()
    other[:, 1 + 4 * frame : 5 + 4 * frame] += 1
    with torch.no_grad():
        moved = [(h + r)[0] for h, r in (layer(x, None, frames=frames) for x in (tokens, other))]
    differs = (moved[0] - moved[1]).abs().amax(-1) > 1e-6
    return [-1] * bool(differs[0]) + [t for t in range(frames) if differs[1 + 4 * t : 5 + 4 * t].any()]


@pytest.mark.parametrize(
    ("attention", "seen"),
    [("joint", [-1, 0, 1, 2, 3, 4]), ("window", [-1, 2, 3]), ("divided", [-1, 0, 1, 2, 3, 4])],
)
def test_which_frames_see_each_other(attention: str, seen: list[int]) -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(32, 2, attention=attention, window=2)
    assert changed_by(layer, 2, 5) == seen


def test_in_divided_attention_a_patch_sees_its_place_in_time() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(32, 2, attention="divided", mlp_ratio=0.0)
    tokens = torch.randn(1, 1 + 3 * 4, 32)
    y = attend_over_time(layer.attn_time, tokens, 3)
    other = tokens.clone()
    other[:, 1 + 4 * 1 + 2] += 1  # frame 1, place 2
    differs = (attend_over_time(layer.attn_time, other, 3) - y).abs().amax(-1)[0] > 1e-6
    assert differs.nonzero().flatten().tolist() == [1 + 2, 1 + 4 + 2, 1 + 8 + 2]
    assert not y[:, 0].any()


@pytest.mark.parametrize(("frames", "window"), [(6, 2), (5, 2), (5, 1), (4, 8)])
def test_windows_are_attention_over_their_tokens(frames: int, window: int) -> None:
    torch.manual_seed(0)
    attention = TransformerLayer(32, 2).attn
    x = torch.randn(2, 1 + frames * 4, 32)
    y = attend_in_windows(attention, x, frames, window)
    first = torch.zeros_like(x[:, :1])
    for start in range(0, frames, window):
        stop = min(start + window, frames)
        rows = slice(1 + 4 * start, 1 + 4 * stop)
        alone = attention(torch.cat([x[:, :1], x[:, rows]], dim=1))
        assert_close(y[:, rows], alone[:, 1:], rtol=1e-5, atol=1e-6)
        first = first + alone[:, :1] * (stop - start) / frames
    assert_close(y[:, :1], first, rtol=1e-5, atol=1e-6)


def test_a_clip_model_with_divided_attention_starts_as_windows_of_one_frame() -> None:
    window = tiny(num_frames=4, attention="window", window=1)
    divided = fc.import_checkpoint("stablemamba", window.state_dict(), **PATTERN, attention="divided")
    fresh = divided.import_report.fresh
    assert fresh
    assert all("_time." in name for name in fresh)
    assert_close(divided(inputs(4)), window(inputs(4)), rtol=1e-5, atol=1e-6)


# Taking over weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention_place", ["first", "last"])
def test_weights_of_a_videomamba(attention_place: str) -> None:
    config = {key: value for key, value in TINY.items() if key not in ("pattern", "num_heads")}
    source = fc.create_model("videomamba_tiny", **config)
    settings = PATTERN | {"attention_place": attention_place}
    model = fc.import_checkpoint("stablemamba", source.state_dict(), num_frames=4, **settings)
    fresh = {int(name.split(".")[1]) for name in model.import_report.fresh}
    assert fresh == ({0, 2} if attention_place == "first" else {1, 3})
    for ours, theirs in zip(model.layers, source.layers, strict=True):
        if isinstance(ours, MambaLayer):
            assert torch.equal(ours.mixer.A_b_log, theirs.mixer.A_b_log)
            assert torch.equal(ours.norm.weight, theirs.norm.weight)
    assert model(inputs(4)).shape == (2, 5)


@pytest.mark.parametrize("attention_place", ["first", "last"])
def test_a_clip_model_of_one_frame_starts_as_its_image_model(attention_place: Any) -> None:
    image_model = tiny(attention_place=attention_place)
    settings = PATTERN | {"attention_place": attention_place}
    model = fc.import_checkpoint("stablemamba", image_model.state_dict(), num_frames=1, **settings)
    assert model.import_report.fresh == []
    assert_close(model(inputs()[:, :, None]), image_model(inputs()), rtol=1e-5, atol=1e-6)


# Stability --------------------------------------------------------------------------------------------


def test_initial_values() -> None:
    torch.manual_seed(0)
    model = fc.create_model("stablemamba_tiny")
    branches = 21 + 2 * 3  # Mamba layers, attention and MLP of the Transformer layers
    for end in (model.layers[0].mixer.out_proj, model.layers[7].attn.proj, model.layers[7].mlp.fc2):
        assert float(end.weight.detach().std()) == pytest.approx(0.02 / branches**0.5, rel=0.05)
    steps = F.softplus(model.layers[3].mixer.dt_proj.bias)
    assert 1e-3 <= steps.min() < 5e-3
    assert 2e-2 < steps.max() <= 0.1


@pytest.mark.slow
def test_learns_at_four_times_the_learning_rate_without_growing() -> None:
    """200 steps without a number that is not finite; the residual stream grows no faster than √depth."""
    torch.manual_seed(0)
    model = fc.create_model("stablemamba_tiny", **TINY | {"depth": 8, "pattern": "3:1"}).train()
    largest = torch.zeros(8)

    def look(i: int, carried: tuple[Tensor, Tensor]) -> None:
        largest[i] = torch.maximum(largest[i], carried[1].detach().abs().max())

    for i, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda m, given, out, i=i: look(i, out))
    patterns = torch.randn(5, 3, 32, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    losses = []
    for _ in range(200):
        target = torch.randint(5, (8,))
        loss = F.cross_entropy(model(patterns[target] + 0.5 * torch.randn(8, 3, 32, 32)), target)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        assert torch.isfinite(norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert (largest <= largest[0] * torch.arange(1, 9).sqrt()).all(), largest


def test_no_teacher() -> None:
    """Its module imports nothing with which one model learns from another."""
    tree = ast.parse(inspect.getsource(stablemamba))
    imported = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [line for line in imported if "pretraining" in line or "distill" in line.lower()]
    with torch.device("meta"):
        assert not [n for n, _ in fc.create_model("stablemamba_base").named_modules() if "teacher" in n]
