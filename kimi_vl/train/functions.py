"""A function of one's own, by the name under which a recipe has it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def function(whose: str, path: str) -> Callable[..., Any]:
    """Of ``module:function``. Raises: ``ValueError`` if there is none."""
    module, colon, name = path.partition(":")
    try:
        draw: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{whose}: there is no {path}: {error}") from None
    if not colon or not callable(draw):
        raise ValueError(f"{whose}: draw must be module:function, not {path!r}")
    return draw
