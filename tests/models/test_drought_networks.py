"""Focal-TSMP's families on grids of any size, its settings and how it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import framecast as fc

SMALL: dict[str, Any] = {
    "in_channels": 3,
    "widths": (8, 16, 32),
    "heads": (2, 2, 4),
    "decoder_heads": (2, 2, 2),
    "window": 4,
}
FAMILIES = fc.list_models("focal_tsmp*")


def small(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    return fc.create_model(name, **SMALL | config).eval()


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (17, 30)])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_grid(name: str, size: tuple[int, int]) -> None:
    model, x = small(name), torch.randn(2, 3, *size)
    with torch.no_grad():
        answer = model(x)
    assert answer.shape == (2, 2, *size)
    assert_close(model(x), answer, rtol=1e-3, atol=1e-5)  # readable and fast path


@pytest.mark.parametrize("name", FAMILIES)
def test_other_targets(name: str) -> None:
    model = small(name, targets=("tas", "pr", "ndvi"))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 12, 12)).shape == (1, 3, 12, 12)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("focal_tsmp", {"patch_size": 2, "patch_norm": True, "grid": (18, 21), "up_sampling": "conv"}),
        ("focal_tsmp", {"channel_attention": 2, "channel_pooling": ("mean", "std", "max")}),
        ("focal_tsmp", {"decoder": "cnn", "up_sampling": "nearest"}),
        ("focal_tsmp_cnn", {"decoder": "swin", "down_sampling": "max"}),
        ("focal_tsmp_cnn", {"widths": (8, 12)}),
        ("focal_tsmp_swin2", {"decoder": "wave", "up_sampling": "bicubic", "pretrained_window": 0}),
        (
            "focal_tsmp",
            {
                "widths": (8, 16, 16, 32),
                **dict.fromkeys(("depths", "decoder_depths", "focal_levels"), (1, 1, 1, 1)),
                "decoder_focal_levels": (2, 2, 2, 2),
                **dict.fromkeys(("focal_windows", "decoder_focal_windows"), (3, 3, 3, 5)),
            },
        ),
    ],
)
def test_options(name: str, config: dict[str, Any]) -> None:
    model, x = small(name, **config), torch.randn(2, 3, 18, 21)
    with torch.no_grad():
        fast = model(x)
    assert fast.shape == (2, 2, 18, 21)
    assert_close(model(x), fast, rtol=1e-3, atol=1e-5)


def test_north_and_south_are_not_exchanged() -> None:
    """A mirrored map gives the mirrored answer with mirrored convolutions only; rows stay rows."""
    model = small("focal_tsmp")
    x = torch.zeros(1, 3, 24, 20)
    warm = x.clone()
    warm[:, :, :4] = 5.0
    with torch.no_grad():
        change = (model(warm) - model(x)).abs()[0].sum(0)
    assert change[:4].mean() > 2 * change[-4:].mean()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("focal_tsmp", {"widths": (8, 12, 32)}, "let the second width be twice the first"),
        ("focal_tsmp", {"widths": (8,)}, "give two or more widths"),
        ("focal_tsmp", {"depths": (2, 2)}, r"depths \(2, 2\) says something else than one number for each"),
        ("focal_tsmp_swin", {"heads": (3, 3, 3)}, "width 8 is not a multiple of 3 heads"),
        ("focal_tsmp", {"focal_windows": (2, 3, 3)}, "3 focal levels of window 2"),
        ("focal_tsmp", {"targets": ()}, "give two or more widths, a target"),
        ("focal_tsmp_cnn", {"patch_size": 2}, "the cnn encoder has no patches"),
        ("focal_tsmp", {"encoder": "resnet"}, "encoder is 'resnet'"),
    ],
)
def test_settings_that_do_not_fit(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, **config)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"this model reads \(B, 3, H, W\)"):
        small("focal_tsmp")(torch.zeros(1, 4, 12, 12))
    with pytest.raises(ValueError, match="a grid of 3x12 is too small to be halved 2 times"):
        small("focal_tsmp")(torch.zeros(1, 3, 3, 12))
    with pytest.raises(ValueError, match=r"learned position per patch of a grid of \(8, 8\), not 12x12"):
        small("focal_tsmp", grid=(8, 8))(torch.zeros(1, 3, 12, 12))


def test_how_it_starts() -> None:
    torch.manual_seed(0)
    model: Any = fc.create_model("focal_tsmp", in_channels=71)
    linear = model.encoder.levels[1][0].modulation.project_in.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.05)
    point = model.encoder.levels[1][0].modulation.project_context.weight  # Xavier normal: 2 / (in + out)
    assert point.std().item() == pytest.approx((2 / (192 + 192)) ** 0.5, rel=0.05)
    assert model.decoder.levels[1][0].modulation.project_context.weight.std().item() == pytest.approx(
        0.02, rel=0.05
    )
    assert model.encoder.levels[0][0].scale1.gamma.unique().item() == pytest.approx(0.5**0.5)
    rates = [block.drop_path.rate for level in model.encoder.levels for block in level]
    assert rates == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])
    falling = [block.drop_path.rate for level in model.decoder.levels for block in level]
    assert falling == pytest.approx(rates[::-1])


def test_blocks_of_the_second_swin_change_nothing_at_first() -> None:
    model: Any = small("focal_tsmp_swin2")
    x = torch.randn(1, 9, 9, 8)
    with torch.no_grad():
        assert torch.equal(model.encoder.levels[0][0](x), x)


def test_what_weight_decay_leaves_alone() -> None:
    assert small("focal_tsmp").no_weight_decay() == set()
    tables = small("focal_tsmp_swin").no_weight_decay()
    assert "encoder.levels.0.0.attn.bias.table" in tables
    assert len(tables) == 12
