"""LTContext and MS-TCN beside their golden numbers: padding, kernels, hooks, and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import framecast as fc
from framecast.ops import native_library

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIZES: dict[str, dict[str, Any]] = {
    "ltcontext": {"num_stages": 2, "num_layers": 3, "width": 16, "window": 8, "stride": 4},
    "mstcn": {"num_stages": 2, "num_layers": 3, "width": 16},
}


def model_of(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    return fc.create_model(name, num_classes=5, feature_dim=12, **SIZES[name] | config).eval()


VARIANTS = [
    pytest.param("ltcontext", {}, id="ltcontext"),
    pytest.param("ltcontext", {"norm": "instance"}, id="ltcontext-instance-norm"),
    pytest.param("ltcontext", {"num_heads": 2}, id="ltcontext-heads"),
    pytest.param("mstcn", {}, id="mstcn"),
]
every_variant = pytest.mark.parametrize(("name", "config"), VARIANTS)


@every_variant
@settings(deadline=None, max_examples=15, derandomize=True)
@given(lengths=st.lists(st.integers(1, 45), min_size=1, max_size=3))
def test_a_padded_batch_is_each_video_alone(name: str, config: dict, lengths: list[int]) -> None:
    model = model_of(name, **config)
    features = torch.randn(len(lengths), 12, max(lengths) + 3)  # padded frames hold noise
    mask = torch.arange(features.shape[2]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        batch = model(features, mask)
    training = model(features, mask).detach()  # gradients are recorded: padded and masked
    assert_close(training, batch, **TOLERANCE)
    for b, n in enumerate(lengths):
        with torch.no_grad():
            alone = model(features[b : b + 1, :, :n])
        assert_close(batch[:, b : b + 1, :, :n], alone, **TOLERANCE)
        assert not batch[:, b, :, n:].any()


@every_variant
@pytest.mark.parametrize("frames", [1, 3, 7, 8, 9, 31, 100])
def test_inference_gives_what_training_does(
    name: str, config: dict, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, features = model_of(name, **config), torch.randn(2, 12, frames)
    training = model(features).detach()
    with torch.no_grad():
        assert_close(model(features), training, **TOLERANCE)
        monkeypatch.setattr(native_library, "usable", lambda *tensors: False)
        assert_close(model(features), training, **TOLERANCE)


@every_variant
def test_holes_in_a_mask_are_not_seen(name: str, config: dict) -> None:
    model, features = model_of(name, **config), torch.randn(1, 12, 60)
    mask = torch.rand(1, 60) < 0.7
    other = torch.where(mask[:, None], features, torch.randn(1, 12, 60))
    with torch.no_grad():
        logits = model(features, mask)
        assert not logits[:, 0, :, ~mask[0]].any()
        assert_close(model(other, mask), logits)


def test_hooks_see_every_layer_at_inference() -> None:
    model = model_of("ltcontext")
    block, seen = model.stage1.blocks[1], []
    for layer in (block.conv, block.window_attn.qk, block.long_attn.proj, block.proj):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.clone()))
    features = torch.randn(1, 12, 30)
    with torch.no_grad():
        model(features)
    inference, seen[:] = list(seen), []
    model(features)
    for ours, expected in zip(inference, seen, strict=True):
        assert_close(ours, expected.detach(), **TOLERANCE)


def test_odd_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="window must be even"):
        model_of("ltcontext", window=7)


GROWTH = """
import sys, torch
import framecast as fc
sys.path.insert(0, "benchmarks")
from pairing import peak_memory, reset_peak_memory
torch.set_num_threads(1)
sizes = {"num_classes": 10, "feature_dim": 32, "num_stages": 2, "num_layers": 1, "stride": 64}
model = fc.create_model("ltcontext", **sizes).eval()
with torch.inference_mode():
    for frames in (256, 15_000, 30_000):
        features = torch.randn(1, 32, frames)
        before = reset_peak_memory()
        model(features)
        print(peak_memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is known on Linux only")
def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], cwd=root, capture_output=True, text=True, check=True
    )
    _, half, whole = map(int, done.stdout.split())
    assert whole < 2.6 * half
