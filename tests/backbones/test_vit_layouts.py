"""Weights of timm, DeiT and DINOv2 (original and Hugging Face names) give the numbers of the original code.

timm's own random weights are replaced by larger ones: with LayerScale at 1e-5 every block would be invisible.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.vit import OFFICIAL
from framecast.registry import entries
from hugging_face import hugging_face

timm = pytest.importorskip("timm")
from timm.layers import resample_abs_pos_embed  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}


def randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def imported(reference: nn.Module, **config: Any) -> Any:
    return fc.import_checkpoint("vit", reference.state_dict(), **config)


def images(side: int, width: int | None = None) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, side, width or side)


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [
        ("vit_tiny_patch16_224", "vit_tiny", {"img_size": 64}),
        ("vit_small_patch14_dinov2.lvd142m", "vit_small_dinov2", {"img_size": 70}),
    ],
)
def test_timm_models(theirs: str, ours: str, options: dict[str, int]) -> None:
    reference = randomised(timm.create_model(theirs, pretrained=False, depth=2, **options))
    model = imported(reference)
    named = fc.create_model(ours, depth=2, image_size=options["img_size"], num_classes=reference.num_classes)
    assert model.config == named.config
    x = images(options["img_size"])
    with torch.no_grad():
        assert_close(model(x), reference(x), **CLOSE)
        assert_close(model.forward_features(x), reference.forward_features(x), **CLOSE)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VisionTransformer, {}),
        (VisionTransformer, {"global_pool": "avg"}),
        (VisionTransformer, {"qkv_bias": False, "mlp_ratio": 2.5, "num_classes": 0}),
        (VisionTransformer, {"init_values": 1.0}),
        (VisionTransformer, {"reg_tokens": 4, "no_embed_class": True}),
        (VisionTransformerDistilled, {}),
    ],
    ids=["plain", "mean pooling", "no head, no qkv bias", "LayerScale", "registers", "distilled"],
)
def test_variants(kind: type[nn.Module], options: dict[str, Any]) -> None:
    reference = randomised(kind(**TINY | options))
    model = imported(reference, num_heads=3)
    assert model.import_report.complete
    x = images(32)
    with torch.no_grad():
        assert_close(model(x), reference(x), **CLOSE)


@pytest.mark.parametrize("grid", [(6, 6), (3, 3), (4, 7)])
@pytest.mark.parametrize("at", ["import", "run time"])
def test_other_resolutions_resample_the_position_table(grid: tuple[int, int], at: str) -> None:
    """By plain bicubic interpolation, as DeiT and DINOv2 do; timm's default is the antialiased one."""
    reference = randomised(VisionTransformer(**TINY))
    height, width = grid[0] * 8, grid[1] * 8
    other = VisionTransformer(**TINY | {"img_size": (height, width)}).eval()
    table = resample_abs_pos_embed(reference.pos_embed, list(grid), antialias=False)
    other.load_state_dict(reference.state_dict() | {"pos_embed": table})
    model = imported(reference, num_heads=3, **({"image_size": (height, width)} if at == "import" else {}))
    assert model.import_report.resampled == (["pos_embed"] if at == "import" else [])
    with torch.no_grad():
        assert_close(model(images(height, width)), other(images(height, width)), **CLOSE)


@pytest.mark.parametrize("prefix", ["", "dinov2.", "backbone."])
@pytest.mark.parametrize("registers", [0, 4])
def test_hugging_face_names(prefix: str, registers: int) -> None:
    config = {"width": 48, "depth": 2, "num_heads": 3, "image_size": 70, "num_registers": registers}
    ours = randomised(fc.create_model("vit_small_dinov2", **config))
    foreign = hugging_face(ours.state_dict(), prefix) | {"decode_head.weight": torch.zeros(3)}
    model = fc.import_checkpoint("vit", foreign, num_heads=3)
    assert set(model.import_report.ignored.values()) == {
        "only used while pre-training",
        "not a part of the backbone",
    }
    with torch.no_grad():
        assert torch.equal(model(images(70)), ours(images(70)))


IMAGE_SIZES = [name for name, e in entries("model").items() if e.module == "framecast.backbones.vit"]


