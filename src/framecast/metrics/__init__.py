"""Scores and the named protocols they are computed under."""

from __future__ import annotations

from framecast.metrics.answers import AnswerMetrics
from framecast.metrics.anticipation import AnticipationMetrics
from framecast.metrics.anticipation_protocols import (
    ANTICIPATION_PROTOCOLS,
    AnticipationProtocol,
    get_anticipation_protocol,
    list_anticipation_protocols,
    register_anticipation_protocol,
)
from framecast.metrics.protocols import (
    PROTOCOLS,
    Protocol,
    get_protocol,
    list_protocols,
    protocols_for,
    register_protocol,
)
from framecast.metrics.recognition import RecognitionMetrics
from framecast.metrics.segmentation import SegmentationMetrics, average_splits
from framecast.metrics.view_protocols import (
    VIEW_PROTOCOLS,
    ViewProtocol,
    get_view_protocol,
    list_view_protocols,
    register_view_protocol,
)

__all__ = [
    "AnswerMetrics",
    "AnticipationMetrics",
    "AnticipationProtocol",
    "Protocol",
    "RecognitionMetrics",
    "SegmentationMetrics",
    "ViewProtocol",
    "average_splits",
    "described_protocols",
    "get_anticipation_protocol",
    "get_protocol",
    "get_view_protocol",
    "list_anticipation_protocols",
    "list_protocols",
    "list_view_protocols",
    "protocols_for",
    "register_anticipation_protocol",
    "register_protocol",
    "register_view_protocol",
]


def described_protocols() -> dict[str, str]:
    """What every protocol of every task counts, by its name."""
    known = {**PROTOCOLS, **VIEW_PROTOCOLS, **ANTICIPATION_PROTOCOLS}
    return {name: protocol.description for name, protocol in known.items()}
