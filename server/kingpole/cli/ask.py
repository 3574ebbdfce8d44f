"""Asking a server through the client: connecting, and `models`."""

from __future__ import annotations

import os
from typing import Any

from kingpole.cli import SUCCESS, CommandError

DEFAULT_URL = "http://127.0.0.1:8000"


def chosen(url: str | None) -> str:
    """Choose the address to ask: the flag's, the environment's, or the default."""
    return url or os.environ.get("KINGPOLE_URL") or DEFAULT_URL


def connect(url: str | None) -> Any:
    """Connect to a server through the client package.

    Raises:
        CommandError: When the package is missing or the server cannot be reached.
    """
    try:
        import kingpole_client
    except ImportError as error:
        raise CommandError("this command needs the client: pip install kingpole-client") from error
    url = chosen(url)
    try:
        return kingpole_client.connect(url)
    except (OSError, ValueError, kingpole_client.KingpoleError) as error:
        raise CommandError(f"cannot reach {url}: {error}") from error


def models(url: str | None) -> int:
    """Print a line for each model."""
    client = connect(url)
    with answered():
        rows = list(client.models())
    for row in rows:
        print(f"{row.name:<32} {row.version or '-':>6}  {row.state:<12} {row.reason or ''}".rstrip())
    return SUCCESS


class answered:  # noqa: N801 - a context manager, read like a function
    """Turns the client's errors into one line for the user."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | ValueError):
            raise CommandError(str(error)) from error
        if error is not None and type(error).__module__.startswith("kingpole_client"):
            raise CommandError(str(error)) from error
