"""The small world in which the command line is run, built once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from small_world import World, build_world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty working folder."""
    with chdir(tmp_path):
        yield tmp_path


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case of a file of bad input is a test."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", metafunc.module.CASES, ids=lambda case: case.name)
