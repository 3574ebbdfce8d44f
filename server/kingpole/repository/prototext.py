"""A reader of protobuf's text format, as far as `config.pbtxt` uses it.

Gives plain dicts: a field that occurs once is its value, one that occurs again becomes a
list. Source: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from __future__ import annotations

import ast
import re
from typing import Any

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*)*(?:
    (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?f?))
    |(?P<name>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<mark>[{}<>\[\]:,;])
    )""",
    re.VERBOSE,
)
_DEPTH = 32


class PrototextError(ValueError):
    """Text that is no protobuf text; names the line."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def peek(self) -> tuple[str, str] | None:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = re.compile(r"(?:\s|#[^\n]*)*").match(self.text, self.position)
            if rest is not None and rest.end() == len(self.text):
                return None
            raise self.error("unexpected character")
        kind = match.lastgroup
        assert kind is not None
        self._end = match.end()
        return kind, match.group(kind)

    def take(self) -> tuple[str, str]:
        token = self.peek()
        if token is None:
            raise self.error("unexpected end")
        self.position = self._end
        return token

    def accept(self, *marks: str) -> str | None:
        token = self.peek()
        if token is not None and token[0] == "mark" and token[1] in marks:
            self.position = self._end
            return token[1]
        return None

    def error(self, reason: str) -> PrototextError:
        return PrototextError(f"line {self.text.count(chr(10), 0, self.position) + 1}: {reason}")


def parse(text: str) -> dict[str, Any]:
    """Read a message.

    Raises:
        PrototextError: Naming the line.
    """
    reader = _Reader(text)
    return _message(reader, None, 0)


def _message(reader: _Reader, end: str | None, depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        raise reader.error("nested too deep")
    fields: dict[str, Any] = {}
    repeated: set[str] = set()
    while True:
        if end is None and reader.peek() is None:
            return fields
        if end is not None and reader.accept(end):
            return fields
        kind, name = reader.take()
        if kind != "name":
            raise reader.error(f"expected a field name, got {name!r}")
        has_colon = reader.accept(":") is not None
        if reader.accept("["):
            values = []
            while not reader.accept("]"):
                values.append(_value(reader, depth))
                reader.accept(",")
            value: Any = values
        elif has_colon or (token := reader.peek()) is None or token[1] in "{<":
            value = _value(reader, depth)
        else:
            raise reader.error(f"expected ':' after '{name}'")
        reader.accept(",", ";")
        if name not in fields:
            fields[name] = value
            if isinstance(value, list):
                repeated.add(name)
        else:
            if name not in repeated:
                fields[name] = [fields[name]]
                repeated.add(name)
            fields[name].extend(value if isinstance(value, list) else [value])


def _value(reader: _Reader, depth: int) -> Any:
    kind, text = reader.take()
    if kind == "mark" and text in "{<":
        return _message(reader, "}" if text == "{" else ">", depth + 1)
    if kind == "string":
        value = _string(reader, text)
        while (token := reader.peek()) is not None and token[0] == "string":
            value += _string(reader, reader.take()[1])
        return value
    if kind == "number":
        digits = text.replace(" ", "")
        try:
            return int(digits, 0)
        except ValueError:
            return float(digits.rstrip("f"))
    if kind == "name":
        return {"true": True, "false": False}.get(text.lower(), text)
    raise reader.error(f"expected a value, got {text!r}")


def _string(reader: _Reader, text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError) as error:
        raise reader.error(f"bad string {text}") from error
