"""framecast: efficient image and video understanding and forecasting.

Everything public hangs on this module and is imported when it is first used:

    import framecast as fc

    model = fc.create_model("ltcontext", num_classes=48, feature_dim=2048)
    segments = fc.predict(fc.load("runs/breakfast-split1"), "cooking.mp4")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framecast.backbones.adaptive import adaptive
    from framecast.checkpoints import load, save
    from framecast.importing import import_checkpoint
    from framecast.infer.answering import ask
    from framecast.infer.predictor import predict
    from framecast.infer.token_budget import calibrate
    from framecast.registry import create_model, list_models, list_recipes
    from framecast.structures import Answer, Clip, FeatureTrack, Labels, Provenance, Segments

__version__ = "0.1.0"

_HOMES = {
    "create_model": "registry",
    "list_models": "registry",
    "list_recipes": "registry",
    "load": "checkpoints",
    "save": "checkpoints",
    "import_checkpoint": "importing",
    "adaptive": "backbones.adaptive",
    "calibrate": "infer.token_budget",
    "predict": "infer.predictor",
    "ask": "infer.answering",
    "Answer": "structures",
    "Clip": "structures",
    "FeatureTrack": "structures",
    "Labels": "structures",
    "Provenance": "structures",
    "Segments": "structures",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"framecast has no {name!r}")
    return getattr(importlib.import_module(f"framecast.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
