"""TensorFlow's messages without TensorFlow: what `tensorflow-serving-api` needs to be imported.

The package `tensorflow-protobuf` has TensorFlow's messages of 2022; since then the enumeration of error codes
has moved to another file, which is declared here, before the client is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default

_CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE "
    "DATA_LOSS UNAUTHENTICATED"
)
_MOVED_TO = "xla/tsl/protobuf/error_codes.proto"


def _declare() -> None:
    codes = FileDescriptorProto(name=_MOVED_TO, package="tensorflow.error", syntax="proto3")
    enumeration = codes.enum_type.add(name="Code")
    for number, name in enumerate(_CODES.split()):
        enumeration.value.add(name=name, number=number)
    forwarding = FileDescriptorProto(
        name="tensorflow/core/protobuf/error_codes.proto",
        syntax="proto3",
        dependency=[_MOVED_TO],
        public_dependency=[0],
    )
    for file in (codes, forwarding):
        Default().AddSerializedFile(file.SerializeToString())
    module = ModuleType("tensorflow.core.protobuf.error_codes_pb2")
    # Generated code looks for the module of the file that is forwarded to under this name.
    module.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2 = ModuleType("error_codes_pb2")  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


_declare()

from tensorflow.core.framework.tensor_pb2 import TensorProto  # noqa: E402 - made possible just above
from tensorflow.core.framework.types_pb2 import DataType  # noqa: E402 - made possible just above
from tensorflow_serving.apis import (  # noqa: E402 - made possible just above
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

__all__ = [
    "DataType",
    "TensorProto",
    "classification_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
]
