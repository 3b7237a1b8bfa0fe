"""Pages that are tables agree with what is registered and measured; links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_generated_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(menu)["nav"]
    for page in PAGES[1:]:
        assert f": {page.name}" in menu, f"{page.name} is not in the menu of mkdocs.yml"


def code_of(text: str) -> str:
    """The fenced and indented code of a page."""
    fenced = "".join(re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL))
    return fenced + "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_on_the_pages_exist(page: Path) -> None:
    """Every `framecast VERB --option` that a page shows is known to the command line."""
    from typer.main import get_command

    from framecast.cli.app import app

    commands = get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?framecast ([a-z][a-z-]* ?[^\n#`]*)", code_of(text), flags=re.MULTILINE):
        verb, *words = line.split()
        if verb.startswith("-"):
            continue
        assert verb in commands, f"{page.name}: framecast has no verb {verb!r}"
        known = {name for option in commands[verb].params for name in (*option.opts, *option.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {verb} has no option {word}"
