"""Every score has a named protocol, and the names are found even when mistyped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framecast.data.layouts import LAYOUTS
from framecast.metrics import (
    Protocol,
    SegmentationMetrics,
    get_protocol,
    list_protocols,
    protocols_for,
    register_protocol,
)
from framecast.metrics.protocols import PROTOCOLS


def test_every_split_of_every_benchmark_has_both_averagings() -> None:
    for name, splits in (("breakfast", 4), ("50salads", 5), ("gtea", 4)):
        found = set(list_protocols(f"{name}/*"))
        assert found == {
            f"{name}/s{k + 1}-{a}" for k in range(splits) for a in ("mean-over-videos", "pooled")
        }
        assert len(LAYOUTS[name].splits) == splits
    assert list_protocols("assembly101/*") == ["assembly101/val-mean-over-videos", "assembly101/val-pooled"]


@pytest.mark.parametrize("name", list_protocols("*"))
def test_a_protocol_says_what_it_means(name: str) -> None:
    protocol = get_protocol(name)
    assert protocol.name == name
    assert name.startswith(f"{protocol.dataset}/{protocol.split}")
    assert ("summed over videos" in protocol.description) == (protocol.averaging == "pooled")
    if protocol.background:
        assert "background" in protocol.description
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.averaging = "pooled"  # ty: ignore[invalid-assignment]


def test_only_a_class_called_background_is_left_out() -> None:
    """SIL of Breakfast and action_start, action_end of 50Salads are ordinary classes."""
    left_out = {name for p in PROTOCOLS.values() for name in (*p.background, *p.ignored)}
    assert left_out == {"background"}
    assert all(get_protocol(name).background for name in list_protocols("gtea/*"))
    for dataset in ("breakfast", "50salads", "assembly101"):
        assert not any(get_protocol(name).background for name in list_protocols(f"{dataset}/*"))


def test_the_complete_test_set_is_known() -> None:
    assert sum(get_protocol(f"breakfast/s{k}-pooled").num_videos or 0 for k in range(1, 5)) == 1712
    assert not get_protocol("breakfast/s1-pooled").complete(3)
    assert get_protocol("breakfast/s1-pooled").complete(252)
    assert get_protocol("segmentation/pooled").complete(3)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("breakfast/s1-mean-over-video", "breakfast/s1-mean-over-videos"),
        ("breakfst/s2-pooled", "breakfast/s2-pooled"),
        ("breakfast/s7-pooled", "breakfast/s"),
        ("pooled", "segmentation/mean-over-videos"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(typo: str, nearest: str) -> None:
    with pytest.raises(ValueError, match="unknown protocol") as caught:
        get_protocol(typo)
    assert nearest in str(caught.value)


def test_protocols_that_fit_a_split() -> None:
    assert protocols_for("gtea", 2) == ["gtea/s2-mean-over-videos", "gtea/s2-pooled"]
    assert protocols_for("assembly101", "val") == list_protocols("assembly101/*")
    assert protocols_for("my data", 1) == list_protocols("segmentation/*")


def test_ones_own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.metrics.protocols.PROTOCOLS", dict(PROTOCOLS))
    mine = register_protocol(Protocol("kitchen/actions", "kitchen", "pooled", ignored=("unsure",)))
    assert register_protocol(mine) is mine
    metrics = SegmentationMetrics(("pour", "stir", "unsure"))
    metrics.update(np.array([0, 1, 1]), np.array([0, 1, 2]))
    assert metrics.compute("kitchen/actions")["accuracy"] == 100
    with pytest.raises(ValueError, match="is registered already"):
        register_protocol(dataclasses.replace(mine, averaging="videos"))
    with pytest.raises(ValueError, match=r"'frames', not one of .*pooled"):
        Protocol("x", "x", "frames")  # ty: ignore[invalid-argument-type]
