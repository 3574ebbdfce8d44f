"""What a client is given: responses, metadata, readiness. Knows no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy.typing as npt

Parameter: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class Sequence:
    """A request's place in a sequence of requests that a stateful model keeps together.

    `id` is a number above 0 or a text that is not empty.
    """

    id: int | str
    start: bool = False
    end: bool = False


NO_SEQUENCE = Sequence(0)
STAGES = {0: "only", 1: "part", 2: "end"}


@dataclass(frozen=True)
class Timing:
    """How the server served a request."""

    queue_us: int = 0
    execute_us: int = 0
    batch_rows: int = 0
    reason: str = ""


@dataclass(frozen=True)
class InferResponse:
    """One inference answered. The arrays are read-only views of the received bytes."""

    model: str
    version: str
    id: str | None
    outputs: dict[str, npt.NDArray[Any]]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    stage: str = "only"
    """`only`, or for a model that gives several responses `part`, and `end` for the empty last one."""

    def __getitem__(self, output: str) -> npt.NDArray[Any]:
        """Return one output by name."""
        return self.outputs[output]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives. `max_batch_size` 0: does not batch, None: not said by this transport."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int | None = None
    description: str = ""


@dataclass(frozen=True)
class ServerMetadata:
    """Who the server is. `max_frame_bytes` 0: not said."""

    name: str
    version: str
    extensions: tuple[str, ...]
    max_frame_bytes: int = 0


@dataclass(frozen=True)
class ModelState:
    """A row of the repository's index."""

    name: str
    version: str | None
    state: str
    reason: str


@dataclass(frozen=True)
class Done:
    """What was asked for is done."""


@dataclass(frozen=True)
class Credit:
    """The server will take this many more requests on this stream."""

    requests: int