@pytest.mark.parametrize("name", IMAGE_SIZES)
def test_every_size_is_recognised_by_its_shapes(name: str) -> None:
    with torch.device("meta"):
        model = fc.create_model(name)
        again = fc.import_checkpoint("vit", model.state_dict())
    assert again.registered_name == name
    assert again.config == model.config


def test_published_sizes_are_those_of_timm() -> None:
    sizes = {
        "vit_tiny_patch16_224": "vit_tiny",
        "vit_small_patch16_224": "vit_small",
        "vit_small_patch32_224": "vit_small_patch32",
        "vit_base_patch16_224": "vit_base",
        "vit_base_patch32_224": "vit_base_patch32",
        "vit_large_patch16_224": "vit_large",
        "vit_large_patch32_224": "vit_large_patch32",
        "vit_huge_patch14_224": "vit_huge",
        "vit_small_patch14_dinov2": "vit_small_dinov2",
        "vit_base_patch14_dinov2": "vit_base_dinov2",
        "deit_tiny_distilled_patch16_224": "deit_tiny_distilled",
        "deit_small_distilled_patch16_224": "deit_small_distilled",
        "deit_base_distilled_patch16_224": "deit_base_distilled",
    }
    assert sorted(sizes.values()) == IMAGE_SIZES
    with torch.device("meta"):
        for theirs, ours in sizes.items():
            classes = {} if "dinov2" in theirs else {"num_classes": 1000}
            reference = timm.create_model(theirs, pretrained=False, **classes)
            model = fc.create_model(ours)
            shapes = {key: tuple(t.shape) for key, t in model.state_dict().items()}
            assert shapes == {key: tuple(t.shape) for key, t in reference.state_dict().items()}
            assert model.blocks[0].attn.num_heads == reference.blocks[0].attn.num_heads


