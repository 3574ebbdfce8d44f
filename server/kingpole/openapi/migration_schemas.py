"""The bodies of other servers' calls, as types that JSON Schema is made of. Nothing is decoded with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kingpole.openapi.schemas import GraphpipeMetadata, Parameters

Rows: TypeAlias = Annotated[
    list[Any],
    Meta(min_length=1, description="One for each row: the only input's value, or an object of all."),
]
Columns: TypeAlias = Annotated[
    Any,
    Meta(
        description="The only tensor, or an object of all, nested as their shapes say.",
        extra_json_schema={"type": ["array", "boolean", "number", "object", "string"]},
    ),
]
Signature: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": ["serving_default", ""]})]


class Base64(Struct):
    """Bytes that are no text."""

    b64: str


class Instances(Struct):
    """Rows that are asked about, answered by rows."""

    instances: Rows
    signature_name: Signature | UnsetType = UNSET


class Inputs(Struct):
    """Whole tensors, answered by whole tensors."""

    inputs: Columns
    signature_name: Signature | UnsetType = UNSET


class Predictions(Struct):
    """The only output, or an object of all: in each row, or of whole tensors if those were sent."""

    predictions: Columns


class Outputs(Struct):
    """The only output, or an object of all, as whole tensors."""

    outputs: Columns


class Examples(Struct):
    """Rows that are to be classified or regressed: each an object with every input."""

    examples: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    signature_name: Signature | UnsetType = UNSET
    context: Annotated[dict[str, Any], Meta(extra_json_schema={"maxProperties": 0})] | UnsetType = UNSET


class Classifications(Struct):
    """For each row, labels and their scores."""

    results: list[list[tuple[str | Base64, float]]]


class Regressions(Struct):
    """For each row, a value."""

    results: list[float | bool]


class ServableNames(Struct):
    """The names of the models that are served."""

    models: list[str]


class ServableFault(Struct):
    """Why a version is not served; OK if there is no fault."""

    error_code: str
    error_message: str


class ServableVersion(Struct):
    """A version in TensorFlow Serving's words."""

    version: str
    state: Literal["AVAILABLE", "LOADING", "UNLOADING", "END", "UNKNOWN"]
    status: ServableFault


class ServableStatus(Struct):
    """The states of a model's versions; `name` and `ready` are for KServe V1."""

    name: str
    ready: bool
    model_version_status: list[ServableVersion]


class SignatureDimension(Struct):
    """The size of a dimension, as text; -1 stands for any."""

    size: str
    name: str


class SignatureShape(Struct):
    """A tensor's shape."""

    dim: list[SignatureDimension]
    unknown_rank: bool


class SignatureTensor(Struct):
    """An input or output as TensorFlow describes it."""

    dtype: str
    tensor_shape: SignatureShape
    name: str


class SignatureDefinition(Struct):
    """What a model takes and gives."""

    inputs: dict[str, SignatureTensor]
    outputs: dict[str, SignatureTensor]
    method_name: str


class SignatureDefinitions(Struct):
    """The only signature."""

    serving_default: SignatureDefinition


class SignatureField(Struct):
    """A message that holds a map of the same name."""

    signature_def: SignatureDefinitions


class ServableMetadata(Struct):
    """What a model has to say of itself."""

    signature_def: SignatureField


class ServableName(Struct):
    """Which model it is."""

    name: str
    signature_name: str
    version: str


class ServableDescription(Struct):
    """What a model takes and gives, in TensorFlow Serving's words."""

    model_spec: ServableName
    metadata: ServableMetadata


class RootMetadata(GraphpipeMetadata):
    """The default model's metadata, and that the server is alive."""

    status: Annotated[Literal["alive"], Meta(description="For KServe V1.")] = field(name="status")


class RootStatus(Struct):
    """The server is alive, and why there is no default model to describe."""

    status: Literal["alive"]
    error: str


class FrameSplit(Struct, forbid_unknown_fields=True):
    """A data frame as pandas splits it; the index is not looked at."""

    data: Annotated[list[list[Any]], Meta(min_length=1)]
    columns: list[str] | UnsetType = UNSET
    index: list[Any] | UnsetType = UNSET


class DataframeSplit(Struct):
    """A data frame: names of columns, and rows."""

    dataframe_split: FrameSplit
    params: Parameters = UNSET


class DataframeRecords(Struct):
    """A data frame: an object for each row."""

    dataframe_records: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    params: Parameters = UNSET


class InvocationInstances(Struct):
    """Rows."""

    instances: Rows
    params: Parameters = UNSET


class InvocationInputs(Struct):
    """Whole tensors."""

    inputs: Columns
    params: Parameters = UNSET


class InvocationError(Struct):
    """Why the invocation was refused or failed."""

    error: str
    error_code: str
    message: Annotated[str, Meta(description="The same text, for AWS's clients.")]


class LoadedModel(Struct):
    """A model that is served. The URL is its name: it comes from the server's own repository."""

    modelName: str  # noqa: N815 - the protocol's name
    modelUrl: str  # noqa: N815 - the protocol's name


class LoadedModels(Struct):
    """The models that are served."""

    models: list[LoadedModel]


class ModelToLoad(Struct):
    """Which model to load."""

    model_name: str
    url: Annotated[str, Meta(description="Not read.")] | UnsetType = UNSET
