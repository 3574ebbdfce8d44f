"""Lines for whoever runs the server, as far as its log settings want them.

Knows kinds of lines; may not know who sets what is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

Settings = Callable[[], Mapping[str, Any]]
"""What is wanted now, by the names of the Open Inference logging extension."""


class Log:
    """Writes each line that is wanted to standard error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def info(self, line: str) -> None:
        """Tell what happens as it should."""
        self._write("log_info", line)

    def warning(self, line: str) -> None:
        """Tell what an operator should look at."""
        self._write("log_warning", line)

    def error(self, line: str) -> None:
        """Tell what failed."""
        self._write("log_error", line)

    def verbose(self, line: str) -> None:
        """Tell what is only worth knowing while something is looked for."""
        self._write("log_verbose_level", line)

    def _write(self, kind: str, line: str) -> None:
        settings = self._settings()
        if not settings[kind]:
            return
        if settings["log_format"] == "ISO8601":
            line = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {line}"
        # A model's name or an exception's text may hold anything; a log line is one line.
        text = "".join(each if each.isprintable() else "?" for each in line)
        print(text, file=sys.stderr, flush=True)
