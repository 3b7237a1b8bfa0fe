"""`list`, `info` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from framecast.cli.output import AsJson, show, show_json, table


def list_(
    pattern: Annotated[str, typer.Argument(help='Wildcard, for example "*mamba*".')] = "*",
    kind: Annotated[
        Literal["models", "recipes", "protocols", "weights"], typer.Option(help="What to list.")
    ] = "models",
    as_json: AsJson = False,
) -> None:
    """List models, recipes, evaluation protocols, or the trained weights that ship with framecast."""
    import fnmatch

    from framecast.metrics import described_protocols
    from framecast.registry import did_you_mean, entries
    from framecast.weights import shipped_models

    if kind == "protocols":
        known = described_protocols()
    elif kind == "weights":
        known = shipped_models()
    else:
        known = {e.name: e.summary for e in entries("model" if kind == "models" else "recipe").values()}
    found = {name: known[name] for name in fnmatch.filter(known, pattern)}
    if not found:
        near = did_you_mean(pattern, known)
        raise ValueError(f"no {kind} match {pattern!r}{near}; `framecast list --kind {kind}` shows all")
    if as_json:
        show_json({kind: [{"name": name, "summary": summary} for name, summary in found.items()]})
    else:
        show(table(("name", "what it is"), list(found.items())))


def info(
    name: Annotated[
        str, typer.Argument(help="A model, a recipe, shipped weights, or the folder of a saved model.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a model, a recipe or a saved model is."""
    from framecast.registry import did_you_mean, entries
    from framecast.weights import shipped_folder, shipped_models

    known = entries("model") | entries("recipe")
    if name in known:
        entry = known[name]
        facts: dict[str, Any] = {
            "name": name,
            "kind": entry.kind,
            "about": entry.doc,
            "tags": ", ".join(entry.tags),
            "paper": entry.paper,
            "parameters": entry.params,
            "settings": entry.defaults if entry.kind == "model" else recipe_settings(name),
            "official weights": f"framecast import-weights {entry.system} FILE" if entry.system else None,
        }
    elif Path(name).is_dir() or shipped_folder(name):
        facts = _saved_model(name)
    else:
        near = did_you_mean(name, [*known, *shipped_models()])
        raise ValueError(f"nothing is called {name!r}{near}; `framecast list` shows all models")
    facts = {key: value for key, value in facts.items() if value not in (None, "", {}, ())}
    if as_json:
        show_json(facts)
        return
    for key, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else str(value)
        if key == "settings" and facts.get("kind") == "recipe":
            text = as_yaml(value)
        show(f"{key + ':':18}" + text.replace("\n", "\n" + " " * 18))


def recipe_settings(name: str) -> dict[str, Any]:
    from framecast.registry import find

    return find("recipe", name).load()().model_dump(mode="json")


def as_yaml(values: dict[str, Any]) -> str:
    """As `framecast train` reads it from a file."""
    from framecast.settings import yaml_text

    return yaml_text(values).rstrip()


def _saved_model(name: str) -> dict[str, Any]:
    from framecast.checkpoints import model_folder, read_about

    folder = model_folder(name)
    about = read_about(folder)
    card = about.get("card", {})
    return {
        "folder": str(folder),
        "model": about["model"],
        "task": card.get("task"),
        "classes": ", ".join(map(str, card.get("classes") or ())),
        "features": card.get("features"),
        "weights": f"{(folder / 'model.safetensors').stat().st_size / 1e6:.3g} MB",
        "source": card.get("source"),
        "licence": card.get("licence"),
        "settings": about["config"],
    }


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, devices, decoders, kernels against their references, disk."""
    from framecast.doctor import examine

    findings = examine()
    good = all(f.verdict != "bad" for f in findings)
    if as_json:
        show_json({"good": good, "findings": [vars(f) for f in findings]})
    else:
        marks = {"good": "✓", "note": "·", "bad": "✗"}
        for f in findings:
            show(f"{marks[f.verdict]} {f.subject}: {f.found}" + (f"\n    → {f.advice}" if f.advice else ""))
    if not good:
        raise typer.Exit(1)
