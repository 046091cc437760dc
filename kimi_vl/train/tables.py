"""A TOML file → dataclasses, strictly: every key is known, none is missing, each value has its type.

Knows nothing of what the keys mean.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_Table = TypeVar("_Table")


def read_tables(path: Path, wishes: Sequence[str] = ()) -> dict[str, Any]:
    """What a file says; ``wishes`` such as ``steps=10`` put other values in its place.

    Raises: ``ValueError`` naming the file, or the wish.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no recipe {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for wish in wishes:
        key, equals, value = wish.partition("=")
        if not equals:
            raise ValueError(f"{wish!r} sets nothing: write it as key=value")
        raw[key.strip()] = _value(value.strip())
    return raw


def several(raw: Mapping[str, Any], name: str) -> list[Any]:
    """The tables that begin with ``[[name]]``. Raises: ``ValueError`` if it is something else."""
    tables = raw.get(name, [])
    if not isinstance(tables, list):
        raise ValueError(f"{name} must be tables, each beginning with [[{name}]]")
    return tables


def table(kind: type[_Table], raw: Mapping[str, Any]) -> _Table:
    """Fields that are tuples hold tables, and are there already as what they become.

    Raises: ``ValueError`` naming the key.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{raw!r} is no table")
    hints = get_type_hints(kind)
    if unknown := sorted(raw.keys() - hints.keys()):
        raise ValueError(f"there is no key {unknown[0]!r}; known are {', '.join(hints)}")
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in raw]:
        raise ValueError(f"{missing[0]} is missing")
    return kind(**{name: _typed(name, value, hints[name]) for name, value in raw.items()})


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _typed(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return value
    if get_origin(hint) is list:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError(f"{name} must be a list of strings, not {value!r}")
        return value
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{name} must be {kinds[0].__name__}, not {value!r}")
    return value
