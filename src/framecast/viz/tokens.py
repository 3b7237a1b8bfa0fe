"""Which patches an adaptive model keeps, drawn over what it saw: stage after stage, and how long each stays.

    draw_tokens(kept, "kept.png", title="Which patches deit_small_ats keeps of owl.jpg")

A picture of an image or a clip as PNG; a clip also as GIF or MP4, frame after frame. Patches that are gone
fade to a pale blue; the colours of the map, from dark to bright, say at which stage a patch goes. All counts
are of patches: the class token, which always stays, has no place in the picture.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from framecast.data.video_writing import write_clip
from framecast.structures import KeptTokens
from framecast.viz.canvas import FAINT, HAIRLINE, INK, Page, shortened, text_width
from framecast.viz.images import to_image
from framecast.viz.palette import channels, clean, text_color
from framecast.writing import write_file

GONE = np.array([196.0, 206.0, 223.0])  # patches fade to it; white or grey could be a part of the scene
PIXELS = 150  # an inch, as of Page
MARGIN, TOP, FOOT = 0.32, 0.95, 0.36  # inches
IMAGE_WIDTH, BIG, TALLEST = 10.0, 2.75, 3.6  # page of an image; its two large pictures
CLIP_WIDTH, CELL, NAMES = 12.0, 1.35, 1.9  # page of a clip; a frame, the words left of the rows
MOVING_WIDTH, MOVING_SCALE = 8.4, 0.6  # of GIF and MP4: inches, and pixels of those of a PNG
FRAMES_AT_MOST, STAGES_AT_MOST, IN_A_ROW, SMALL = 8, 8, 8, 1.9
BAR = "#5b6b82"


def draw_tokens(kept: KeptTokens, path: str | Path, *, title: str = "Which patches are kept") -> Path:
    """Draw what is kept; the suffix, .png, .gif or .mp4, is the kind of picture.

    Raises ValueError for another suffix and where an image shall move.
    """
    path = Path(path)
    if path.suffix not in (".png", ".gif", ".mp4"):
        raise ValueError(f"{path} is none of .png, .gif and .mp4")
    if path.suffix == ".png":
        page = _image_page(kept, title) if kept.left.shape[1] == 1 else _clip_page(kept, title)
        return page.save(path)
    if kept.left.shape[1] == 1:
        raise ValueError(f"{path}: an image does not move; draw it as .png")
    shots = [_shot(kept, i, title) for i in range(kept.left.shape[1])]
    if path.suffix == ".mp4":
        return _write_mp4(shots, path)
    return _write_gif(shots, path, ["#ffffff", INK, FAINT, HAIRLINE, BAR, *stage_colors(len(kept.blocks))])


# Pictures of patches ----------------------------------------------------------------------------------


def left_picture(frame: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The frame (H, W, 3) uint8, pale blue where left (rows, columns) is False."""
    faded = 0.14 * _grey(frame) + 0.86 * GONE
    return np.where(_over(left, frame)[..., None], frame, faded.round()).astype(np.uint8)


def lasting_picture(frame: np.ndarray, lasting: np.ndarray, num_stages: int) -> np.ndarray:
    """The frame in grey under the colours of how many stages each patch (rows, columns) outlives."""
    colors = np.array([channels(color) for color in stage_colors(num_stages)])
    tint = colors[_over(lasting, frame)]
    return (0.62 * tint + 0.38 * _grey(frame)).round().astype(np.uint8)


def stage_colors(num_stages: int) -> list[str]:
    """Colours "#rrggbb" of patches that go at stage 1, 2, … and, last, of those that stay."""
    shades = colormaps["viridis"](np.linspace(0, 1, num_stages + 1))[:, :3]
    return ["#" + "".join(f"{round(255 * c):02x}" for c in shade) for shade in shades]


