"""`list`, `info` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from framecast.cli.output import AsJson, show, show_json, table


def list_(
    pattern: Annotated[str, typer.Argument(help='Wildcard, for example "*mamba*".')] = "*",
    kind: Annotated[Literal["models", "recipes", "protocols"], typer.Option(help="What to list.")] = "models",
    as_json: AsJson = False,
) -> None:
    """List models, recipes or evaluation protocols."""
    import fnmatch

    if kind == "protocols":
        from framecast.metrics.protocols import get_protocol, list_protocols

        rows = [(name, get_protocol(name).description) for name in list_protocols(pattern)]
    else:
        from framecast.registry import entries

        known = entries("model" if kind == "models" else "recipe")
        rows = [(name, known[name].summary) for name in fnmatch.filter(known, pattern)]
    if not rows:
        raise ValueError(f"no {kind} match {pattern!r}; `framecast list --kind {kind}` shows all")
    if as_json:
        show_json([{"name": name, "summary": summary} for name, summary in rows])
    else:
        show(table(("name", "what it is"), rows))


def info(
    name: Annotated[str, typer.Argument(help="A model, a recipe, or the folder of a saved model.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model, a recipe or a saved model is."""
    from pathlib import Path

    from framecast.registry import did_you_mean, entries

    if (Path(name) / "config.json").is_file() or (Path(name) / "model" / "config.json").is_file():
        facts = _saved_model(Path(name))
    else:
        known = entries("model") | entries("recipe")
        if name not in known:
            raise ValueError(f"nothing is called {name!r}{did_you_mean(name, known)}; `framecast list` shows all models")
        entry = known[name]
        facts = {"name": name, "kind": entry.kind, "about": entry.doc, "tags": ", ".join(entry.tags)}
        facts |= {"paper": entry.paper or None, "parameters": entry.params, "settings": entry.defaults or None}
        if entry.system:
            facts["official weights"] = f"framecast import-weights {entry.system} FILE"
    if as_json:
        show_json(facts)
        return
    for key, value in facts.items():
        if value is not None and value != "":
            text = f"{value:,}" if isinstance(value, int) else str(value)
            show(f"{key + ':':18}" + text.replace("\n", "\n" + " " * 18))


def _saved_model(folder: Any) -> dict[str, Any]:
    import json

    path = folder if (folder / "config.json").is_file() else folder / "model"
    about = json.loads((path / "config.json").read_text(encoding="utf-8"))
    card = about.get("card", {})
    size = (path / "model.safetensors").stat().st_size if (path / "model.safetensors").is_file() else 0
    return {
        "folder": str(path),
        "model": about.get("model"),
        "task": card.get("task"),
        "classes": ", ".join(card.get("classes", ())),
        "features": card.get("features"),
        "weights": f"{size / 1e6:.1f} MB",
        "licence": card.get("licence"),
        "settings": about.get("config"),
    }


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, devices, decoders, kernels against their references, disk."""
    from framecast.doctor import examine

    findings = examine()
    if as_json:
        show_json([vars(f) for f in findings])
    else:
        marks = {"good": "✓", "note": "·", "bad": "✗"}
        for f in findings:
            show(f"{marks[f.verdict]} {f.subject}: {f.found}" + (f"\n    → {f.advice}" if f.advice else ""))
    if any(f.verdict == "bad" for f in findings):
        raise typer.Exit(1)
