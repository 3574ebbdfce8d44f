"""`kingpole infer`: one request, its outputs printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kingpole.cli import SUCCESS, USAGE, CommandError
from kingpole.cli.ask import answered, connect
from kingpole.cli.images import read_image

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_BEST = 5
_SHOWN = 1000


def infer(
    url: str | None, model: str, given: Sequence[str], labels_file: str | None, timeout_us: int | None
) -> int:
    """Send one request and print the outputs, with the five best labels where labels are known."""
    labels = _read_labels(labels_file)
    client = connect(url)
    with answered():
        metadata = client.metadata(model)
    specs = {spec.name: spec for spec in metadata.inputs}
    inputs = dict(_read_input(each, specs) for each in given)
    with answered():
        response = client.infer(model, inputs, timeout_us=timeout_us)
    for name, tensor in response.outputs.items():
        print(_describe(name, tensor, labels))
    return SUCCESS


def _read_input(text: str, specs: dict[str, Any]) -> tuple[str, Any]:
    import numpy as np

    name, separator, value = text.partition("=")
    if not separator and len(specs) == 1:
        name, value = next(iter(specs)), text
    if name not in specs:
        raise CommandError(f"--input {text}: the model's inputs are {', '.join(specs)}", USAGE)
    spec = specs[name]
    try:
        if value.startswith("@"):
            path = Path(value[1:])
            if path.suffix.lower() in _IMAGES:
                return name, read_image(path, str(spec.datatype), tuple(spec.shape))
            if path.suffix == ".npy":
                return name, np.load(path, allow_pickle=False)
            value = path.read_text()
        values = json.loads(value)
    except (OSError, ValueError) as error:
        raise CommandError(f"--input {name}: {error}", USAGE) from error
    return name, _array(name, values, str(spec.datatype))


def _array(name: str, values: Any, datatype: str) -> Any:
    import numpy as np

    from kingpole._arrays import dtype_of

    try:
        if datatype != "BYTES":
            return np.asarray(values, dtype_of(datatype))
        texts = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise CommandError(f"--input {name}: no {datatype} tensor: {error}", USAGE) from error
    encoded = np.empty(texts.size, object)
    encoded[:] = [str(each).encode() for each in texts.ravel().tolist()]
    return encoded.reshape(texts.shape)


def _read_labels(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        return Path(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}", USAGE) from error


def _describe(name: str, tensor: Any, labels: Sequence[str]) -> str:
    """Write an output: its best classes if there are as many labels as classes, else its values."""
    import numpy as np

    array = np.asarray(tensor)
    text = f"{name} {list(array.shape)} {array.dtype}"
    if labels and array.ndim and array.shape[-1] == len(labels):
        lines = [text]
        for row in array.reshape(-1, len(labels)):
            best = np.argsort(row)[::-1][:_BEST]
            lines += [f"  {float(row[index]):10.4f}  {labels[index]}" for index in best]
        return "\n".join(lines)
    with np.printoptions(threshold=_SHOWN, edgeitems=5, linewidth=110, precision=6, suppress=True):
        return f"{text}\n{array}"
