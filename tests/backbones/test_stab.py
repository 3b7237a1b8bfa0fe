"""STAB: frames of different sizes, margins, chunks, who hears whom, and the release's defects by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import framecast as fc
from framecast.backbones.stab_frames import Box, boxes_of, grid_positions

PATCH, SIDE, FRAMES = 4, 32, 8
TINY = {"width": 32, "llm_width": 24, "temporal_heads": 4, "patch_size": PATCH, "image_size": SIDE}


def stab(**config: Any) -> Any:
    """A tiny STAB with weights that are far from any special value."""
    torch.manual_seed(0)
    model = fc.create_model("video_panda_stab", **TINY | config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if model.mixing is not None:
            model.mixing.norm.running_mean.normal_()
            model.mixing.norm.running_var.uniform_(0.5, 2.0)
    return model.eval()


def clip_of(seed: int, frames: int = FRAMES) -> Tensor:
    return torch.randn(1, 3, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def margins(rows: slice, columns: slice, frames: int = FRAMES, empty: int = 0) -> Tensor:
    """Valid pixels where so many frames at the end are empty; rows and columns in patches."""
    valid = torch.zeros(1, frames, SIDE // PATCH, SIDE // PATCH, dtype=torch.bool)
    valid[:, : frames - empty, rows, columns] = True
    return valid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def lettered(seed: int, **where: Any) -> tuple[Tensor, Tensor]:
    valid = margins(**where)
    clip = clip_of(seed, valid.shape[1])
    return clip * valid[:, None], valid


WHOLE, INNER = slice(None), slice(2, 6)
WIDE = {"rows": INNER, "columns": WHOLE}
TALL = {"rows": WHOLE, "columns": INNER, "empty": 3}


def encoded(model: Any, clips: Tensor, valid: Tensor | None = None, **how: Any) -> list[list[Tensor]]:
    with torch.no_grad():
        return [list(tokens.frames) for tokens in model.encode(clips, valid, **how)]


class TestRagged:
    def test_every_frame_has_its_own_grid(self) -> None:
        model, (clip, valid) = stab(), lettered(0, **TALL)
        (tokens,) = model.encode(clip, valid)
        assert tokens.grids == ((4, 2),) * 5 + ((4, 4),) * 3  # empty frames: the corner of a square
        assert [len(frame) for frame in tokens.frames] == [1 + 4 * 3] * 5 + [1 + 4 * 5] * 3
        assert tokens.num_tokens == 5 * 13 + 3 * 21

    def test_an_odd_row_or_column_is_left_out(self) -> None:
        model, (clip, valid) = stab(), lettered(0, rows=slice(0, 5), columns=slice(1, 8))
        (tokens,) = model.encode(clip, valid)
        assert set(tokens.grids) == {(2, 3)}

    def test_clips_of_a_batch_do_not_hear_each_other(self) -> None:
        model = stab()
        parts = [lettered(0, **WIDE), lettered(1, **TALL), lettered(2, rows=WHOLE, columns=WHOLE)]
        clips, valid = (torch.cat(x) for x in zip(*parts, strict=True))
        together = encoded(model, clips, valid)
        for (clip, seen), frames in zip(parts, together, strict=True):
            for alone, part in zip(encoded(model, clip, seen)[0], frames, strict=True):
                assert_close(alone, part, rtol=0, atol=1e-5)

    def test_without_margins_a_mask_changes_nothing_and_forward_is_the_same(self) -> None:
        model, clip = stab(), clip_of(0)
        with torch.no_grad():
            dense = model(clip)[0]
        for frames in (encoded(model, clip)[0], encoded(model, clip, margins(WHOLE, WHOLE))[0]):
            assert_close(torch.stack(frames), dense, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("where", [WIDE, TALL, {"rows": WHOLE, "columns": WHOLE}], ids=str)
    @pytest.mark.parametrize("config", [{}, {"padding": "skipped"}, {"downsampling": "average"}], ids=str)
    def test_fast_equals_reference_with_gradients(self, where: Any, config: Any) -> None:
        model, (clip, valid) = stab(**config), lettered(3, **where)
        results, gradients = [], []
        for impl in ("auto", "reference"):
            pixels = clip.clone().requires_grad_()
            model.zero_grad()
            tokens = torch.cat(model.encode(pixels, valid, impl=impl)[0].frames)
            (tokens * torch.linspace(-1, 1, tokens.numel()).view_as(tokens)).sum().backward()
            results.append(tokens)
            gradients.append([pixels.grad] + [p.grad for p in model.parameters()])
        assert_close(*results, rtol=0, atol=1e-5)
        for ours, theirs in zip(*gradients, strict=True):
            assert_close(ours, theirs, rtol=1e-3, atol=1e-3)

    def test_a_norm_in_training_counts_the_batch(self) -> None:
        """While training the mixing block norms with the batch's own statistics and keeps them."""
        model = stab(dropout=0.0).train()
        before = model.mixing.norm.running_mean.clone()
        (trained,) = model.encode(clip_of(0))
        assert not torch.equal(model.mixing.norm.running_mean, before)
        model.eval()
        (tested,) = model.encode(clip_of(0))
        assert not torch.allclose(trained.frames[0], tested.frames[0], atol=1e-3)


