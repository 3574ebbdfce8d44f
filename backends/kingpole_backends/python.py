"""A user's own Python: `model.py` with a function or a class.

Three forms are served, looked for in this order:

* `class Model` with `execute(self, inputs)`; it may have `__init__(self, directory)`,
  `warmup(self)` and `close(self)`. A subclass of `kingpole.contract.Model` is used as it is.
* `def execute(inputs)`: arrays by name in, arrays by name out.
* `def infer(x, ...)`: one argument per input; gives an array, a tuple in the order of the
  outputs, or a dict.

What it takes and gives is declared in `model.yaml` (`inputs`, `outputs`), or in the module::

    INPUTS = [("x", "FP32", [-1, 4])]
    OUTPUTS = [("y", "FP32", [-1])]
    MAX_BATCH_SIZE = 32        # left out: requests are never joined

or by the type hints of `infer`::

    def infer(x: Annotated[NDArray[np.float32], (-1, 4)]) -> Annotated[NDArray[np.float32], (-1,)]:

An output that is declared by a hint is named `output` (`output0`, `output1` in a tuple).

A function that takes an argument named `parameters` is given what requests say beside their tensors: a dict,
or when the model batches a list with one dict for each row. A generator function answers a request with each
value it yields.
"""

from __future__ import annotations

import collections.abc
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kingpole._arrays import Array, datatype_of
from kingpole.contract import Backend, Model, ModelError, declared
from kingpole.signature import ELEMENT_BYTES, Signature, TensorSpec

PARAMETERS = "parameters"
"""The argument by which a user's function asks for the requests' parameters."""


