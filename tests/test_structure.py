"""The house keeps its order: imports flow one way, files stay readable, heavy packages stay away."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import framecast

PACKAGE = Path(framecast.__file__).parent
# A part may import from its own rank and from lower ones.
RANKS = [
    {"structures", "registry", "official", "settings", "writing", "progress", "weights", "extras"},
    {"ops"},
    {"nn"},
    {"backbones"},
    {"models"},
    {"onnx_weights", "weight_files", "checkpoints", "importing", "metrics"},
    {"data"},
    {"tasks"},
    {"train", "viz"},
    {"infer", "recipes"},
    {"profile"},
    {"doctor"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    if part in ("__init__", "__main__"):
        return
    assert part in RANK, f"{part} has no rank; add it to RANKS where it belongs"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            other = part_of(module) if module.startswith("framecast.") else ""
            if other:
                assert RANK[other] <= RANK[part], (
                    f"line {node.lineno}: {part} imports {other}, which stands above it"
                )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400, f"{len(lines)} lines; split it by subject"
    if lines and path.name != "__init__.py":
        assert ast.get_docstring(ast.parse("\n".join(lines))), "a file says what it is in its first line"


@pytest.mark.parametrize(
    "command",
    [["--help"], ["list"], ["info", "ltcontext"], ["list", "--kind", "recipes"], ["info", "segmentation"]],
)
def test_catalogue_answers_without_torch(command: list[str]) -> None:
    code = (
        "import sys; from framecast.cli.app import app\n"
        f"sys.argv = ['framecast', *{command!r}]\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'av', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
