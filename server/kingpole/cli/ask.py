"""The commands that ask a server: connecting, `health` and `models`."""

from __future__ import annotations

import os
from typing import Any

from kingpole.cli import FAILURE, SUCCESS, CommandError

DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str | None) -> Any:
    """Connect to a server through the client package.

    Raises:
        CommandError: When the package is missing or the server cannot be reached.
    """
    try:
        import kingpole_client
    except ImportError as error:
        raise CommandError("this command needs the client: pip install kingpole-client") from error
    url = url or os.environ.get("KINGPOLE_URL") or DEFAULT_URL
    try:
        return kingpole_client.connect(url)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot reach {url}: {error}") from error


def health(url: str | None) -> int:
    """Give 0 when the server is ready."""
    client = connect(url)
    with answered():
        ready = bool(client.ready())
    print("ready" if ready else "not ready")
    return SUCCESS if ready else FAILURE


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
