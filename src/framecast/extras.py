"""Packages that are not installed with framecast itself, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingExtra(ImportError):
    """An optional package is not there; the message says how to install it."""


def import_extra(module: str, extra: str = "earth") -> Any:
    """The module, or MissingExtra that names the extra: xarray = import_extra("xarray")."""
    try:
        return import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        reason = "is not installed" if error.name == top else f"cannot be imported ({error})"
        raise MissingExtra(f'{top} {reason}: pip install "framecast[{extra}]"') from None
