"""Typed settings in YAML: frozen, checked, with the nearest known key where one is mistyped."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Frozen, refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML with floats as in YAML 1.2 (PyYAML alone reads 3e-4 as a string), and every key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            word = str(key.value)
            if word in seen:  # plain YAML keeps the last one
                raise yaml.MarkedYAMLError(None, None, f"{word!r} is there twice", key.start_mark)
            seen.add(word)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that looks like such a float."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_value(text: str) -> Any:
    """A YAML value: `3e-4` number, `[0.9, 0.95]` list, `null`, `true`, else text."""
    return yaml.load(text, Loader=_Loader)


def yaml_text(values: dict[str, Any], **style: Any) -> str:
    """YAML that `parse_value` reads back to equal values, in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """Settings of a YAML file; example: a line as it may hold, for the message of ValueError."""
    try:
        values = parse_value(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, expected settings such as `{example}`")
    return values


def validated(kind: type[Kind], values: dict[str, Any], source: str) -> Kind:
    """The settings; ValueError with every problem in one line. source: where they came from."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"]) or "settings"
            if item["type"] == "extra_forbidden":
                problems.append(f"unknown setting {where!r}{_near(kind, item['loc'])}")
            else:
                got = f", got {item['input']!r}" if not isinstance(item["input"], dict) else ""
                problems.append(f"{where}: {item['msg'].removeprefix('Value error, ')}{got}")
        raise ValueError(f"{source}: {'; '.join(problems)}") from None


def _near(kind: Any, location: tuple[int | str, ...]) -> str:
    """The known sibling nearest to an unknown key, or all siblings where none is near."""
    owner = kind
    for part in location[:-1]:
        if get_origin(owner) is dict:
            owner = get_args(owner)[1]
        else:
            owner = owner.model_fields[part].annotation
    near = difflib.get_close_matches(str(location[-1]), list(owner.model_fields), n=1, cutoff=0.5)
    if not near:
        return f" (known: {', '.join(owner.model_fields)})"
    return f", did you mean {'.'.join([*map(str, location[:-1]), near[0]])!r}?"
