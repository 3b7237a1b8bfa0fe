"""Pictures of kept patches: the right place in the right colour, and every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import EVIL, Page, assert_safe
from PIL import Image

from framecast.data.video import probe
from framecast.structures import KeptTokens, Labels
from framecast.viz.labels import LabelsEntry, write_labels_page
from framecast.viz.palette import channels
from framecast.viz.tokens import (
    draw_tokens,
    evenly,
    lasting_picture,
    left_picture,
    share,
    shown_frames,
    stage_colors,
    summary,
)


def kept_of(
    stages: int = 3, places: int = 1, grid: tuple[int, int] = (4, 6), each: int = 1, **given: Any
) -> KeptTokens:
    """Random pictures, and patches that go one after the other and never come back."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (places * each, 8 * grid[0], 8 * grid[1], 3), dtype=np.uint8)
    left = np.logical_and.accumulate(rng.random((stages, places, *grid)) < 0.7)
    return KeptTokens(frames, left, tuple(range(3, 3 + stages)), 0.4, **given)


def in_patches(pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(rows, columns, pixels of a patch, 3), as a ViT cuts a picture."""
    rows, columns = grid
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    cut = pixels.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return cut.reshape(rows, columns, height * width, 3)


class TestPatches:
    def test_what_is_left_is_as_it_was_and_what_is_gone_has_faded(self) -> None:
        kept = kept_of()
        frame, left = kept.frames[0], kept.left[1, 0]
        before, after = (in_patches(p, left.shape) for p in (frame, left_picture(frame, left)))
        assert (after[left] == before[left]).all()
        assert (after[~left].min(), after[~left].max()) > (160, 200)
        spread = after[~left].std((1, 2)) / before[~left].std((1, 2))
        assert spread.max() < 0.25  # hardly anything of the picture can be seen there

    def test_a_patch_has_the_colour_of_the_stage_at_which_it_goes(self) -> None:
        lasting = np.array([[0, 1, 2], [3, 3, 0]])
        grey = np.full((16, 24, 3), 128, dtype=np.uint8)
        found = in_patches(lasting_picture(grey, lasting, 3), lasting.shape)
        assert (found == found[:, :, :1]).all()
        for number, color in enumerate(stage_colors(3)):
            wanted = 0.62 * np.array(channels(color)) + 0.38 * 128
            assert np.abs(found[lasting == number].astype(float) - wanted).max() <= 1

    def test_the_map_gets_brighter_the_longer_a_patch_stays(self) -> None:
        for stages in (1, 2, 8, 30):
            brightness = [np.dot(channels(c), (0.299, 0.587, 0.114)) for c in stage_colors(stages)]
            assert (np.diff(brightness) > 0).all()
            assert len(brightness) == stages + 1

    def test_a_picture_that_patches_do_not_divide_is_covered_whole(self) -> None:
        frame = np.full((30, 31, 3), 9, dtype=np.uint8)
        assert (left_picture(frame, np.ones((4, 4), dtype=bool)) == frame).all()
        assert (left_picture(frame, np.zeros((4, 4), dtype=bool)) > 100).all()

    def test_frames_that_share_patches_are_shown_by_one_of_them(self) -> None:
        kept = kept_of(places=3, each=2)
        assert np.array_equal(shown_frames(kept), kept.frames[1::2])


class TestNumbers:
    def test_counts_follow_from_what_is_left(self) -> None:
        kept = kept_of(stages=4, places=2)
        assert kept.num_patches == 2 * 4 * 6
        assert list(kept.counts) == sorted(kept.counts, reverse=True)
        for i, count in enumerate(kept.counts):
            assert (kept.lasting > i).sum() == count

    def test_the_summary_has_the_numbers(self) -> None:
        kept = kept_of()
        assert f"{kept.counts[-1]} of 24 patches" in summary(kept)
        assert "40 % of the multiply-adds" in summary(kept)

    def test_what_is_not_all_is_not_called_all(self) -> None:
        assert [share(n, 1000) for n in (0, 995, 999, 1000)] == ["0 %", "99 %", "99 %", "100 %"]

    @pytest.mark.parametrize(("count", "most"), [(1, 8), (8, 8), (9, 8), (100, 8), (2, 2)])
    def test_shown_ones_are_spread_from_the_first_to_the_last(self, count: int, most: int) -> None:
        chosen = evenly(count, most)
        assert len(chosen) == min(count, most)
        assert (chosen[0], chosen[-1]) == (0, count - 1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda frames, left: (frames.astype(float), left, (0,)), "frames are float64"),
            (lambda frames, left: (frames, left.astype(int), (0,)), "must be bool"),
            (lambda frames, left: (frames, left, (0, 1)), "2 blocks"),
            (lambda frames, left: (frames[:1], left, (0,)), "1 frames"),
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, change: Callable[..., Any], message: str) -> None:
        frames, left = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.ones((1, 2, 2, 2), dtype=bool)
        with pytest.raises(ValueError, match=message):
            KeptTokens(*change(frames, left), macs_share=1.0)


class TestFiles:
    @pytest.mark.parametrize("stages", [1, 3, 9, 30])
    @pytest.mark.parametrize(("places", "each"), [(1, 1), (2, 1), (3, 2), (20, 1)])
    def test_png_of_images_and_clips(self, tmp_path: Path, stages: int, places: int, each: int) -> None:
        path = draw_tokens(kept_of(stages, places, each=each), tmp_path / "kept.png", title="x" * 300)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels[:10] == 255).all()  # nothing leaves the page
        assert (pixels[:, -10:] == 255).all()
        assert (pixels[-10:] == 255).all()

    def test_every_patch_counts_in_the_picture(self, tmp_path: Path) -> None:
        one = kept_of()
        left = one.left.copy()
        left[:, 0, 2, 3] = ~left[:, 0, 2, 3]
        other = KeptTokens(one.frames, left, one.blocks, one.macs_share)
        files = [draw_tokens(kept, tmp_path / f"{i}.png") for i, kept in enumerate((one, one, other))]
        same, again, changed = (file.read_bytes() for file in files)
        assert same == again
        assert same != changed

    def test_gif_has_a_picture_for_every_frame_on_white(self, tmp_path: Path) -> None:
        with Image.open(draw_tokens(kept_of(places=5), tmp_path / "kept.gif")) as image:
            assert getattr(image, "n_frames", 1) == 5
            assert image.info["loop"] == 0
            shots = []
            for i in range(5):
                image.seek(i)
                shots.append(np.asarray(image.convert("RGB")))
        assert all((shot[:4] == 255).all() for shot in shots)
        assert all((a != b).any() for a, b in pairwise(shots))

    def test_mp4_shows_every_frame_for_as_long_as_the_gif(self, tmp_path: Path) -> None:
        kept = kept_of(places=4)
        info = probe(draw_tokens(kept, tmp_path / "kept.mp4"))
        with Image.open(draw_tokens(kept, tmp_path / "kept.gif")) as image:
            assert info.duration_s == pytest.approx(4 * image.info["duration"] / 1000, abs=0.1)
            assert (info.width, info.height) == image.size

    def test_other_kinds_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"none of \.png, \.gif and \.mp4"):
            draw_tokens(kept_of(), tmp_path / "kept.jpg")
        with pytest.raises(ValueError, match="an image does not move"):
            draw_tokens(kept_of(), tmp_path / "kept.gif")
        assert not list(tmp_path.iterdir())


class TestPage:
    @pytest.mark.parametrize("places", [1, 4])
    @pytest.mark.parametrize("name", ["a photo (2)", *EVIL])
    def test_the_card_of_a_file_shows_what_is_kept(self, tmp_path: Path, places: int, name: str) -> None:
        kept = kept_of(stages=3, places=places)
        labels = Labels(np.array([0.25, 0.75]), ("cat", "dog"), f"{name}.jpg")
        drawn = {"as PNG": tmp_path / "tokens" / f"{name.replace('/', '')}.png"}
        path = tmp_path / "index.html"
        page = Page(write_labels_page(path, [LabelsEntry(labels, kept=kept, drawings=drawn)]))
        assert_safe(page)
        ((_, words),) = page.all("section", class_="kept")
        assert summary(kept) in words
        assert "stays to the end" in words
        ((link, _),) = [found for found in page.all("a") if found[1] == "as PNG"]
        assert (link["href"] or "").startswith("tokens/")
        pictures = len(page.all("figure"))
        assert pictures == (3 + 3 if places == 1 else 3 * places)

    def test_a_page_without_it_has_no_such_part(self, tmp_path: Path) -> None:
        labels = Labels(np.array([1.0]), ("cat",), "a.jpg")
        page = Page(write_labels_page(tmp_path / "index.html", [LabelsEntry(labels)]))
        assert not page.all("section", class_="kept")
