"""Attention, the Transformer's parts, positions and feature statistics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from framecast.nn.attention import SelfAttention
from framecast.nn.embeddings import (
    Inflation,
    PatchEmbed,
    Resampling,
    TimeResampling,
    TubeletEmbed,
    inflate_patch_kernel,
    resample_positions,
    resample_times,
)
from framecast.nn.standardise import Standardise
from framecast.nn.transformer import Block, DropPath, LayerScale, Mlp


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_attention_is_softmax_of_scaled_products() -> None:
    layer = SelfAttention(12, 3).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 2).softmax(-1)
        heads.append(weights @ v[..., part])
    assert_close(layer(x), layer.proj(torch.cat(heads, dim=-1)))


def test_attention_follows_a_permutation_of_its_tokens() -> None:
    layer, x, order = SelfAttention(12, 3), torch.randn(1, 7, 12), torch.randperm(7)
    assert_close(layer(x[:, order]), layer(x)[:, order])


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of num_heads 3"):
        SelfAttention(10, 3)


def test_the_first_queries_are_answered_as_among_all() -> None:
    x = torch.randn(2, 7, 12)
    layer, block = SelfAttention(12, 3), Block(12, 3)
    assert_close(layer(x, 2), layer(x)[:, :2])
    assert_close(block(x, 1), block(x)[:, :1])


def test_gelus_differ_a_little() -> None:
    exact, tanh = Mlp(8, 16), Mlp(8, 16, "tanh")
    tanh.load_state_dict(exact.state_dict())
    x = torch.randn(50, 8)
    difference = (exact(x) - tanh(x)).abs().max()
    assert 0 < difference < 1e-3


def test_layer_scale_at_zero_leaves_the_residual_alone() -> None:
    block = Block(12, 3, layer_scale=True)
    for scale in (block.ls1, block.ls2):
        assert isinstance(scale, LayerScale)
        torch.nn.init.zeros_(scale.gamma)
    x = torch.randn(2, 5, 12)
    assert torch.equal(block(x), x)


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    drop = DropPath(0.25)
    x = torch.ones(4000, 3)
    out = drop(x)
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert (out == out[:, :1]).all()
    assert torch.equal(drop.eval()(x), x)


def test_patches_come_row_by_row() -> None:
    embed = PatchEmbed(2, 1, channels=1)
    with torch.no_grad():
        embed.proj.weight.fill_(0.25)
        embed.proj.bias.zero_()
        image = torch.arange(6.0).reshape(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert embed(image[None, None])[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_tubelets_are_a_convolution_over_time_too() -> None:
    embed, clip = TubeletEmbed(2, 5, tubelet=3), torch.randn(2, 3, 6, 4, 8)
    expected = embed.proj(clip).flatten(3).permute(0, 2, 3, 1)  # (B, T, N, D)
    assert_close(embed(clip), expected)
    with pytest.raises(ValueError, match="clip of 5 frames cannot be cut into tubelets of 3 frames"):
        embed(clip[:, :, :5])


@pytest.mark.parametrize("how", ["centre", "mean"])
@pytest.mark.parametrize("tubelet", [1, 2, 3])
def test_inflated_kernel_reads_a_still_clip_as_its_image(tubelet: int, how: Inflation) -> None:
    image, clip = PatchEmbed(2, 5), TubeletEmbed(2, 5, tubelet=tubelet)
    inflated = inflate_patch_kernel(image.proj.weight, tubelet, how)
    clip.load_state_dict({"proj.weight": inflated, "proj.bias": image.proj.bias})
    pixels = torch.randn(2, 3, 4, 4)
    assert_close(clip(pixels[:, :, None].expand(-1, -1, tubelet, -1, -1))[:, 0], image(pixels))
    heard = inflated.abs().amax((0, 1, 3, 4)) > 0
    assert heard.tolist() == [how == "mean" or t == tubelet // 2 for t in range(tubelet)]


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resampled_times(mode: TimeResampling) -> None:
    table = torch.randn(1, 4, 5, dtype=torch.float64)
    assert resample_times(table, 4, mode) is table
    assert_close(resample_times(torch.ones(1, 4, 5), 7, mode), torch.ones(1, 7, 5))
    twice = resample_times(table, 8, mode)
    assert_close(
        (twice[:, ::2] + twice[:, 1::2])[:, 1:-1] / 2,
        table[:, 1:-1] if mode == "nearest" else (table[:, :-2] + 6 * table[:, 1:-1] + table[:, 2:]) / 8,
    )


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_resampled_positions(mode: Resampling) -> None:
    table = torch.randn(1, 1 + 12, 5)
    assert resample_positions(table, (3, 4), (3, 4), num_prefix=1, mode=mode) is table
    larger = resample_positions(table, (3, 4), (6, 8), num_prefix=1, mode=mode)
    assert larger.shape == (1, 1 + 48, 5)
    assert torch.equal(larger[:, :1], table[:, :1])
    constant = resample_positions(torch.ones(1, 13, 5), (3, 4), (5, 2), num_prefix=1, mode=mode)
    assert_close(constant, torch.ones(1, 11, 5))


class TestStandardise:
    def test_training_features_get_mean_0_and_deviation_1(self) -> None:
        rng = np.random.default_rng(0)
        tracks = [rng.normal(3, 5, size=(4, n)).astype(np.float32) for n in (10, 30, 7)]
        layer = Standardise(4)
        layer.fit(tracks)
        out = layer(torch.from_numpy(np.concatenate(tracks, axis=1))[None])[0]
        assert_close(out.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
        assert_close(out.std(1, correction=0), torch.ones(4), atol=1e-5, rtol=0)

    def test_a_channel_that_never_changes_is_only_shifted(self) -> None:
        layer = Standardise(2)
        layer.fit([np.stack([np.full(9, 1e4), np.arange(9.0)])])
        out = layer(torch.tensor([[[1e4, 1e4 + 1], [4.0, 4.0]]]))
        assert_close(out[0, 0], torch.tensor([0.0, 1.0]))
        assert_close(out[0, 1], torch.zeros(2))
