"""A model's configuration as written by its owner: `model.yaml`, `.json` or `.toml`.

Closed and typed: a misspelt field is an error that names file, line and field. This
module knows files and fields; it may not know the core or the protocols.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

NAME_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
Datatype: TypeAlias = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES", "BF16",
]  # fmt: skip
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=-1)]
Option: TypeAlias = str | int | float | bool

FILES = ("model.yaml", "model.yml", "model.json", "model.toml")


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the text names the file and the field."""


class _Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class TensorConfiguration(_Closed, frozen=True, kw_only=True):
    """One input or output; fields that are left out are read from the model.

    `shape` is the whole shape, with a leading -1 for a model that batches.
    """

    name: str
    datatype: Datatype | None = None
    shape: tuple[Size, ...] | None = None
    optional: bool = False
    labels: str | None = None


class ControlConfiguration(_Closed, frozen=True, kw_only=True):
    """An input of the model that says where a request stands in its sequence; clients do not send it.

    `no` and `yes` are the values for the answer; a `correlation` input holds the sequence's id.
    """

    input: str
    kind: Literal["start", "end", "ready", "correlation"]
    no: float = 0
    yes: float = 1


class StateConfiguration(_Closed, frozen=True, kw_only=True):
    """An output that the server keeps and gives back as an input with the sequence's next request.

    `shape` is needed where the model leaves sizes open, without the rows of a model that batches;
    `initial` is a file of raw values beside the configuration, zeros if left out.
    """

    input: str
    output: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    initial: str | None = None


class SequenceConfiguration(_Closed, frozen=True, kw_only=True):
    """How a model's sequences of requests are kept.

    `direct` gives each a row of its own; with `oldest` any that have requests share a batch, and at most
    `max_candidates` live on one instance.
    """

    strategy: Literal["direct", "oldest"] = "direct"
    max_candidates: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] | None = None
    max_idle_us: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000
    controls: tuple[ControlConfiguration, ...] = ()
    states: tuple[StateConfiguration, ...] = ()


class StepConfiguration(_Closed, frozen=True, kw_only=True):
    """One step of a pipeline: a model that is asked, and what its tensors are called in the pipeline.

    `inputs` and `outputs` are by the model's names. `when` and `unless` name a BOOL that decides whether the
    step runs; `each_row` makes every row a request of its own, to a model that does not batch.
    """

    model: Name
    name: str | None = None
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    when: str | None = None
    unless: str | None = None
    each_row: bool = False

    def __post_init__(self) -> None:
        """Refuse two conditions."""
        if self.when is not None and self.unless is not None:
            raise ValueError(f"step '{self.name or self.model}': `when` and `unless` exclude each other")


class VersionPolicy(_Closed, frozen=True, kw_only=True):
    """Which versions are served: the `latest` so many, or the `specific` ones."""

    latest: Annotated[int, msgspec.Meta(ge=1)] | None = None
    specific: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] | None = None


class ModelConfiguration(_Closed, frozen=True, kw_only=True):
    """Everything that can be said about a model; nothing has to be."""

    name: Name | None = None
    backend: Name | None = None
    platform: str | None = None
    file: str | None = None
    description: str | None = None
    inputs: tuple[TensorConfiguration, ...] = ()
    outputs: tuple[TensorConfiguration, ...] = ()
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] | None = None
    decoupled: bool | None = None
    sequence: SequenceConfiguration | None = None
    steps: tuple[StepConfiguration, ...] = ()
    max_queue_delay_us: Annotated[int, msgspec.Meta(ge=0)] = 0
    default_timeout_us: Annotated[int, msgspec.Meta(ge=1)] | None = None
    execute_limit_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None
    worker: Literal["auto", "inline", "shared", "own"] = "auto"
    instances: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    device: Annotated[str, msgspec.Meta(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    versions: Literal["all"] | VersionPolicy = VersionPolicy(latest=1)
    warmup: bool = True
    options: dict[str, Option] = {}

    def select_versions(self, found: list[int]) -> list[int]:
        """Choose the versions to serve, ascending.

        Raises:
            ConfigurationError: When a version that was asked for is missing.
        """
        found = sorted(found)
        if self.versions == "all":
            return found
        policy = self.versions
        assert isinstance(policy, VersionPolicy)
        if policy.specific is not None:
            missing = sorted(set(policy.specific) - set(found))
            if missing:
                raise ConfigurationError(
                    f"versions.specific: version {missing[0]} is not there (found: {found})"
                )
            return sorted(set(policy.specific))
        return found[-(policy.latest or 1) :]


def read_configuration(path: Path) -> ModelConfiguration:
    """Read a configuration file of any of the three formats.

    Raises:
        ConfigurationError: Naming the file, the line where it is known, and the field.
    """
    content = path.read_bytes()
    try:
        if path.suffix in (".yaml", ".yml"):
            value = msgspec.yaml.decode(content)
        elif path.suffix == ".toml":
            value = msgspec.toml.decode(content)
        else:
            value = msgspec.json.decode(content)
        return msgspec.convert({} if value is None else value, ModelConfiguration)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_located(path, content, str(error))) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(f"{path.name}: {' '.join(str(error).split())}") from error


def write_configuration(configuration: ModelConfiguration) -> str:
    """Write a configuration as the YAML that would be read back to it."""
    import yaml

    return yaml.safe_dump(
        json.loads(msgspec.json.encode(configuration)), sort_keys=False, default_flow_style=None, width=100
    )


def _located(path: Path, content: bytes, message: str) -> str:
    """Put file and line before msgspec's reason, which names the field."""
    field = ""
    if unknown := re.search(r"unknown field `([^`]+)`", message):
        field = unknown.group(1)
    elif named := re.search(r"`\$\.?([^`]*)`", message):
        names = re.findall(r"[A-Za-z_]\w*", named.group(1))
        field = names[-1] if names else ""
    line = 0
    if field:
        pattern = re.compile(
            rb"^[\s{\-\[,]*[\"']?" + re.escape(field.encode()) + rb"[\"']?\s*[:=]", re.MULTILINE
        )
        if found := pattern.search(content):
            line = content[: found.end()].count(b"\n") + 1
    return f"{path.name}{f':{line}' if line else ''}: {message}"


def as_plain(configuration: ModelConfiguration) -> dict[str, Any]:
    """The configuration as plain values, as it travels to workers."""
    plain: dict[str, Any] = json.loads(msgspec.json.encode(configuration))
    return plain
