"""What `kingpole serve` can be told, and where each value came from: flag, environment, file, default."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kingpole.cli import USAGE, CommandError


@dataclass(frozen=True)
class Setting:
    """One flag `--name`, environment variable `KINGPOLE_NAME` and field `name` of the file."""

    name: str
    help: str
    default: Any = None
    kind: Callable[[str], Any] = str
    many: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None

    @property
    def flag(self) -> str:
        """How it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """How it is written in the environment."""
        return "KINGPOLE_" + self.name.upper()


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected true or false")


SETTINGS = (
    Setting(
        "listen", "HOST:PORT or unix:PATH, repeatable; port 0 is any free one", ["127.0.0.1:8000"], many=True
    ),
    Setting("management", "HOST:PORT of metrics and repository, or off", "127.0.0.1:8002"),
    Setting("management_public", "allow management beyond this machine", False, _boolean),
    Setting("control_mode", "when models are loaded", "none", choices=("none", "poll", "explicit")),
    Setting("load_model", "explicit: model to load at start, repeatable, * for all", [], many=True),
    Setting("poll_seconds", "poll: seconds between looks", 15, int, least=1),
    Setting(
        "worker", "where models run that do not say", "auto", choices=("auto", "inline", "shared", "own")
    ),
    Setting("default_model", "model of requests that name none"),
    Setting("reactors", "threads that read requests, default one per processor", None, int, least=1),
    Setting("threads", "threads of a framework, default one per processor", None, int, least=1),
    Setting("inline_limit_us", "a model whose batches take less runs on the reactors", 200, int, least=0),
    Setting("load_limit_seconds", "a model that loads longer in a worker is given up", 300, int, least=1),
    Setting("execute_limit_seconds", "a batch that runs longer ends its worker", 60, int, least=1),
    Setting("max_body_bytes", "largest request", 1 << 30, int, least=1),
    Setting(
        "buffer_bytes",
        "requests and answers of all clients in memory at once, in bytes, default a quarter of the memory",
        None,
        int,
        least=1,
    ),
    Setting("queue_bytes", "requests waiting at once, in bytes", 256 << 20, int, least=1),
    Setting(
        "client_shared_memory",
        "let clients register files of /dev/shm and infer on them (Open Inference's extension)",
        False,
        _boolean,
    ),
    Setting(
        "shared_memory_prefix",
        "what the names of those files must begin with, repeatable, default any",
        [],
        many=True,
    ),
    Setting(
        "stream_dialect",
        "messages of ModelStreamInfer: Triton's, or bare responses as MLServer and Seldon have them",
        "triton",
        choices=("triton", "open-inference"),
    ),
    Setting(
        "cors_origin",
        "origin of web pages whose scripts may call over HTTP (https://example.org), repeatable; * is any",
        [],
        many=True,
    ),
    Setting("http_header_forward_pattern", "regular expression of HTTP headers that become parameters"),
    Setting("grpc_header_forward_pattern", "regular expression of gRPC metadata that become parameters"),
    Setting(
        "trace_file", "where traces are written that the trace extension asks for; replaced at the start"
    ),
    Setting("tls_certificate", "PEM file"),
    Setting("tls_key", "PEM file"),
    Setting("onnxruntime_library", "libonnxruntime.so, default that of the Python package"),
    Setting("drain_seconds", "how long requests in flight may take at the end", 30, int, least=0),
)


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `serve`."""
    parser.add_argument("path", nargs="*", metavar="PATH", help="a model or a repository; or KINGPOLE_PATH")
    parser.add_argument("--config", metavar="FILE", help="settings in YAML, JSON or TOML; or KINGPOLE_CONFIG")
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting and its source, and end"
    )
    for setting in SETTINGS:
        text = setting.help
        if setting.default not in (None, []):
            shown = setting.default[0] if isinstance(setting.default, list) else setting.default
            text += f" (default {shown})"
        if setting.kind is _boolean:
            parser.add_argument(setting.flag, action="store_const", const="true", help=text)
        elif setting.choices:
            parser.add_argument(setting.flag, choices=setting.choices, help=text)
        else:
            parser.add_argument(
                setting.flag,
                action="append" if setting.many else "store",
                metavar=setting.name.rpartition("_")[2].upper(),
                help=text,
            )


@dataclass(frozen=True)
class Resolved:
    """Every setting with its value and source."""

    values: dict[str, Any]
    sources: dict[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def decide(self, name: str, value: Any, reason: str) -> Resolved:
        """Fill in a setting that nobody has set."""
        if self.values[name] is not None:
            return self
        return Resolved({**self.values, name: value}, {**self.sources, name: f"default: {reason}"})

    def describe(self) -> str:
        """One line for each setting."""
        width = max(len(name) for name in self.values)
        return "\n".join(
            f"{name:<{width}} = {_shown(value)}  # {self.sources[name]}"
            for name, value in self.values.items()
        )


def resolve(parsed: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Resolved:
    """Decide every setting: flag before environment before file before default.

    Raises:
        CommandError: For a value that is none of its setting's, naming where it came from.
    """
    file = parsed.config or environment.get("KINGPOLE_CONFIG")
    written = _read(Path(file)) if file else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    paths = parsed.path or _split(environment.get("KINGPOLE_PATH", "")) or written.pop("path", [])
    written.pop("path", None)
    values["path"] = [paths] if isinstance(paths, str) else list(paths)
    sources["path"] = "command line" if parsed.path else "environment or file"
    for setting in SETTINGS:
        flag = getattr(parsed, setting.name)
        in_file = written.pop(setting.name, None)
        if flag is not None:
            value, source = flag, f"flag {setting.flag}"
        elif setting.variable in environment:
            text = environment[setting.variable]
            value, source = (_split(text) if setting.many else text), f"environment {setting.variable}"
        elif in_file is not None:
            value, source = in_file, f"file {file}"
        else:
            values[setting.name], sources[setting.name] = setting.default, "default"
            continue
        values[setting.name], sources[setting.name] = _checked(setting, value, source), source
    if written:
        raise CommandError(f"{file}: unknown field '{next(iter(written))}'", USAGE)
    return Resolved(values, sources)


def _read(file: Path) -> dict[str, Any]:
    import msgspec

    try:
        content = file.read_bytes()
        if file.suffix == ".toml":
            value = msgspec.toml.decode(content)
        elif file.suffix == ".json":
            value = msgspec.json.decode(content)
        else:
            value = msgspec.yaml.decode(content) or {}
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", USAGE) from error
    except ValueError as error:
        raise CommandError(f"{file}: {error}", USAGE) from error
    if not isinstance(value, dict):
        raise CommandError(f"{file}: expected fields and values", USAGE)
    return dict(value)


def _checked(setting: Setting, value: Any, source: str) -> Any:
    if setting.many:
        return [str(each) for each in (value if isinstance(value, list) else [value])]
    try:
        made = setting.kind(str(value))
    except ValueError as error:
        raise CommandError(
            f"{source}: expected {setting.kind.__name__.strip('_')}, got '{value}'", USAGE
        ) from error
    if setting.choices and made not in setting.choices:
        raise CommandError(f"{source}: expected one of {', '.join(setting.choices)}, got '{value}'", USAGE)
    if setting.least is not None and made < setting.least:
        raise CommandError(f"{source}: expected at least {setting.least}, got {value}", USAGE)
    return made


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
