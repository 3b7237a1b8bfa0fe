"""Colours of classes: the same class has the same colour in every picture.

A class takes the colour of its index in `classes`; classes that mean "nothing here" are grey. The first 60
colours were found by annealing: they maximise the smallest OKLab distance between any two of them, seen
with normal vision and as with missing red, green or blue cones (Machado et al., 2009), the first eight most
strictly (0.07 and more in every view; the eight colours of Okabe and Ito reach 0.076). With many classes no
palette keeps all apart, so pictures write names into segments as well and part neighbours by a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from framecast.structures import Segments

HEX_COLORS = """
    #3179b7 #ed872f #25a37e #be3d70 #ecc914 #8979e5 #2cc0fd #417225 #dea0cf #784098 #e15957 #86c385
    #83e1f9 #9e7b0b #6d58ca #9b2147 #a58ac8 #845f8d #a6e4a4 #cf859c #579ffe #74885b #fea84e #244eb5
    #a45546 #ad4eac #aea85f #803d67 #b572a5 #79ab1a #dcd57f #86a4e1 #adc4f2 #1f786e #56527d #615a05
    #6abcb1 #88cfb4 #9761d1 #6985c0 #bfc571 #954657 #c8a4f6 #299287 #df84dd #5a923c #a4c025 #8ab189
    #da6881 #b3935c #62a6a3 #fbae9e #c192bf #667815 #566e9f #deb5db #6f87f9 #b076d2 #6f558f #b4b1e2
"""
PALETTE = tuple(HEX_COLORS.split())
GREY = "#d3d6db"
DARK_TEXT, LIGHT_TEXT = "#000000", "#ffffff"

BACKGROUND_NAMES = frozenset(
    {"background", "bg", "sil", "silence", "none", "null", "unlabelled", "unlabeled"}
)


def is_background(name: str) -> bool:
    """Whether a class means that nothing happens or nothing is known; "SIL" is Breakfast's name for it."""
    return name.strip().casefold() in BACKGROUND_NAMES


def class_color(index: int, name: str = "") -> str:
    """Colour "#rrggbb" of the class at an index; -100 and background names are grey.

    From index 60 on the palette comes back lighter, then darker, then as it is.
    """
    if index < 0 or is_background(name):
        return GREY
    color = PALETTE[index % len(PALETTE)]
    lap = index // len(PALETTE) % 3
    return color if lap == 0 else mix(color, "#ffffff" if lap == 1 else "#000000", 0.4)


def class_colors(classes: Sequence[str]) -> tuple[str, ...]:
    """Colours of all classes of a vocabulary."""
    return tuple(class_color(i, name) for i, name in enumerate(classes))


def shared_colors(rows: Iterable[Segments]) -> dict[str, str]:
    """Colour of every class name in rows that are shown together.

    The classes of the first row keep the colours of their indices. Names that only a later row's vocabulary
    has take the next free ones, so that one colour never means two classes.
    """
    names: dict[str, int] = {}
    for row in rows:
        for name in row.classes:
            names.setdefault(name, len(names))
    colors = {name: class_color(index, name) for name, index in names.items()}
    return colors | {"unlabelled": GREY}


def mix(color: str, other: str, share: float) -> str:
    """`color` with a share in [0, 1] of another colour."""
    pairs = zip(channels(color), channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2, from 0 (black) to 1 (white)."""
    shares = [value / 255 for value in channels(color)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2, from 1 to 21; text needs 4.5."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_color(fill: str) -> str:
    """Black or white, whichever can be read better on a fill; the contrast is at least 4.5."""
    return max((LIGHT_TEXT, DARK_TEXT), key=lambda text: contrast(fill, text))


def clean(text: str) -> str:
    """Text of a file or a user on one line, without control characters and changes of direction."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def readable(name: str) -> str:
    """A class name as people write it, with spaces for underscores."""
    return clean(name.replace("_", " ")) or "(no name)"
