"""Layers on maps: bands of rows equal whole maps, windows keep apart what is apart, resolutions fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from framecast.nn import focal_modulation
from framecast.nn.focal_modulation import FocalBlock
from framecast.nn.map_convolution import ConvBlock
from framecast.nn.map_layers import (
    ChannelAttention,
    ConvolutionByRows,
    PatchMerging,
    UpSample,
    UpSampling,
    channels_first,
    channels_last,
    resize,
    row_bands,
)
from framecast.nn.wave_mlp import WaveBranch
from framecast.nn.windowed_attention import OffsetBias, SwinBlock, WindowAttention, shift_masks

WIDTH = 12


def randomise(model: nn.Module) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def maps(batch: int, height: int, width: int, channels: int = WIDTH) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, height, width, channels)


class TestBands:
    @given(st.integers(1, 500), st.integers(1, 1 << 22))
    def test_bands_cover_every_row_once(self, rows: int, row_bytes: int) -> None:
        bands = list(row_bands(rows, row_bytes))
        assert [row for first, last in bands for row in range(first, last)] == list(range(rows))

    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 12), st.lists(st.integers(1, 12), max_size=5), st.sampled_from([1, 3, 5, 7]))
    def test_convolution_by_rows(self, rows: int, cuts: list[int], kernel: int) -> None:
        conv = nn.Conv2d(4, 6, kernel, padding=kernel // 2)
        x = maps(1, rows, 5, 4)
        edges = [0, *sorted({min(cut, rows) for cut in cuts} | {rows})]
        by_rows = ConvolutionByRows(conv)
        with torch.no_grad():
            parts = [by_rows(x[0, a:b], end=b == rows) for a, b in pairwise(edges)]
            whole = channels_last(conv(channels_first(x)))[0]
        assert by_rows.rows_done == rows
        assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (3, 9), (21, 5), (40, 8)])
    @pytest.mark.parametrize("step", [1, 4, 100])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"levels": 1, "window": 5},
            {"post_norm": True, "post_norm_modulation": True, "normalise": True, "layer_scale": None},
        ],
        ids=["default", "one level", "other options"],
    )
    def test_focal_block_in_bands_is_the_readable_one(
        self, options: dict[str, Any], step: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bands(rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
            yield from ((first, min(first + step, rows)) for first in range(0, rows, step))

        monkeypatch.setattr(focal_modulation, "row_bands", bands)
        block, x = randomise(FocalBlock(WIDTH, **options)), maps(2, *size)
        readable = block(x)  # gradients are recorded
        given = x.clone()
        with torch.no_grad():
            assert_close(block(given), readable, rtol=1e-4, atol=1e-4)
        assert torch.equal(given, x)

    def test_the_global_context_is_the_mean_over_the_whole_map(self) -> None:
        """A change in one corner reaches the other, far beyond the windows, and only by the mean."""
        block, x = randomise(FocalBlock(WIDTH)), maps(1, 40, 8)
        other = x.clone()
        other[0, 0, 0, 0] += 5  # all channels alike a norm would take out
        with torch.no_grad():
            assert not torch.equal(block(other)[0, -1], block(x)[0, -1])


class TestResolutions:
    @pytest.mark.parametrize("how", ["bilinear", "nearest", "bicubic"])
    def test_the_map_before_interpolation_is_the_map_behind_it(self, how: UpSampling) -> None:
        layer, x = randomise(UpSample(WIDTH, 5, how)), maps(2, 4, 3)
        aligned = None if how == "nearest" else False
        large = F.interpolate(channels_first(x), scale_factor=2, mode=how, align_corners=aligned)
        assert_close(channels_first(layer(x)), layer.point(large), rtol=1e-5, atol=1e-5)

    def test_transposed_convolution(self) -> None:
        assert UpSample(WIDTH, 5, "conv")(maps(1, 4, 3)).shape == (1, 8, 6, 5)

    def test_merging_by_hand(self) -> None:
        layer = PatchMerging(1, 4)
        with torch.no_grad():
            layer.reduction.weight.copy_(torch.eye(4))
            x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
            merged = layer(x)
        assert merged[0, 0, 0].tolist() == [1, 4, 2, 5]  # down first
        assert merged[0, 1, 1].tolist() == [9, 0, 0, 0]

    def test_resize_keeps_what_fits_and_what_is_flat(self) -> None:
        x = maps(1, 4, 6)
        assert resize(x, 4, 6) is x
        assert_close(resize(torch.ones(1, 4, 6, 2), 5, 7), torch.ones(1, 5, 7, 2))


class TestWindows:
    @pytest.mark.parametrize("version", [1, 2])
    def test_attention_by_hand(self, version: int) -> None:
        """One window: scores, bias and softmax written out head by head."""
        window, heads = 3, 2
        attention = randomise(WindowAttention(WIDTH, heads, window, version=version))
        x = maps(1, 1, window**2)[:, None]  # (1, 1, 1, w², C)
        q, k, v = attention.qkv(x[0, 0, 0]).reshape(window**2, 3, heads, -1).permute(1, 2, 0, 3)
        if version == 2:
            q = F.normalize(q + attention.q_bias.reshape(heads, 1, -1), dim=-1)
            k, v = F.normalize(k, dim=-1), v + attention.v_bias.reshape(heads, 1, -1)
            scores = q @ k.mT * attention.logit_scale.exp()
        else:
            scores = q @ k.mT / q.shape[-1] ** 0.5
        for a in range(window**2):
            for b in range(window**2):
                scores[:, a, b] += self.bias_of(attention, a, b, window)
        answer = attention.proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
        assert_close(attention(x, window)[0, 0, 0], answer, rtol=1e-4, atol=1e-5)

    def bias_of(self, attention: WindowAttention, a: int, b: int, window: int) -> Tensor:
        down, across = a // window - b // window, a % window - b % window
        if isinstance(attention.bias, OffsetBias):
            return attention.bias.table[(down + window - 1) * (2 * window - 1) + across + window - 1]
        offset = torch.tensor([down, across]) * 8 / (window - 1)
        offset = offset.sign() * torch.log2(offset.abs() + 1) / 3
        return 16 * attention.bias.fc2(F.relu(attention.bias.fc1(offset))).sigmoid()

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("shifted", [False, True])
    def test_a_pixel_is_heard_in_its_window_only(self, shifted: bool, version: int) -> None:
        block = randomise(SwinBlock(WIDTH, 2, 4, shifted=shifted, version=version))
        x = maps(1, 12, 12)
        other = x.clone()
        other[0, 5, 5, 0] += 3.0
        with torch.no_grad():
            changed = (block(other) - block(x)).abs().amax(-1)[0] > 1e-7
        first, last = (2, 6) if shifted else (4, 8)
        expected = torch.zeros(12, 12, dtype=torch.bool)
        expected[first:last, first:last] = True
        assert torch.equal(changed, expected)

    def test_pixels_of_opposite_edges_do_not_meet(self) -> None:
        block, x = randomise(SwinBlock(WIDTH, 2, 4, shifted=True)), maps(1, 12, 12)
        other = x.clone()
        other[0, 0, 0, 0] += 3.0
        with torch.no_grad():
            changed = (block(other) - block(x)).abs().amax(-1)[0] > 1e-7
        assert changed[:2, :2].all()
        assert changed.sum() == 4

    def test_mask_by_hand(self) -> None:
        middle, right, bottom, corner = shift_masks(2, 1, torch.zeros(1))
        assert middle.abs().max() == 0
        assert right[0].tolist() == [0, -100, 0, -100]  # the second column came from the west
        assert bottom[0].tolist() == [0, 0, -100, -100]
        assert corner.tolist() == (-100 * (1 - torch.eye(4))).tolist()  # each pixel is from another corner

    @pytest.mark.parametrize("size", [(4, 9), (3, 3), (5, 1)])
    def test_small_maps_are_one_window_high_or_wide(self, size: tuple[int, int]) -> None:
        block = randomise(SwinBlock(WIDTH, 2, 4, shifted=True))
        assert block(maps(2, *size)).shape == (2, *size, WIDTH)


class TestOthers:
    def test_channel_attention_leaves_its_input_alone(self) -> None:
        layer, x = randomise(ChannelAttention(6, 3, ("mean", "std", "max"))), torch.randn(2, 6, 4, 5)
        before = x.clone()
        scaled = layer(x)
        assert torch.equal(x, before)
        importance = layer.importance(x)
        assert importance.shape == (2, 6)
        assert ((importance > 0) & (importance < 1)).all()
        assert_close(scaled, x * importance[:, :, None, None])

    def test_channel_attention_settings(self) -> None:
        with pytest.raises(ValueError, match="takes one or more of mean, std and max"):
            ChannelAttention(6, 3, ("median",))
        with pytest.raises(ValueError, match="channel_attention is 7"):
            ChannelAttention(6, 7)

    def test_scrambled_convolutions(self) -> None:
        """Of a square map only the shortcut is transposed; of another one the whole is another."""
        plain, scrambled = ConvBlock(4, 6), ConvBlock(4, 6, scrambled=True)
        scrambled.load_state_dict(randomise(plain).state_dict())
        x = maps(1, 5, 5, 4)
        shortcut = F.relu(plain.norm_shortcut(channels_last(plain.conv_shortcut(channels_first(x)))))
        main = plain(x) - shortcut
        assert_close(scrambled(x), main + shortcut.transpose(1, 2))
        oblong = maps(1, 4, 6, 4)
        assert scrambled(oblong).shape == plain(oblong).shape
        assert not torch.allclose(scrambled(oblong), plain(oblong), atol=0.1)

    def test_waves_along_rows_stay_in_their_row(self) -> None:
        branch, x = randomise(WaveBranch(WIDTH, (1, 7))), maps(1, 6, 12)
        other = x.clone()
        other[0, 2, 5] += 1.0
        with torch.no_grad():
            changed = (branch(other) - branch(x)).abs().amax(-1)[0] > 0
        expected = torch.zeros(6, 12, dtype=torch.bool)
        expected[2, 2:9] = True
        assert torch.equal(changed, expected)
