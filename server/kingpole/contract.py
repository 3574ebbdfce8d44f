"""The backend contract: the only thing a backend sees of Kingpole.

A backend is a class with one method, `load`, that gives a `Model`; a model is a class
with one method, `execute`, on numpy arrays. Backends are found through the entry
point group `kingpole.backends`.
"""

from __future__ import annotations

import abc
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from kingpole._arrays import Array
from kingpole.signature import Signature, TensorSpec

ENTRY_POINT_GROUP = "kingpole.backends"

CODES = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "UNAVAILABLE",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "UNIMPLEMENTED",
        "INTERNAL",
    }
)


class ModelError(Exception):
    """An error with a code: what a backend or a model raises to say whose fault it is.

    Any other exception of a model is INTERNAL.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES:
            raise ValueError(f"'{code}' is no code")
        super().__init__(message)
        self.code = code
        self.message = message


class Model(abc.ABC):
    """One loaded instance of a version; runs one batch at a time.

    `signature` is complete once `load` has returned and never changes.
    """

    signature: Signature

    @abc.abstractmethod
    def execute(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run one batch.

        Args:
            inputs: Arrays by input name, joined along dimension 0 when the model batches;
                absent optional inputs are left out. They are views of memory that is
                reused after the answer: copy what must outlive this call.

        Returns:
            Arrays by output name. When the model batches each has as many rows as the inputs.

        Raises:
            ModelError: To answer with a code of its own; anything else is INTERNAL.
        """

    def execute_with_parameters(
        self, inputs: dict[str, Array], parameters: Sequence[Mapping[str, Any]]
    ) -> dict[str, Array]:
        """Run one batch, knowing what the requests ask for beside their tensors; what the worker calls.

        Args:
            inputs: As in `execute`.
            parameters: One mapping for each row of the batch, shared by the rows of a request; one in all for
                a model that does not batch.
        """
        return self.execute(inputs)

    def execute_in_parts(
        self, inputs: dict[str, Array], parameters: Mapping[str, Any]
    ) -> Iterator[dict[str, Array]]:
        """Answer one request with any number of responses; called when the signature says `decoupled`.

        The iterator is closed early when nobody wants the rest.

        Args:
            inputs: As in `execute`, of a single request.
            parameters: Those of the request.

        Raises:
            ModelError: To end with a code of its own; responses that were given stay given.
        """
        yield self.execute_with_parameters(inputs, [parameters])

    def warmup(self) -> None:  # noqa: B027 - optional: a model that has nothing to prepare leaves it out
        """Prepare for the first batch, for example by compiling."""

    def close(self) -> None:  # noqa: B027 - optional: most models need only be forgotten
        """Give back what the model holds."""


class Backend(abc.ABC):
    """Adapter to one framework; makes instances, always in a worker process.

    In a shared worker `load` runs on another thread than `execute`, so that the other models go on meanwhile;
    what is bound to its thread belongs in a worker of its own.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def load(self, directory: Path, configuration: Mapping[str, Any], device: str) -> Model:
        """Load one instance.

        Args:
            directory: The version's directory.
            configuration: The model's configuration as plain values; `file` is the artefact's
                path, `inputs` and `outputs` are declared tensors if known, `options` the
                free-form settings for this backend.
            device: Where it is to run, `cpu` or `cuda:0`.

        Raises:
            ModelError: FAILED_PRECONDITION with a reason that names what is wrong.
        """


def find_backend(name: str) -> Backend:
    """Make the backend of a name, from the entry points or from those that come with Kingpole.

    Raises:
        ModelError: FAILED_PRECONDITION when there is none or when it cannot be imported.
    """
    try:
        built_in = importlib.import_module("kingpole_backends").BUILT_IN
    except ModuleNotFoundError:
        built_in = {}
    if name in built_in:
        target = built_in[name]
    else:
        points = {
            point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
        }
        if name not in points:
            known = ", ".join(sorted({*built_in, *points})) or "none"
            raise ModelError("FAILED_PRECONDITION", f"unknown backend '{name}' (known: {known})")
        target = points[name]
    module, _, attribute = target.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        raise ModelError("FAILED_PRECONDITION", f"backend '{name}' cannot be imported: {error}") from error
    if not isinstance(made, Backend):
        raise ModelError(
            "FAILED_PRECONDITION", f"'{target}' of backend '{name}' is no kingpole.contract.Backend"
        )
    return made


def declared(configuration: Mapping[str, Any], field: str) -> tuple[TensorSpec, ...]:
    """Read the declared tensors of a configuration's `inputs` or `outputs`.

    Only complete declarations count; a partial one (a name with a datatype, say) corrects
    what the model reports and is merged by the server.
    """
    return tuple(
        TensorSpec(each["name"], each["datatype"], tuple(each["shape"]), bool(each.get("optional", False)))
        for each in configuration.get(field) or ()
        if each.get("datatype") and each.get("shape") is not None
    )
