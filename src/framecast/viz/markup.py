"""HTML built so that text from files can never become markup.

`element` escapes every child that is a plain string and every attribute; only its own results, of type
`Markup`, are taken over as they are.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from framecast.viz.palette import clean

VOID = frozenset({"img", "image", "input", "rect", "polyline", "polygon"})


class Markup(str):
    """A string that is HTML already."""


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """`<tag attributes>children</tag>`; `class_`, `data_x` are written class, data-x; None is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(clean(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Sequence[str]) -> Markup:
    """Children one after the other, plain strings escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else html.escape(clean_text(child)) for child in children)
    )


def clean_text(text: str) -> str:
    """As `clean`, but spaces at the ends stay: they part a word from the element beside it."""
    middle = clean(text)
    return f"{' ' * text[:1].isspace()}{middle}{' ' * text[-1:].isspace()}" if middle else " " * bool(text)


def page(template: str, script: str, **parts: Markup | str) -> bytes:
    """Fill `{{name}}` of a template of the folder `page`, with style, script and their content policy.

    script: "" for a page without one. The policy allows this one style, this one script and pictures inside
    the file, nothing else.
    """
    style = _read("style.css")
    code = _read(script) if script else ""
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(code) if script else 'none'}'"
    )
    values = {name: join([part]) for name, part in parts.items()}
    values |= {
        "policy": Markup(html.escape(policy, quote=False)),
        "style": Markup(style),
        "script": Markup(code),
    }
    pieces = _read(template).split("{{")
    text = pieces[0] + "".join(
        values[name] + rest for name, rest in (piece.split("}}", maxsplit=1) for piece in pieces[1:])
    )
    return text.encode("utf-8", errors="replace")


def _read(name: str) -> str:
    return (files("framecast.viz") / "page" / name).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def relative_link(target: str | Path, from_file: str | Path) -> str:
    """Address of a file as seen from another; never absolute, so that a folder of pages can be moved."""
    relative = os.path.relpath(Path(target), Path(from_file).parent)
    return quote(Path(relative).as_posix(), errors="surrogateescape")


def percent(share: float) -> str:
    """A share of a length as SVG writes it."""
    return f"{100 * share:.3f}%"
