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
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

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
    return _unchanged


def register_recipe(*, tags: list[str], paper: str = "") -> Callable[[Function], Function]:
    """Register a function that returns a `Recipe`; the arguments must be literals."""
    return _unchanged


def _unchanged(function: Function) -> Function:
    return function


@cache
def entries(kind: Kind) -> dict[str, Entry]:
    """Every registered function of a kind by name, in alphabetical order."""
    found: dict[str, Entry] = {}
    for folder in FOLDERS[kind]:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for entry in _read_entries(path, kind, f"framecast.{folder}.{path.stem}"):
                if entry.name in found:
                    first = found[entry.name].module
                    raise RuntimeError(f"{entry.name} is registered in {first} and {entry.module}")
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

    Raises ValueError for an unknown name, an unknown field (with the nearest known one), and values with
    which the model cannot be built.
    """
    build = find("model", name).load()
    try:
        model = build(**config)
    except (TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        if not config:
            raise  # ours
        given = ", ".join(f"{key}={value!r}" for key, value in config.items())
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{name} cannot be built with {given}: {reason}") from error
    model.registered_name = name
    return model


def checked_overrides(config_class: type, overrides: dict[str, Any], owner: str) -> dict[str, Any]:
    """`overrides` with lists as tuples, when each names a field of the config dataclass and fits its type."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # heavy, and listing does without

    types = get_type_hints(config_class)
    checked = {}
    for key, value in overrides.items():
        if key not in types:
            near = did_you_mean(key, types)
            raise ValueError(f"{owner} has no setting {key!r}{near}; its settings are {', '.join(types)}")
        if isinstance(value, list):
            value = tuple(value)  # as JSON and YAML have them
        elif isinstance(value, Integral) and not isinstance(value, bool):
            value = int(value)  # NumPy's too
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ValueError(f"{owner}: {key} is {value}; it must be zero or more, and finite")
        try:
            strict = ConfigDict(strict=True)
            checked[key] = TypeAdapter(types[key], config=strict).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input", "it", 1)
            raise ValueError(f"{owner}: {key} is {value!r}; {reason}") from None
    return checked


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """', did you mean …?' when a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
