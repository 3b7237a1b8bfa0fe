"""Scores and the named protocols they are computed under."""

from __future__ import annotations

from framecast.metrics.protocols import (
    Protocol,
    get_protocol,
    list_protocols,
    protocols_for,
    register_protocol,
)
from framecast.metrics.segmentation import SegmentationMetrics, average_splits

__all__ = [
    "Protocol",
    "SegmentationMetrics",
    "average_splits",
    "get_protocol",
    "list_protocols",
    "protocols_for",
    "register_protocol",
]
