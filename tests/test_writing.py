"""Sections of text files that programs fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from framecast.writing import fill_section


def test_a_section_is_filled_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    empty = "# Title\n<!-- a:start -->\nold\n<!-- a:end -->\n\n<!-- b:start -->\n<!-- b:end -->\nend\n"
    path.write_text(empty)
    for _ in range(2):
        fill_section(path, "b", "| ä |\n\n")
        fill_section(path, "a", "new")
    whole = "# Title\n<!-- a:start -->\nnew\n<!-- a:end -->\n\n<!-- b:start -->\n| ä |\n<!-- b:end -->\nend\n"
    assert path.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("text", ["", "<!-- a:start -->", "<!-- a:end --> <!-- a:start -->"])
def test_without_a_section_nothing_is_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"README\.md has no section.*<!-- a:start --> and <!-- a:end -->"):
        fill_section(path, "a", "new")
    assert path.read_text() == text
