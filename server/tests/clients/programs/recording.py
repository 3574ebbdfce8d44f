"""Which public calls of a library were made: to see that none is left out.

Imported in the environment of a foreign client: it may know the standard library only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

made: set[tuple[str, str]] = set()


def public(owner: Any) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def record(owner: Any, label: str) -> None:
    """Note every call of a public function of a class or a module."""
    for name in public(owner):
        found = inspect.getattr_static(owner, name)
        wrapper = type(found) if isinstance(found, (staticmethod, classmethod)) else None
        inner = found.__func__ if wrapper else found
        if not inspect.isfunction(inner):
            continue
        noted = noting(inner, label, name)
        setattr(owner, name, wrapper(noted) if wrapper else noted)


def noting(inner: Callable[..., Any], label: str, name: str) -> Callable[..., Any]:
    @functools.wraps(inner)
    def called(*arguments: Any, **named: Any) -> Any:
        made.add((label, name))
        return inner(*arguments, **named)

    return called