class PythonModel(Model):
    """A user's function or object, with outputs brought into the form of the contract."""

    def __init__(self, signature: Signature, infer: Callable[..., Any], user: Any, *, by_name: bool) -> None:
        self.signature = signature
        self._infer = infer
        self._user = user
        self._by_name = by_name
        self._takes_parameters = PARAMETERS in inspect.signature(infer).parameters
        self._batches = bool(signature.max_batch_size)
        self._output_names = [spec.name for spec in signature.outputs]

    def execute(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Call the user's function once, for the whole batch."""
        return self.execute_with_parameters(inputs, [{}])

    def execute_with_parameters(
        self, inputs: dict[str, Array], parameters: Sequence[Mapping[str, Any]]
    ) -> dict[str, Array]:
        """Call the user's function once, for the whole batch, with the parameters if it takes them."""
        return self._outputs(self._call(inputs, parameters if self._batches else parameters[0]))

    def execute_in_parts(
        self, inputs: dict[str, Array], parameters: Mapping[str, Any]
    ) -> Iterator[dict[str, Array]]:
        """Give what the user's generator yields, one by one."""
        parts = self._call(inputs, parameters)
        try:
            for given in parts:
                yield self._outputs(given)
        finally:
            parts.close()

    def _call(self, inputs: dict[str, Array], parameters: object) -> Any:
        more = {PARAMETERS: parameters} if self._takes_parameters else {}
        return self._infer(inputs, **more) if self._by_name else self._infer(**inputs, **more)

    def _outputs(self, given: Any) -> dict[str, Array]:
        if isinstance(given, dict):
            return {name: np.asarray(value) for name, value in given.items()}
        values = given if isinstance(given, tuple) else (given,)
        if len(values) != len(self._output_names):
            raise ModelError(
                "INTERNAL",
                f"the model returned {len(values)} outputs, {len(self._output_names)} are declared"
                f" ({', '.join(self._output_names)})",
            )
        return {name: np.asarray(value) for name, value in zip(self._output_names, values, strict=True)}

    def warmup(self) -> None:
        """Let the user's object prepare, if it wants to."""
        if hasattr(self._user, "warmup"):
            self._user.warmup()

    def close(self) -> None:
        """Let the user's object tidy up, if it wants to."""
        if hasattr(self._user, "close"):
            self._user.close()


class PythonBackend(Backend):
    """Imports `model.py`; runs in a worker process only, never inside the server."""

    name = "python"

    def load(self, directory: Path, configuration: Mapping[str, Any], device: str) -> Model:
        """Import the file and find which of the three forms it has."""
        file = directory / (configuration.get("file") or "model.py")
        module = _import(file, str(configuration.get("name") or directory.name))
        made = getattr(module, "Model", None)
        if inspect.isclass(made) and made is not Model:
            user = _construct(made, directory)
            if isinstance(user, Model) and hasattr(user, "signature"):
                return user
            if not callable(getattr(user, "execute", None)):
                raise _refusal(file, "class Model has no method execute(self, inputs)")
            return _model(file, module, configuration, user.execute, user)
        if callable(execute := getattr(module, "execute", None)):
            return _model(file, module, configuration, execute, None)
        if callable(infer := getattr(module, "infer", None)):
            signature = _signature(file, module, configuration, infer)
            signature = msgspec.structs.replace(signature, decoupled=inspect.isgeneratorfunction(infer))
            return PythonModel(signature, infer, None, by_name=False)
        raise _refusal(file, "expected a class Model, a function execute(inputs) or a function infer(...)")


def _model(
    file: Path,
    module: types.ModuleType,
    configuration: Mapping[str, Any],
    execute: Callable[..., Any],
    user: Any,
) -> PythonModel:
    signature = _signature(file, module, configuration, None)
    signature = msgspec.structs.replace(signature, decoupled=inspect.isgeneratorfunction(execute))
    return PythonModel(signature, execute, user, by_name=True)


def _refusal(file: Path, reason: str) -> ModelError:
    return ModelError("FAILED_PRECONDITION", f"{file.name}: {reason}")


def _import(file: Path, name: str) -> types.ModuleType:
    """Import a file under a name of its own, so that many models may each have a `model.py`."""
    if not file.is_file():
        raise ModelError("FAILED_PRECONDITION", f"{file.name} is missing")
    # Two versions of a model may be loaded in one process.
    module_name = f"kingpole_model_{name}_{abs(hash(str(file)))}"
    specification = importlib.util.spec_from_file_location(module_name, file)
    if specification is None or specification.loader is None:
        raise ModelError("FAILED_PRECONDITION", f"{file.name} is no Python source file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _construct(made: type, directory: Path) -> Any:
    """Make the user's object, with the version's directory when it asks for one argument."""
    arguments = [
        parameter
        for parameter in inspect.signature(made).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return made(directory) if arguments else made()


def _signature(
    file: Path, module: types.ModuleType, configuration: Mapping[str, Any], infer: Callable[..., Any] | None
) -> Signature:
    """Find what the model takes and gives: configuration first, then the module, then type hints."""
    inputs = declared(configuration, "inputs") or _from_module(file, module, "INPUTS")
    outputs = declared(configuration, "outputs") or _from_module(file, module, "OUTPUTS")
    if infer is not None and not (inputs and outputs):
        hinted_inputs, hinted_outputs = _from_hints(infer)
        inputs, outputs = inputs or hinted_inputs, outputs or hinted_outputs
    for field, found in (("inputs", inputs), ("outputs", outputs)):
        if not found:
            raise _refusal(
                file,
                f"its {field} are not declared: write `{field}` in model.yaml or {field.upper()}"
                f" in the module, for example {field.upper()} = [('x', 'FP32', [-1, 4])]",
            )
    if infer is not None:
        _check_arguments(file, infer, inputs)
    max_batch_size = configuration.get("max_batch_size")
    if max_batch_size is None:
        # A user's function may mix rows: requests are joined only where the user says so.
        max_batch_size = int(getattr(module, "MAX_BATCH_SIZE", 0))
    return Signature(
        platform="python",
        inputs=inputs,
        outputs=outputs,
        max_batch_size=max_batch_size,
        description=(inspect.getdoc(module) or "").partition("\n")[0],
    )


def _from_module(file: Path, module: types.ModuleType, constant: str) -> tuple[TensorSpec, ...]:
    specs = []
    for entry in getattr(module, constant, ()):
        try:
            name, datatype, shape = entry[:3]
            spec = TensorSpec(str(name), str(datatype), tuple(int(size) for size in shape))
        except (TypeError, ValueError) as error:
            raise _refusal(
                file, f"{constant}: expected (name, datatype, shape) entries, got {entry!r}"
            ) from error
        if spec.datatype not in ELEMENT_BYTES:
            raise _refusal(file, f"{constant}: '{spec.datatype}' of '{spec.name}' is no datatype")
        specs.append(spec)
    return tuple(specs)


def _from_hints(infer: Callable[..., Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    hints = typing.get_type_hints(infer, include_extras=True)
    given = hints.pop("return", None)
    hints.pop(PARAMETERS, None)
    if typing.get_origin(given) in (collections.abc.Iterator, collections.abc.Generator):
        given = typing.get_args(given)[0]
    inputs = [_hinted(name, hint) for name, hint in hints.items()]
    if typing.get_origin(given) is tuple:
        outputs = [_hinted(f"output{index}", hint) for index, hint in enumerate(typing.get_args(given))]
    else:
        outputs = [_hinted("output", given)]
    return (
        tuple(spec for spec in inputs if spec) if all(inputs) else (),
        tuple(spec for spec in outputs if spec) if all(outputs) else (),
    )


def _hinted(name: str, hint: Any) -> TensorSpec | None:
    """Read `Annotated[NDArray[np.float32], (-1, 4)]`, None for a hint that says less."""
    if typing.get_origin(hint) is not typing.Annotated:
        return None
    array, *extras = typing.get_args(hint)
    shape = next((extra for extra in extras if isinstance(extra, tuple | list)), None)
    arguments = typing.get_args(array)
    element = next(iter(typing.get_args(arguments[-1])), None) if arguments else None
    if shape is None or not inspect.isclass(element):
        return None
    datatype = datatype_of(np.empty(0, element))
    return TensorSpec(name, datatype, tuple(int(size) for size in shape)) if datatype else None


def _check_arguments(file: Path, infer: Callable[..., Any], inputs: tuple[TensorSpec, ...]) -> None:
    names = {spec.name for spec in inputs}
    parameters = [each for each in inspect.signature(infer).parameters.values() if each.name != PARAMETERS]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    taken = {parameter.name for parameter in parameters}
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    if not needed <= names <= taken:
        raise _refusal(
            file,
            f"infer takes ({', '.join(sorted(taken))})"
            f" but the declared inputs are ({', '.join(sorted(names))})",
        )