class TestTime:
    def test_chunks_do_not_hear_each_other(self) -> None:
        model, clip = stab(), clip_of(0)
        changed = clip.clone()
        changed[:, :, 5] = 0.0
        first, second = encoded(model, clip)[0], encoded(model, changed)[0]
        for t in range(4):
            assert torch.equal(first[t], second[t])
        for t in range(4, 8):
            assert not torch.allclose(first[t], second[t], atol=1e-4)

    def test_a_chunk_alone_is_a_clip(self) -> None:
        model, clip = stab(), clip_of(0)
        whole = encoded(model, clip)[0]
        for ours, part in zip(encoded(model, clip[:, :, 4:])[0], whole[4:], strict=True):
            assert_close(ours, part, rtol=0, atol=1e-5)

    def test_one_frame_is_an_image_without_time(self) -> None:
        model, clip = stab(), clip_of(0)
        alone = encoded(model, clip[:, :, :1])[0][0]
        assert alone.shape == (21, 24)
        with torch.no_grad():
            model.clip_summary.token.add_(1.0)
            model.mixing.up.bias.add_(1.0)
        assert torch.equal(encoded(model, clip[:, :, :1])[0][0], alone)

    def test_it_starts_from_the_patches_as_they_are(self) -> None:
        torch.manual_seed(0)
        model = fc.create_model("video_panda_stab", **TINY).eval()
        patches = model.embed(clip_of(0))
        with torch.no_grad():
            assert model.mixing(patches).abs().max() == 0
            assert model.clip_summary(patches.flatten(1, 3)).abs().max() == 0


class TestMargins:
    def test_the_release_lets_the_clip_token_see_them(self) -> None:
        (clip, valid), dirty = lettered(0, **WIDE), clip_of(1)
        dirty = torch.where(valid[:, None], clip, dirty)
        for padding, reaches in (("seen", True), ("skipped", False)):
            model = stab(padding=padding)
            with torch.no_grad():  # only the clip token may carry it
                model.mixing.time.weight.zero_()
                model.position.conv.weight.zero_()
            a, b = encoded(model, clip, valid)[0], encoded(model, dirty, valid)[0]
            assert_close(a[0][1:], b[0][1:])
            assert torch.allclose(a[0][0], b[0][0], atol=1e-5) is not reaches

    def test_empty_frames_cost_tokens_unless_skipped(self) -> None:
        clip, valid = lettered(0, rows=WHOLE, columns=WHOLE, empty=5)  # the second chunk is all empty
        (seen,), (skipped,) = (stab(padding=p).encode(clip, valid) for p in ("seen", "skipped"))
        assert seen.num_tokens == 8 * 21
        assert skipped.num_tokens == 3 * 21
        assert skipped.grids == ((4, 4),) * 3 + ((0, 0),) * 5
        assert all(torch.isfinite(frame).all() for frame in skipped.frames)

    def test_the_release_crops_other_masks_wrongly(self) -> None:
        patches = torch.zeros(2, 6, 6, dtype=torch.bool)
        patches[0, 1, 3] = patches[0, 2, 1:5] = patches[0, 4, 4] = True  # no rectangle
        assert boxes_of(patches, "box") == [Box(1, 1, 4, 4), None]
        assert boxes_of(patches, "release") == [Box(1, 3, 4, 2), None]

    def test_a_patch_is_valid_if_one_pixel_is(self) -> None:
        model, clip = stab(), clip_of(0)
        valid = margins(INNER, WHOLE)
        valid[:, :, 7] = True  # the last row of pixels of a patch above
        assert set(model.encode(clip, valid)[0].grids) == {(2, 4)}
        valid[:, :, 3] = True
        assert set(model.encode(clip, valid)[0].grids) == {(3, 4)}


