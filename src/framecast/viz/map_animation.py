"""Maps over time as a film: GIF, which every page shows, or MP4, which is smaller.

Every frame has the same scale, so that colours can be compared between days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framecast.data.video_writing import write_clip
from framecast.structures import Forecast
from framecast.viz.map_style import MapStyle, style_of
from framecast.viz.maps import known_part, map_pixels, panel_of, source_line
from framecast.viz.palette import readable
from framecast.writing import write_by_name

GIF_COLORS = 128
STILL = 3  # the last frame of a GIF stays so many times as long


def animation_frames(
    forecast: Forecast,
    name: str,
    *,
    title: str = "",
    points: Sequence[Any] = (),
    style: MapStyle | None = None,
) -> Iterator[np.ndarray]:
    """Pictures (height, width, 3) uint8 of every time, all of one size; the date stands in the title."""
    forecast = known_part(forecast, points)
    style = style or style_of(name, forecast.units[name], [forecast.values[name]])
    for index, date in enumerate(forecast.dates):
        panel = panel_of(forecast.time(index), name, style=style)
        heading = f"{title or readable(name)}, {date}"
        yield map_pixels([panel], title=heading, below=source_line(forecast), points=points)


def write_animation(
    forecast: Forecast,
    name: str,
    path: str | Path,
    *,
    rate: float = 2.0,
    title: str = "",
    points: Sequence[Any] = (),
) -> Path:
    """A film of a variable, `rate` maps a second; the suffix says which kind, .gif or .mp4.

    Raises ValueError for another suffix and for a forecast of one time.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"a film is .gif or .mp4, not {path.name}")
    if len(forecast) < 2:
        raise ValueError("a film needs two times at least; this forecast has one")
    frames = animation_frames(forecast, name, title=title, points=points)
    if path.suffix == ".mp4":
        return write_by_name(path, lambda file: write_clip(list(frames), file, max(1, round(rate))))
    images = [Image.fromarray(frame) for frame in frames]
    middle = images[len(images) // 2].quantize(GIF_COLORS, dither=Image.Dither.NONE)
    coded = [image.quantize(palette=middle, dither=Image.Dither.NONE) for image in images]
    lengths = [round(1000 / rate)] * (len(coded) - 1) + [round(STILL * 1000 / rate)]

    def write(file: Path) -> None:
        coded[0].save(
            file, format="GIF", save_all=True, append_images=coded[1:], duration=lengths, loop=0, disposal=1
        )

    return write_by_name(path, write)