def jax_arrays(state: dict[str, Tensor], num_heads: int) -> dict[str, np.ndarray]:
    """A state dict in the names and shapes of the JAX releases."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        layer, kind = key.rsplit(".", 1) if "." in key else ("", key)
        layer = re.sub(r"blocks\.(\d+)", r"Transformer/encoderblock_\1", layer).replace(".", "/")
        attention = "MultiHeadDotProductAttention_1"
        names = {"norm1": "LayerNorm_0", "norm2": "LayerNorm_2", "attn": attention, "mlp": "MlpBlock_3"}
        names |= {"fc1": "Dense_0", "fc2": "Dense_1", "proj": "out", "norm": "Transformer/encoder_norm"}
        part = layer.rsplit("/", 1)[-1]
        if layer == "patch_embed/proj":
            out["embedding/" + {"weight": "kernel"}.get(kind, kind)] = (
                tensor.permute(2, 3, 1, 0) if kind == "weight" else tensor
            )
        elif part == "qkv":
            for name, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                path = layer.replace("attn/qkv", f"{attention}/{name}")
                heads = third.unflatten(0, (num_heads, -1))
                out[f"{path}/{'kernel' if kind == 'weight' else kind}"] = (
                    heads.permute(2, 0, 1) if kind == "weight" else heads
                )
        elif not layer:
            out[{"cls_token": "cls", "pos_embed": "Transformer/posembed_input/pos_embedding"}[kind]] = tensor
        else:
            path = "/".join(names.get(p, p) for p in layer.split("/"))
            if kind == "weight" and tensor.ndim == 2:
                kernel = tensor.T.unflatten(0, (num_heads, -1)) if part == "proj" else tensor.T
                out[f"{path}/kernel"] = kernel
            else:
                out[f"{path}/{'scale' if kind == 'weight' else kind}"] = tensor
    return {key: np.ascontiguousarray(tensor.numpy()) for key, tensor in out.items()}


class TestJax:
    """The archives of the original ViT and of augreg."""

    def model(self, **config: Any) -> Any:
        tiny = {"width": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "image_size": 32, "num_classes": 5}
        return randomised(fc.create_model("vit_tiny", **tiny, gelu="tanh", **config))

    @pytest.mark.parametrize("prefix", ["", "opt/target/"])
    @pytest.mark.parametrize("pre_logits", [False, True])
    def test_archive(self, tmp_path: Path, pre_logits: bool, prefix: str) -> None:
        model = self.model(pre_logits=pre_logits)
        arrays = {prefix + k: array for k, array in jax_arrays(model.state_dict(), 3).items()}
        np.savez(tmp_path / "augreg.npz", **arrays)
        again: Any = fc.import_checkpoint("vit", tmp_path / "augreg.npz", num_heads=3)
        assert again.import_report.complete
        assert (again.config.gelu, again.config.mean, again.config.std) == ("tanh", (0.5,) * 3, (0.5,) * 3)
        with torch.no_grad():
            assert torch.equal(again(images(32)), model(images(32)))

    def test_bfloat16_comes_as_raw_bytes(self, tmp_path: Path) -> None:
        rounded = {key: t.bfloat16() for key, t in self.model().state_dict().items()}
        arrays = jax_arrays({key: t.view(torch.int16) for key, t in rounded.items()}, 3)
        np.savez(tmp_path / "vit.npz", **{key: array.view("V2") for key, array in arrays.items()})
        again = fc.import_checkpoint("vit", tmp_path / "vit.npz", num_heads=3).state_dict()
        assert all(torch.equal(again[key], t.float()) for key, t in rounded.items())

    def test_archives_with_objects_are_not_opened(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "vit.npz", cls=np.array([{"a": 1}], dtype=object))
        with pytest.raises(ValueError, match="cannot be read as an archive of plain arrays"):
            fc.import_checkpoint("vit", tmp_path / "vit.npz")
        (tmp_path / "vit.npz").write_bytes(b"PK\x03\x04 no archive")
        with pytest.raises(ValueError, match="cannot be read as an archive of plain arrays"):
            fc.import_checkpoint("vit", tmp_path / "vit.npz")


def test_other_classes_get_a_new_head() -> None:
    reference = randomised(VisionTransformerDistilled(**TINY))
    model = imported(reference, num_heads=3, num_classes=7)
    assert sorted(model.import_report.fresh) == sorted(k for k in model.state_dict() if k.startswith("head"))
    assert model(images(32)).shape == (2, 7)
    features = imported(reference, num_heads=3, num_classes=0)
    assert features.import_report.fresh == []
    with torch.no_grad():
        assert_close(features(images(32)), reference.forward_features(images(32))[:, 0], **CLOSE)


class TestMisfits:
    def state(self) -> dict[str, Tensor]:
        return dict(VisionTransformer(**TINY).state_dict())

    def test_one_missing_one_misshapen_one_too_many(self) -> None:
        state = self.state()
        del state["blocks.1.norm2.bias"]
        state["head.bias"] = torch.zeros(7)
        state["neck.weight"] = torch.zeros(2)
        with pytest.raises(ValueError, match=r"1 missing .*1 unexpected .*1 mismatched") as caught:
            fc.import_checkpoint("vit", state, num_heads=3)
        for name in ("blocks.1.norm2.bias", "neck.weight", "head.bias: (7,) in the file, (5,) in the model"):
            assert name in str(caught.value)

    def test_position_table_of_no_square_grid(self) -> None:
        state = self.state() | {"pos_embed": torch.zeros(1, 1 + 15, 48)}
        with pytest.raises(ValueError, match="15 positions, which are no square grid"):
            fc.import_checkpoint("vit", state, num_heads=3)

    def test_size_cannot_be_told(self) -> None:
        state = self.state()
        del state["patch_embed.proj.weight"]
        with pytest.raises(ValueError, match=r"tell the model's size .*patch_embed\.proj\.weight"):
            fc.import_checkpoint("vit", state)

    def test_another_system(self) -> None:
        with pytest.raises(ValueError, match=r"is not a vit checkpoint: its tensors .*a\.weight.*timm"):
            fc.import_checkpoint("vit", {"a.weight": torch.zeros(2)})

    def test_unknown_system(self) -> None:
        with pytest.raises(ValueError, match=r"'vti', did you mean 'vit'\?"):
            fc.import_checkpoint("vti", self.state())


def test_layouts_name_registered_models() -> None:
    assert {layout.model for layout in OFFICIAL} <= set(fc.list_models())