class TestDefectsAndStudies:
    def test_the_block_that_is_never_run(self) -> None:
        with torch.device("meta"):
            model = fc.create_model("video_panda_stab", unused_block=True)
        assert sum(p.numel() for p in model.parameters()) == 45_066_578 + 1_403_218
        ours, with_it = stab(), stab(unused_block=True)
        with_it.load_state_dict(ours.state_dict(), strict=False)
        assert torch.equal(ours(clip_of(0)), with_it(clip_of(0)))

    @pytest.mark.parametrize(
        ("config", "tokens"),
        [
            ({"local_mixing": False}, 21),
            ({"clip_token": False}, 21),
            ({"frame_token": False}, 21),
            ({"clip_token": False, "frame_token": False}, 20),
            ({"row_token": False}, 17),
            ({"downsampling": "average"}, 21),
        ],
        ids=str,
    )
    def test_parts_can_be_left_out(self, config: Any, tokens: int) -> None:
        model = stab(**config).train()
        out = model(clip_of(0))
        assert out.shape == (1, FRAMES, tokens, 24)
        out.square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name

    def test_a_grid_is_found_among_the_tokens_of_a_frame(self) -> None:
        model, (clip, valid) = stab(), lettered(0, **WIDE)
        with torch.no_grad():
            (tokens,) = model.encode(clip, valid)
            ends = model.projector(model.row_token)
        frame, grid = tokens.frames[0], tokens.grids[0]
        places = grid_positions(0, len(frame), grid)
        assert places.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
        rest = sorted(set(range(len(frame))) - {0, *places.tolist()})
        assert_close(frame[rest], ends.expand(len(rest), -1))
        assert grid_positions(5, 8, (2, 4), context=False, row_ends=False).tolist() == list(range(5, 13))
        with pytest.raises(ValueError, match="a frame of 2 x 4 tokens has 11, but got 12"):
            grid_positions(0, 12, grid)


class TestMisfits:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 3, 6, 32, 32), "6 frames cannot be cut into chunks of 4"),
            ((1, 3, 0, 32, 32), "0 frames cannot be cut"),
            ((1, 3, 4, 30, 32), "30x32 pixels cannot be cut into patches of 4"),
            ((1, 3, 4, 4, 32), "4x32 pixels make no token; at least 8"),
            ((1, 4, 4, 32, 32), r"reads clips \(B, 3, T, H, W\), but got \(1, 4, 4, 32, 32\)"),
        ],
    )
    def test_clips(self, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            stab()(torch.zeros(shape))

    def test_masks(self) -> None:
        with pytest.raises(ValueError, match=r"valid is \(1, 4, 32, 32\); .* need \(1, 8, 32, 32\)"):
            stab().encode(clip_of(0), margins(WHOLE, WHOLE, frames=4))
        with pytest.raises(ValueError, match="1 x 8 valid patches of 4 pixels; at least 2 x 2"):
            stab().encode(clip_of(0), margins(slice(2, 3), WHOLE))

    def test_names_of_one_module_that_disagree(self) -> None:
        state = {"model.video_tower.balance": torch.zeros(4), "model.vision_tower.balance": torch.ones(4)}
        state["model.video_tower.patch_embedding.weight"] = torch.zeros(4, 3, 2, 2)
        with pytest.raises(ValueError, match=r"vision_tower\.balance differs"):
            fc.import_checkpoint("video_panda", state)

    def test_heads_that_do_not_divide(self) -> None:
        with pytest.raises(ValueError, match="width 32 is not a multiple of temporal_heads 5"):
            stab(temporal_heads=5)
        with pytest.raises(ValueError, match="1 or more"):
            stab(pool=0)
