"""The bodies of requests and answers, as types that JSON Schema is made of. Nothing is decoded with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from kingpole.signature import ELEMENT_BYTES

Datatype: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(ELEMENT_BYTES)})]
Parameter: TypeAlias = bool | int | float | str
Parameters: TypeAlias = dict[str, Parameter] | UnsetType
Data: TypeAlias = Annotated[
    Any,
    Meta(
        description="Elements, flat or nested as `shape` says, row-major. A bare element only for a scalar.",
        extra_json_schema={"type": ["array", "boolean", "number", "string"]},
    ),
]
Size: TypeAlias = Annotated[int, Meta(ge=0)]
DeclaredShape: TypeAlias = Annotated[
    list[Annotated[int, Meta(ge=-1)]], Meta(description="-1 stands for any size.")
]
State: TypeAlias = Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING", "UNKNOWN"]


class Error(Struct):
    """Why the request was refused or failed."""

    error: str


class Live(Struct):
    """Whether the server answers."""

    live: bool


class Ready(Struct):
    """Whether every model that should be served is."""

    ready: bool


class ModelReady(Struct):
    """Whether the model can infer."""

    name: str
    ready: bool


class ServerMetadata(Struct):
    """Who the server is, and which extensions of Open Inference it offers."""

    name: str
    version: str
    extensions: list[str]


class Models(Struct):
    """The names of the models that are ready."""

    models: list[str]


class Tensor(Struct):
    """An input or output as the model declares it."""

    name: str
    datatype: Datatype
    shape: DeclaredShape


class ModelMetadata(Struct):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferInput(Struct):
    """A tensor of a request: `data`, or the size of its bytes after the JSON in `binary_data_size`."""

    name: str
    datatype: Datatype
    shape: list[Size]
    parameters: Parameters = UNSET
    data: Data | UnsetType = UNSET


class RequestedOutput(Struct):
    """An output that is wanted; `parameters.binary_data` says whether its bytes follow the JSON."""

    name: str
    parameters: Parameters = UNSET


class InferRequest(Struct):
    """An inference that is asked for.

    Of the parameters, `timeout` (microseconds), `priority` and `binary_data_output` are for the server,
    the others for the model.
    """

    inputs: list[InferInput]
    id: str | UnsetType = UNSET
    parameters: Parameters = UNSET
    outputs: Annotated[list[RequestedOutput], Meta(description="All outputs if left out.")] | UnsetType = (
        UNSET
    )


Generate = Annotated[
    dict[str, Any], Meta(description="An input's elements, bare or in lists, for each input; and parameters.")
]
Generated = Annotated[dict[str, Any], Meta(description="`model_name`, `model_version` and the outputs.")]


class InferOutput(Struct):
    """A tensor of an answer: flat `data`, or the size of its bytes after the JSON in `binary_data_size`."""

    name: str
    datatype: Datatype
    shape: list[Size]
    parameters: Parameters = UNSET
    data: list[Parameter] | UnsetType = UNSET


class InferResponse(Struct):
    """What a model answered."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str | UnsetType = UNSET
    parameters: Parameters = UNSET


class CountAndTime(Struct):
    """How often, and how long together."""

    count: Size
    ns: Size


class InferStatistics(Struct):
    """Where requests spent their time."""

    success: CountAndTime
    fail: CountAndTime
    queue: CountAndTime
    compute_input: CountAndTime
    compute_infer: CountAndTime
    compute_output: CountAndTime
    cache_hit: CountAndTime
    cache_miss: CountAndTime


class BatchStatistics(Struct):
    """Where batches of one size spent their time."""

    batch_size: Size
    compute_input: CountAndTime
    compute_infer: CountAndTime
    compute_output: CountAndTime


class ModelStatistics(Struct):
    """What one version has done."""

    name: str
    version: str
    last_inference: Annotated[int, Meta(ge=0, description="Milliseconds since 1970; 0 is never.")]
    inference_count: Size
    execution_count: Size
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]
    memory_usage: list[dict[str, Any]]
    response_stats: dict[str, Any]


class Statistics(Struct):
    """What the models have done."""

    model_stats: list[ModelStatistics]


class ModelConfiguration(Struct):
    """The model's configuration in the form of Triton's ModelConfig, every scalar included."""

    name: str
    platform: str
    backend: str
    max_batch_size: Size
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]


class IndexQuestion(Struct):
    """Which rows of the index are wanted."""

    ready: bool | UnsetType = UNSET


class IndexRow(Struct):
    """A version that the server knows."""

    name: str
    state: State
    reason: str
    version: str | UnsetType = UNSET


class RepositoryParameters(Struct):
    """How to load or unload.

    `config` replaces the configuration on disk; with it, `file:<version>/<path>` is a file of the model in
    base64. For unloading, `unload_dependents`.
    """

    parameters: dict[str, Any] | UnsetType = UNSET


class RegionRegistration(Struct):
    """A range of a file right below /dev/shm; `key` is the file's name."""

    key: str
    byte_size: Size
    offset: Size | UnsetType = UNSET


class SharedMemoryRegion(Struct):
    """A registered region, by the name that tensors have it by."""

    name: str
    key: str
    offset: Size
    byte_size: Size


class LogSettings(Struct):
    """Which lines are logged, and how they begin."""

    log_file: str
    log_info: bool
    log_warning: bool
    log_error: bool
    log_verbose_level: Size
    log_format: str


class LogChanges(Struct):
    """What is to be logged from now on; what is left out stays."""

    log_info: bool | UnsetType = UNSET
    log_warning: bool | UnsetType = UNSET
    log_error: bool | UnsetType = UNSET
    log_verbose_level: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | UnsetType = UNSET
    log_format: Literal["default", "ISO8601"] | UnsetType = UNSET


class TraceSettings(Struct):
    """What is traced, in Triton's words."""

    trace_level: list[str]
    trace_rate: str
    trace_count: str
    log_frequency: str
    trace_file: str
    trace_mode: str


class TraceChanges(Struct):
    """What is to be traced. TIMESTAMPS needs a server that was started with a file for traces."""

    trace_level: Annotated[list[Literal["OFF", "TIMESTAMPS"]], Meta(min_length=1)] | UnsetType | None = UNSET
    trace_rate: Annotated[str, Meta(pattern="^[1-9][0-9]{0,8}$")] | UnsetType | None = UNSET
    trace_count: Annotated[str, Meta(pattern="^(-1|[0-9]{1,9})$")] | UnsetType | None = UNSET


class Empty(Struct):
    """Done; there is nothing to say."""


class GraphpipeTensor(Struct, rename="pascal"):
    """An input or output as GraphPipe describes it; the type is GraphPipe's number."""

    name: str
    description: str
    shape: DeclaredShape
    type: Size


class GraphpipeMetadata(Struct, rename="pascal"):
    """What a model takes and gives, in GraphPipe's words."""

    name: str
    version: str
    server: str
    description: str
    inputs: list[GraphpipeTensor]
    outputs: list[GraphpipeTensor]


class ManagedVersion(Struct):
    """A version, where it runs and where it came from."""

    name: str
    version: str | None
    state: State
    reason: str
    runs: Annotated[str, Meta(description="inline, shared or own; empty while it is not served.")]
    directory: str | None


class ManagedStatistics(Struct):
    """What one version has done, in brief."""

    name: str
    version: str
    inference_count: Size
    execution_count: Size
    success_count: Size
    fail_count: Size
