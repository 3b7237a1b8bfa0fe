"""Reads the weights out of an ONNX file under the names that the exported PyTorch model gave them.

Exporters keep the names of most parameters, but fold the matrices of linear layers into anonymous,
transposed initialisers of MatMul nodes. The node's own path tells which layer they belong to:
`/backbone/encoder/layer.0/mlp/fc1/MatMul` reads the transposed `backbone.encoder.layer.0.mlp.fc1.weight`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def read_onnx_weights(path: Path) -> dict[str, Tensor]:
    """Parameters of an ONNX graph by their PyTorch names.

    The position table of a Hugging Face ViT loses its name as well, and is cut in two (the row of the class
    token, which is concatenated; the grid, which is resampled); the two are joined again.
    Raises ImportError when the `export` extra is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ImportError("reading .onnx needs the package onnx: pip install 'framecast[export]'") from None
    try:
        graph = onnx.load(str(path)).graph
        arrays = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    except Exception as error:  # protobuf's own kinds, and whatever a damaged tensor is no number of
        raise ValueError(f"{path} cannot be read as ONNX ({type(error).__name__}); copy it again") from None
    state = {name: array for name, array in arrays.items() if not _anonymous(name)}
    positions: dict[str, list[Tensor]] = {}
    for node in graph.node:
        layer = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".")
        value = next((arrays[i] for i in node.input if i in arrays and _anonymous(i)), None)
        if value is None:
            continue
        if node.op_type == "MatMul" and value.ndim == 2:
            state[f"{layer}.weight"] = value.T.contiguous()
        elif layer.endswith("embeddings") and value.ndim == 3 and value.shape[0] == 1:
            positions.setdefault(layer, []).append(value)
    for layer, parts in positions.items():
        class_row_first = sorted(parts, key=lambda part: part.shape[1])
        state[f"{layer}.position_embeddings"] = torch.cat(class_row_first, dim=1)
    return state


def _anonymous(name: str) -> bool:
    return "::" in name or name.startswith("/") or not name.rpartition(".")[0]