def shown_frames(kept: KeptTokens) -> np.ndarray:
    """(P, H, W, 3) one frame for each place in time, the middle one of those that share their patches."""
    each = len(kept.frames) // kept.left.shape[1]
    return kept.frames[each // 2 :: each]


def evenly(count: int, most: int) -> list[int]:
    """At most so many of 0 … count - 1, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _over(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(rows, columns) of patches to the pixels of the frame."""
    (height, width), (rows, columns) = frame.shape[:2], values.shape
    return values[np.arange(height)[:, None] * rows // height, np.arange(width) * columns // width]


def _grey(frame: np.ndarray) -> np.ndarray:
    return (frame @ np.array([0.299, 0.587, 0.114]))[..., None]


def _sized(frame: np.ndarray, width: float, height: float) -> np.ndarray:
    """The frame in the pixels of a box of inches, so that patches have sharp edges."""
    size = (max(1, round(width * PIXELS)), max(1, round(height * PIXELS)))
    return np.asarray(to_image(frame).resize(size, Image.Resampling.LANCZOS))


# Words ------------------------------------------------------------------------------------------------


def share(part: float, whole: float) -> str:
    """A share in percent; what is not all is never called 100 %."""
    percent = 100 * part / whole
    return f"{min(percent, 99):.0f} %" if part < whole else "100 %"


def summary(kept: KeptTokens) -> str:
    """What is left at the end, and what the model has to compute."""
    count, whole = kept.counts[-1], kept.num_patches
    stages = "1 stage" if len(kept.blocks) == 1 else f"{len(kept.blocks)} stages"
    return (
        f"{count:,} of {whole:,} patches ({share(count, whole)}) are left after {stages}; the model computes "
        f"{share(kept.macs_share, 1)} of the multiply-adds that it needs with all patches"
    )


def what_was_seen(kept: KeptTokens) -> str:
    height, width = kept.frames.shape[1:3]
    frames = f"{len(kept.frames)} frames of " if len(kept.frames) > 1 else ""
    seen = f", {kept.view}" if kept.view else ""
    return f"{frames}{width} × {height} pixels, scaled and cut from the file as the model reads it{seen}"


def _footnote(kept: KeptTokens) -> str:
    return f"The model saw {what_was_seen(kept)}. Blocks count from 0; the class token is not counted."


# Pages ------------------------------------------------------------------------------------------------


def _paper(width: float, height: float, title: str, words: str, note: str) -> Page:
    page, inner = Page(width, height), width - 2 * MARGIN
    page.text(MARGIN, 0.32, shortened(clean(title), 13, inner, True), 13, bold=True)
    page.text(MARGIN, 0.6, shortened(words, 9.5, inner), 9.5, FAINT)
    page.text(MARGIN, height - 0.2, shortened(note, 7.5, inner), 7.5, FAINT)
    return page


def _image_page(kept: KeptTokens, title: str) -> Page:
    """What was seen, how long patches stay, a table of stages; below, what is left after each stage."""
    frame, lasting, stages = shown_frames(kept)[0], kept.lasting[0], len(kept.blocks)
    aspect = frame.shape[0] / frame.shape[1]
    wide = min(BIG, TALLEST / aspect)
    tall = wide * aspect
    table = max(tall, 0.2 * (stages + 1))
    rows = -(-stages // IN_A_ROW)
    in_a_row, gap = -(-stages // rows), 0.12
    cell = min((IMAGE_WIDTH - 2 * MARGIN + gap) / in_a_row - gap, SMALL, SMALL / aspect)
    below, row = TOP + 0.16 + table + 0.34, cell * aspect + 0.44
    page = _paper(IMAGE_WIDTH, below + 0.1 + row * rows + FOOT, title, summary(kept), _footnote(kept))

    y, second = TOP + 0.16, MARGIN + wide + 0.22
    picture = _sized(frame, wide, tall)
    page.text(MARGIN, TOP, "What the model saw", 9)
    page.picture(MARGIN, y, wide, tall, picture)
    page.text(second, TOP, "How long each patch stays", 9)
    page.picture(second, y, wide, tall, lasting_picture(picture, lasting, stages))
    _stage_table(page, kept, second + wide + 0.3, IMAGE_WIDTH - MARGIN, table)

    page.text(MARGIN, below, "What is left after each stage (pale blue is gone)", 9)
    small = _sized(frame, cell, cell * aspect)
    for i, (left, count, block) in enumerate(zip(kept.left, kept.counts, kept.blocks, strict=True)):
        x, y = MARGIN + i % in_a_row * (cell + gap), below + 0.16 + i // in_a_row * row
        page.picture(x, y, cell, cell * aspect, left_picture(small, left[0]))
        page.text(x, y + cell * aspect + 0.1, f"stage {i + 1} (block {block})", 7.5)
        words = f"{count:,} left, {share(count, kept.num_patches)}"
        page.text(x, y + cell * aspect + 0.23, words, 7.5, FAINT)
    return page


def _stage_table(page: Page, kept: KeptTokens, x: float, end: float, tall: float) -> None:
    """The legend of the colours, with a bar of the patches that are left after each stage."""
    names = [f"gone at stage {i + 1} (block {block})" for i, block in enumerate(kept.blocks)]
    names.append("stays to the end")
    wide = max(text_width(name, 8) for name in names)
    bars = x + 0.24 + wide + 0.18
    figures = text_width(f"{kept.num_patches:,}", 8) + 0.1
    longest = max(end - bars - figures, 0.3)
    page.text(x, TOP, "Colour", 9)
    page.text(bars, TOP, "Patches left after it", 9)
    step = min(0.3, tall / len(names))
    colors = stage_colors(len(kept.blocks))
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        y = TOP + 0.16 + step * (i + 0.5)
        page.box(x, y - 0.065, 0.15, 0.13, color)
        page.text(x + 0.24, y, name, 8)
        if i == len(kept.counts):
            continue
        page.box(bars, y - 0.04, longest, 0.08, HAIRLINE)
        page.box(bars, y - 0.04, longest * kept.counts[i] / kept.num_patches, 0.08, BAR)
        page.text(bars + longest + 0.08, y, f"{kept.counts[i]:,}", 8, FAINT)
    page.text(bars, TOP + 0.16 + step * (len(names) - 0.5), f"of {kept.num_patches:,} patches", 8, FAINT)


def _clip_page(kept: KeptTokens, title: str) -> Page:
    """A column for each frame; rows: what was seen, how long patches stay, what is left after each stage."""
    frames, lasting = shown_frames(kept), kept.lasting
    columns = evenly(len(frames), FRAMES_AT_MOST)
    stages = evenly(len(kept.blocks), STAGES_AT_MOST)
    aspect = frames.shape[1] / frames.shape[2]
    gap = 0.08
    cell = min((CLIP_WIDTH - 2 * MARGIN - NAMES) / FRAMES_AT_MOST - gap, CELL / aspect)
    tall = cell * aspect
    width = max(MARGIN * 2 + NAMES + len(columns) * (cell + gap) - gap, IMAGE_WIDTH)
    row, first = tall + 0.26, TOP + 0.52
    page = _paper(width, first + row * (2 + len(stages)) + FOOT, title, summary(kept), _footnote(kept))
    _legend(page, len(kept.blocks), MARGIN, TOP, width - MARGIN)

    rows = [("What the model saw", ""), ("How long each patch stays", "")]
    for i in stages:
        words = f"{kept.counts[i]:,} patches, {share(kept.counts[i], kept.num_patches)}"
        rows.append((f"Left after stage {i + 1}", f"block {kept.blocks[i]}\n{words}"))
    for j, (name, words) in enumerate(rows):
        y = first + j * row + tall / 2
        page.text(MARGIN, y - 0.16 * bool(words), name, 8.5)
        if words:
            page.text(MARGIN, y + 0.12, words, 7.5, FAINT)
    for column, i in enumerate(columns):
        x = MARGIN + NAMES + column * (cell + gap)
        frame = _sized(frames[i], cell, tall)
        page.text(x + cell / 2, first - 0.12, _frame_name(kept, i), 7.5, FAINT, align="center")
        pictures = [frame, lasting_picture(frame, lasting[i], len(kept.blocks))]
        pictures += [left_picture(frame, kept.left[stage, i]) for stage in stages]
        for j, picture in enumerate(pictures):
            page.picture(x, first + j * row, cell, tall, picture)
            if j > 1:
                count = int(kept.left[stages[j - 2], i].sum())
                y = first + j * row + tall + 0.09
                page.text(x + cell / 2, y, f"{count:,} left", 7, FAINT, align="center")
    return page


def _frame_name(kept: KeptTokens, place: int) -> str:
    each = len(kept.frames) // kept.left.shape[1]
    return f"frame {place + 1}" if each == 1 else f"frames {place * each + 1}–{(place + 1) * each}"


def _legend(page: Page, num_stages: int, x: float, y: float, end: float) -> None:
    """The colours in one line."""
    words = "Colour: a patch is gone at stage"
    page.text(x, y, words, 8.5)
    x += text_width(words, 8.5) + 0.1
    last = "stays to the end"
    wide = min(0.34, (end - x - text_width(last, 8) - 0.6) / num_stages)
    for i, color in enumerate(stage_colors(num_stages)):
        stays = i == num_stages
        box = text_width(last, 8) + 0.2 if stays else wide
        page.box(x, y - 0.1, box - 0.02, 0.2, color)
        name = last if stays else str(i + 1)
        if text_width(name, 8) < box:
            page.text(x + box / 2 - 0.01, y, name, 8, text_color(color), align="center")
        x += box


# Moving pictures --------------------------------------------------------------------------------------


def _shot(kept: KeptTokens, place: int, title: str) -> Image.Image:
    """A frame: what was seen, how long patches stay, what is left, and how many patches of every frame."""
    frame, stages = shown_frames(kept)[place], len(kept.blocks)
    aspect, gap = frame.shape[0] / frame.shape[1], 0.14
    wide = min((MOVING_WIDTH - 2 * MARGIN - 2 * gap) / 3, TALLEST / aspect)
    tall = wide * aspect
    first = TOP + 0.5
    left_of_all = f"{kept.counts[-1]:,} of {kept.num_patches:,} patches are left at the end"
    words = f"{left_of_all}, {share(kept.macs_share, 1)} of the multiply-adds are computed"
    page = _paper(MOVING_WIDTH, first + tall + 1.08, title, words, f"Drawn over {what_was_seen(kept)}.")
    _legend(page, stages, MARGIN, TOP, MOVING_WIDTH - MARGIN)
    picture = _sized(frame, wide, tall)
    left = kept.left[-1, place]
    named = {
        f"{_frame_name(kept, place)} of {len(kept.frames)}": picture,
        "how long each patch stays": lasting_picture(picture, kept.lasting[place], stages),
        f"left at the end: {int(left.sum())} of {left.size}": left_picture(picture, left),
    }
    for i, (name, pixels) in enumerate(named.items()):
        x = MARGIN + i * (wide + gap)
        page.text(x, first - 0.14, name, 10)
        page.picture(x, first, wide, tall, pixels)
    page.text(MARGIN, first + tall + 0.2, "Patches left at the end, frame by frame", 8.5, FAINT)
    counts = kept.left[-1].sum((1, 2))
    bar, bottom = (MOVING_WIDTH - 2 * MARGIN) / len(counts), first + tall + 0.74
    for i, count in enumerate(counts):
        high, color = 0.4 * count / max(int(counts.max()), 1), BAR if i == place else HAIRLINE
        page.box(MARGIN + i * bar, bottom - high, bar * 0.9, high, color)
        if text_width(f"{count:,}", 8.5) < 0.8 * bar and high > 0.16:
            x, ink = MARGIN + (i + 0.45) * bar, text_color(color)
            page.text(x, bottom - 0.1, f"{count:,}", 8.5, ink, align="center")
    page.canvas.draw()
    shot = Image.fromarray(np.asarray(page.canvas.buffer_rgba())[..., :3])
    size = [round(side * MOVING_SCALE / 2) * 2 for side in shot.size]  # even, as video has it
    return shot.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _seconds(shots: list[Image.Image]) -> float:
    """Of one frame."""
    return 0.5 if len(shots) <= 16 else 0.25


def _write_gif(shots: list[Image.Image], path: Path, exact: list[str]) -> Path:
    """One palette for all frames, with the `exact` colours in it; without dithering, which would flicker."""
    sheet = Image.fromarray(np.concatenate([np.asarray(shot) for shot in shots]))
    found = sheet.quantize(256 - len(exact), method=Image.Quantize.MEDIANCUT).getpalette() or []
    colors = [c for color in exact for c in channels(color)] + found[: 3 * (256 - len(exact))]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors)
    flat = []
    for shot in shots:
        pixels = np.asarray(shot)
        numbers = np.array(shot.quantize(palette=palette, dither=Image.Dither.NONE))
        for i, color in enumerate(exact):  # the search for the nearest colour is a rough one
            numbers[(pixels == channels(color)).all(-1)] = i
        flat.append(Image.fromarray(numbers, "P"))
        flat[-1].putpalette(colors)
    buffer, duration = io.BytesIO(), round(1000 * _seconds(shots))
    flat[0].save(
        buffer, "GIF", save_all=True, append_images=flat[1:], duration=duration, loop=0, optimize=False
    )
    return write_file(path, buffer.getvalue())


def _write_mp4(shots: list[Image.Image], path: Path) -> Path:
    """Twelve frames a second, most of them repeated: players jump badly in films of few frames."""
    rate = 12
    frames = [np.asarray(shot) for shot in shots for _ in range(round(rate * _seconds(shots)))]
    with tempfile.TemporaryDirectory() as scratch:
        return write_file(path, write_clip(frames, Path(scratch) / "shots.mp4", rate).read_bytes())
