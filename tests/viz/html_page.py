"""Written pages, read back: what stands in them, and that they run and fetch nothing foreign."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

EVIL = (
    "<script>alert(1)</script>",
    'a" onmouseover="alert(1)',
    "'><img src=x onerror=alert(1)>",
    "{{style}} $title &amp;",
    "</style></script></title>",
    "javascript:alert(1)",
)
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements of a page as (tag, attributes, text); every tag that is opened has to be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs))
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append((tag, self.elements[-1][2]))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, text in self.open:
            text.append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        pairs = {(key.rstrip("_").replace("_", "-"), value) for key, value in wanted.items()}
        found = [(attributes, text) for name, attributes, text in self.elements if name == tag]
        return [(attributes, "".join(text)) for attributes, text in found if pairs <= set(attributes.items())]


def assert_safe(page: Page) -> None:
    """Only the page's own style and script can run, and every address is inside the page or relative."""
    without_pictures = re.sub(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/=]+", "", page.source)
    assert not re.search(r"https?:|@import|url\(", without_pictures)
    for tag, attributes, _ in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        for key in ("src", "href"):
            address = attributes.get(key)
            if address is not None:
                assert re.fullmatch(
                    r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/=]+|#[\w-]+|[\w./%~-]+", address
                )
    (meta,) = page.all("meta", http_equiv="Content-Security-Policy")
    policy = dict(part.strip().split(" ", 1) for part in (meta[0]["content"] or "").split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (block,) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(block[1].encode()).digest()).decode()
        assert policy[rule] == f"'sha256-{digest}'"
