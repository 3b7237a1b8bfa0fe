"""Names of models and recipes, listed without importing them.

A model or recipe is a decorated function. Listing reads the decorators from the source text, so
`framecast list` and `framecast info` answer without torch; only creating a model imports its file.

    @register_model(tags=["segmentation"], paper="https://arxiv.org/abs/2308.11358", params=711_240)
    def ltcontext(**overrides) -> LTContext: ...
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

PACKAGE = Path(__file__).parent
FOLDERS = {"model": ("backbones", "models"), "recipe": ("recipes",)}

Kind = Literal["model", "recipe"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """What is known of a registered function without importing it."""

    name: str
    kind: str
    module: str  # dotted module that holds the function
    summary: str  # first line of its docstring
    doc: str  # the whole docstring
    tags: tuple[str, ...] = ()
    paper: str = ""
    params: int | None = None  # parameters at the default configuration
    system: str = ""  # name for `import_checkpoint`
    defaults: dict[str, Any] = field(default_factory=dict)  # numbers that the function sets

    def load(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)


def register_model(
    *, tags: list[str], paper: str = "", params: int | None = None, system: str = ""
) -> Callable[[Function], Function]:
    """Register a function that builds a model; the arguments must be literals, they are read as text.

    tags: tasks and family, for listing. paper: address. params: parameter count at the default
    configuration, checked by a test. system: name under which official checkpoints are imported.
    """
    return _mark("model")


def register_recipe(*, tags: list[str], paper: str = "") -> Callable[[Function], Function]:
    """Register a function that returns a `Recipe`; the arguments must be literals."""
    return _mark("recipe")


def _mark(kind: Kind) -> Callable[[Function], Function]:
    def mark(function: Function) -> Function:
        function.registered = kind  # ty: ignore[unresolved-attribute]
        return function

    return mark


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Every registered function of a kind by name, in alphabetical order."""
    found: dict[str, Entry] = {}
    for folder in FOLDERS[kind]:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for entry in _read_entries(path, kind, f"framecast.{folder}.{path.stem}"):
                if entry.name in found:
                    raise RuntimeError(f"{entry.name} is registered in {found[entry.name].module} and {entry.module}")
                found[entry.name] = entry
    return dict(sorted(found.items()))


def _read_entries(path: Path, kind: Kind, module: str) -> list[Entry]:
    source = path.read_text(encoding="utf-8")
    if f"@register_{kind}" not in source:
        return []
    tree = ast.parse(source)
    out = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == f"register_{kind}":
                given = {k.arg: ast.literal_eval(k.value) for k in mark.keywords if k.arg}
                given["tags"] = tuple(given.get("tags", ()))
                doc = ast.get_docstring(node) or ""
                out.append(
                    Entry(node.name, kind, module, doc.split("\n")[0], doc, defaults=_numbers(node), **given)
                )
    return out


def _numbers(node: ast.FunctionDef) -> dict[str, Any]:
    """Keyword literals of the `Config(...)` call in the function: what this size sets."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "").endswith("Config"):
            pairs = {}
            for keyword in call.keywords:
                try:
                    pairs[keyword.arg or "**"] = ast.literal_eval(keyword.value)
                except ValueError:
                    continue
            return pairs
    return {}


def find(kind: Kind, name: str) -> Entry:
    """The entry of that name; an unknown one is refused with the nearest names."""
    known = entries(kind)
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}{did_you_mean(name, known)}; `framecast list` shows all")
    return known[name]


def list_models(pattern: str = "*") -> list[str]:
    """Registered model names that match a wildcard, for example `list_models("*mamba*")`."""
    return fnmatch.filter(entries("model"), pattern)


def list_recipes(pattern: str = "*") -> list[str]:
    """Registered recipe names that match a wildcard."""
    return fnmatch.filter(entries("recipe"), pattern)


def create_model(name: str, **config: Any) -> Any:
    """Build a registered model with random weights; `config` overrides fields of its config dataclass.

    Raises ValueError for an unknown name or an unknown field, with the nearest known ones.
    """
    entry = find("model", name)
    model = entry.load()(**config)
    model.registered_name = name
    return model


def checked_overrides(config_class: type, overrides: dict[str, Any], owner: str) -> dict[str, Any]:
    """Give `overrides` back when every key is a field of the config dataclass, else say which is not."""
    known = list(config_class.__dataclass_fields__)  # ty: ignore[unresolved-attribute]
    for key in overrides:
        if key not in known:
            raise ValueError(
                f"{owner} has no setting {key!r}{did_you_mean(key, known)}; its settings are {', '.join(known)}"
            )
    return overrides


def did_you_mean(word: str, known: Any) -> str:
    """', did you mean …?' when a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
