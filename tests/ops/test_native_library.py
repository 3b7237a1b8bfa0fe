"""When kernels run, when they must not, and what is said where there are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.ops import native_library
from framecast.ops.shifted_linear import shifted_linear

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh() -> Iterator[None]:
    native_library.load.cache_clear()
    yield
    native_library.load.cache_clear()


def test_kernels_agree_with_their_references_on_this_machine(kernels: str) -> None:
    assert native_library.available() == kernels
    errors = dict(native_library.check())
    scans = {"selective_scan", "selective_scan gradients"}
    assert errors.keys() == {"span_attention", "shifted_linear", "gated_layer", "causal_conv1d"} | scans
    assert max(errors.values()) < 1e-6


def test_kernels_keep_out_of_the_way(kernels: str) -> None:
    x = torch.randn(1, 4, 3)
    assert not native_library.usable(x)  # gradients may be wanted
    with torch.no_grad():
        assert native_library.usable(x, None)
        assert not native_library.usable(x, x.double())
        assert not native_library.usable(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not native_library.usable(x)
        with FlopCounterMode(display=False):  # could not count what they do
            assert not native_library.usable(x)


def test_without_kernels_the_reference_runs(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setenv("FRAMECAST_NATIVE", "0")
    assert native_library.available() == "none: switched off by FRAMECAST_NATIVE=0"
    x, weight = torch.randn(1, 4, 3), torch.randn(5, 3)
    with torch.no_grad():
        assert not native_library.usable(x)
        assert shifted_linear(x, weight, None).shape == (1, 4, 5)
        with pytest.raises(RuntimeError, match="switched off by FRAMECAST_NATIVE=0"):
            shifted_linear(x, weight, None, impl="native")


def test_no_library_is_no_error(monkeypatch: pytest.MonkeyPatch, fresh: None, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAMECAST_NATIVE", "1")
    monkeypatch.setattr(native_library, "PATH", tmp_path / "library.so")
    assert native_library.available().startswith("none: not built")
    (tmp_path / "library.so").write_text("no library")
    native_library.load.cache_clear()
    assert native_library.available().startswith("none: not loaded")


def test_an_unknown_instruction_set_is_named(
    monkeypatch: pytest.MonkeyPatch, kernels: str, fresh: None
) -> None:
    monkeypatch.setenv("FRAMECAST_NATIVE", "mmx")
    assert "FRAMECAST_NATIVE=mmx" in native_library.available()


OWN_THREADS = """
import ctypes, sys
import numpy as np
library, size = ctypes.CDLL(sys.argv[1]), ctypes.c_int64
x, weight = np.random.default_rng(0).normal(size=(2, 3000, 64)).astype("f"), np.eye(64, dtype="f")
out, shift = np.empty_like(x), np.zeros(1, dtype=np.int64)
pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, weight, out, shift)]
sizes = [size(n) for n in (2, 3000, 64, 64, 1)]
nothing, row, threads = ctypes.c_void_p(0), size(64), size(3)
maps = (pointers[1], nothing, nothing, size(0), pointers[2], row, *sizes, pointers[3])
status = library.framecast_shifted_linear(pointers[0], row, *maps, size(0), threads)
assert status == 0 and (out == x).all() and "torch" not in sys.modules
"""


def test_a_process_without_torch_brings_its_own_threads() -> None:
    if native_library.load()[0] is None:
        pytest.skip("no native kernels")
    command = [sys.executable, "-c", OWN_THREADS, str(native_library.PATH)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class TestBuild:
    @pytest.fixture
    def hook(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """hatch_build.py, whose only tie to hatchling is a base class."""
        plugin = ModuleType("interface")
        plugin.BuildHookInterface = object  # ty: ignore[unresolved-attribute]
        monkeypatch.setitem(sys.modules, "hatchling.builders.hooks.plugin.interface", plugin)
        namespace: dict = {"__name__": "hatch_build", "__file__": str(ROOT / "hatch_build.py")}
        exec(compile((ROOT / "hatch_build.py").read_text(), "hatch_build.py", "exec"), namespace)
        return SimpleNamespace(**namespace)

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        native = Path("src/framecast/ops/native")
        shutil.copytree(ROOT / native, tmp_path / native, ignore=shutil.ignore_patterns("*.so"))
        return tmp_path

    def test_without_a_compiler(
        self, hook: SimpleNamespace, checkout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(checkout))
        monkeypatch.delenv("CXX", raising=False)
        (checkout / hook.LIBRARY).write_text("made of older sources")
        assert hook.build(checkout).startswith("no C++ compiler was found")
        assert not (checkout / hook.LIBRARY).exists()

    @pytest.mark.skipif(
        not shutil.which("false"), reason="there is no `false` to stand for a broken compiler"
    )
    def test_with_a_broken_compiler(
        self, hook: SimpleNamespace, checkout: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CXX", str(shutil.which("false")))
        monkeypatch.setenv("PATH", str(checkout))
        assert hook.build(checkout).endswith("failed")

    @pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")
    def test_with_a_compiler(self, hook: SimpleNamespace, checkout: Path, fresh: None) -> None:
        assert not hook.is_fresh(checkout)
        assert hook.build(checkout) == ""
        assert hook.is_fresh(checkout)
        assert [path.name for path in (checkout / hook.FOLDER).glob("framecast*")] == ["framecast_native.so"]
