"""Label sequences as numbers that networks read: runs of equal labels, and matrices of few rows.

Legend: T frames, N runs, R rows, K classes.
"""

from __future__ import annotations

import numpy as np


def runs_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and lengths in frames (N,) of the maximal runs of equal labels (T,)."""
    labels = np.asarray(labels)
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1])[: len(labels)])
    return labels[starts].astype(np.int64), np.diff(np.append(starts, len(labels)))


def checked_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels (T,) of a video; ValueError where there is none, or one that is not a class."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be a non-empty vector of class indices, got {labels.dtype} of shape "
            f"{labels.shape}; nothing can be anticipated before a frame has been seen"
        )
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(
            f"label {labels[at]} at frame {at} is not one of the {num_classes} classes; "
            "give unlabelled frames the label of their neighbours"
        )
    return labels.astype(np.int64)


def rows_of(labels: np.ndarray, num_rows: int) -> np.ndarray:
    """(R,) class of every row when labels (T,) are squeezed or stretched to so many rows.

    A run over frames [s, e) fills the rows int(R s/T) .. int(R e/T), the last one all to the end. A run that
    begins and ends in the same row disappears.
    """
    classes, lengths = runs_of(labels)
    starts = np.append(0, np.cumsum(lengths)[:-1])
    first = (num_rows * (starts / len(labels))).astype(np.int64)
    return np.repeat(classes, np.diff(np.append(first, num_rows)))


def one_hot_rows(labels: np.ndarray, num_rows: int, num_classes: int) -> np.ndarray:
    """(K, R) float32 matrix of labels (T,), one 1 in every row; without a frame it is all zero."""
    out = np.zeros((num_classes, num_rows), dtype=np.float32)
    if len(labels):
        out[rows_of(labels, num_rows), np.arange(num_rows)] = 1
    return out
