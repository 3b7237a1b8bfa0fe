"""Finds the golden fixtures: numbers that the original implementations computed.

`FRAMECAST_GOLDEN` holds one folder or several, separated by colons; every `*.safetensors` in
`<folder>/<system>/` is a fixture. What a fixture is stands in its metadata, never in its name.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "golden"


@dataclass(frozen=True)
class Fixture:
    path: Path
    meta: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.meta["kind"]

    @property
    def config(self) -> dict[str, Any]:
        return self.meta["config"]

    @property
    def tensors(self) -> dict[str, Tensor]:
        with safe_open(self.path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below a prefix, without it: `part("state")` is the official state dict."""
        return {
            k.removeprefix(prefix + "."): t for k, t in self.tensors.items() if k.startswith(prefix + ".")
        }


def roots() -> list[Path]:
    given = os.environ.get("FRAMECAST_GOLDEN", str(DEFAULT))
    return [Path(part) for part in given.split(":") if part]


def fixtures(system: str) -> list[Any]:
    """Every fixture of a system as pytest parameters; without any, one that skips (fails where CI=true)."""
    found = []
    for root in roots():
        for path in sorted((root / system).glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                meta = json.loads(file.metadata()["meta"])
            found.append(pytest.param(Fixture(path, meta), id=f"{meta['kind']}:{path.stem}"))
    return found or [pytest.param(None, id="no golden folder")]


def require(fixture: Fixture | None) -> Fixture:
    if fixture is not None:
        return fixture
    message = (
        f"no golden fixtures in {[str(r) for r in roots()]}; set FRAMECAST_GOLDEN to a folder that has them"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
