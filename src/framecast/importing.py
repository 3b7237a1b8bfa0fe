"""Official weights brought into our models, with every tensor accounted for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from framecast.checkpoints import ModelCard
from framecast.official import OfficialLayout
from framecast.registry import create_model, did_you_mean, entries
from framecast.weight_files import Fit, compare, read_weights, shown


@dataclass
class ImportReport(Fit):
    """Where every tensor of an official checkpoint went."""

    system: str = ""
    layout: str = ""
    source: str = ""
    sha256: str = ""
    licence: str = ""
    resampled: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # release key -> reason
    fresh: list[str] = field(default_factory=list)  # ours, not in the release: left as initialised

    def __str__(self) -> str:
        lines = [
            f"{self.system} weights in the layout of {self.layout}, licence: {self.licence}",
            f"{len(self.matched)} tensors matched, {len(self.resampled)} of them resampled, "
            f"{len(self.ignored)} ignored by rule, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape",
        ]
        for why in dict.fromkeys(self.ignored.values()):
            lines.append(f"  ignored, {why}: {shown([k for k, v in self.ignored.items() if v == why])}")
        for title, names in (("resampled", self.resampled), ("left as initialised", self.fresh)):
            lines += [f"  {title}: {shown(names)}"] * bool(names)
        return "\n".join(lines)


def import_checkpoint(system: str, source: str | Path | dict[str, Tensor], **config: Any) -> nn.Module:
    """Build a model from an official checkpoint; the model carries the `ImportReport` as `import_report`.

    system: "ltcontext", "mstcn", "vit", … source: a file (safetensors, pickle of tensors, ONNX, npz), a
    "package:name/path" inside an installed package, a hub id, or a state dict. config: fields of our config
    that the file cannot tell, for example `window=64`, or that shall be others: with another `num_classes`
    the head is a new one, with another `image_size` positions are resampled. Missing, unexpected or
    misshapen tensors raise ValueError.
    """
    layouts = _layouts(system)
    weights = read_weights(source)
    layout = next((layout for layout in layouts if layout.applies(weights.tensors)), None)
    if layout is None:
        raise ValueError(
            f"{weights.name} is not a {system} checkpoint: its tensors ({shown(sorted(weights.tensors))}) "
            f"are named as in none of the known layouts: {', '.join(layout.name for layout in layouts)}"
        )
    report = ImportReport(
        system=system, layout=layout.name, source=weights.name, sha256=weights.sha256, licence=layout.licence
    )
    model, state = _translate(layout, weights.tensors, weights.settings, config, report)
    if not report.complete:
        raise ValueError(f"{weights.name} does not fit {layout.name}: {report.problems()}")
    model.load_state_dict(state)
    model.import_report = report
    model.card = ModelCard(source=f"{weights.name} (sha256 {weights.sha256[:16]})", licence=layout.licence)
    return model.eval()


def systems() -> dict[str, str]:
    """Systems whose official checkpoints can be imported, with the module that knows their layout."""
    return {entry.system: entry.module for entry in entries("model").values() if entry.system}


def system_of(name: str) -> str:
    """The system whose official checkpoints a registered model takes, "" where there is none."""
    module = entries("model")[name].module
    return next((system for system, home in systems().items() if home == module), "")


def _layouts(system: str) -> tuple[OfficialLayout, ...]:
    known = systems()
    if system not in known:
        near = did_you_mean(system, known)
        raise ValueError(f"no official checkpoints are known for {system!r}{near}; known: {', '.join(known)}")
    return importlib.import_module(known[system]).OFFICIAL


def _translate(
    layout: OfficialLayout,
    tensors: Mapping[str, Tensor],
    settings: dict[str, Any],
    config: dict[str, Any],
    report: ImportReport,
) -> tuple[Any, dict[str, Tensor]]:
    """The model that the tensors belong to, and the tensors under its names; fills the report."""
    try:
        state = layout.prepare(dict(tensors))
        stated = layout.read_config(state, settings)
        resolved = stated | config
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{report.source}: tensors that tell the model's size are missing or misshapen ({reason})"
        ) from None
    model = create_model(_named_size(layout, resolved), **resolved)
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        reason = layout.reason_to_ignore(key)
        translated = layout.translate(key)
        if reason is not None:
            report.ignored[key] = reason
        elif translated is None or translated in ours:
            report.unexpected.append(key)
        else:
            ours[translated] = tensor
    if layout.resample is not None:
        report.resampled = layout.resample(ours, asdict(model.config))
    other_classes = resolved.get("num_classes") != stated.get("num_classes")
    wanted = model.state_dict()
    _keep_initial(layout, ours, wanted, other_classes, report)
    fit = compare(ours, wanted)
    report.matched = [key for key in fit.matched if key not in report.fresh]
    report.missing, report.mismatched = fit.missing, fit.mismatched
    report.unexpected += fit.unexpected
    return model, ours


def _keep_initial(
    layout: OfficialLayout,
    ours: dict[str, Tensor],
    wanted: dict[str, Tensor],
    other_classes: bool,
    report: ImportReport,
) -> None:
    """Initial values for what the release does not have, and for the head where other classes are asked."""
    for key in [k for k in ours if other_classes and re.fullmatch(layout.head, k)]:
        if key not in wanted or wanted[key].shape != ours[key].shape:  # unless `resample` has made it fit
            del ours[key]
            report.ignored[key] = "the head of other classes"
    for key in wanted:
        renewed = other_classes and re.fullmatch(layout.head, key)
        if key not in ours and (renewed or re.fullmatch(layout.fresh, key)):
            ours[key] = wanted[key]
            report.fresh.append(key)


def _named_size(layout: OfficialLayout, config: dict[str, Any]) -> str:
    """The registered size whose stated numbers are those of the config; the one that states most of them.

    Image size and classes differ from file to file and do not count.
    """
    module = entries("model")[layout.model].module
    fitting = {}
    for entry in entries("model").values():
        stated = {k: v for k, v in entry.defaults.items() if k not in ("image_size", "num_classes")}
        if entry.module == module and stated and stated.items() <= config.items():
            fitting[entry.name] = len(stated)
    return max(fitting, key=fitting.__getitem__, default=layout.model)
