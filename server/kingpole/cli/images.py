"""Pictures as tensors.

A picture is resized to the model's input. A UINT8 input takes the bytes as they are; a
floating-point input takes them divided by 255. Channels are last ([rows, height, width, 3])
or first ([rows, 3, height, width]), as the shape says; without a leading -1 or 1 there are no rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kingpole.cli import CommandError
from kingpole.signature import format_shape

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(path: Path, datatype: str, shape: tuple[int, ...]) -> Any:
    """Read a picture into the form of an input.

    Raises:
        CommandError: When Pillow is missing, the file is no picture or the input no picture's.
    """
    import numpy as np

    try:
        from PIL import Image
    except ImportError as error:
        raise CommandError("pictures need Pillow: pip install pillow") from error
    height, width, channels, is_channels_first = _layout(shape)
    try:
        with Image.open(path) as opened:
            picture = opened.convert(_CHANNELS[channels])
    except OSError as error:
        raise CommandError(f"{path}: no picture: {error}") from error
    size = (width if width > 0 else picture.width, height if height > 0 else picture.height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture).reshape(size[1], size[0], channels)
    if is_channels_first:
        pixels = pixels.transpose(2, 0, 1)
    if len(shape) == 4:
        pixels = pixels[None]
    if datatype == "UINT8":
        return np.ascontiguousarray(pixels)
    if datatype in ("FP16", "FP32", "FP64"):
        kind = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[datatype]
        return np.ascontiguousarray((pixels / 255).astype(kind))
    raise CommandError(f"a picture cannot be made {datatype}: only UINT8 and floating-point inputs take one")


def _layout(shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """Give height, width, channels, and whether the channels come first."""
    if len(shape) in (3, 4):
        first, second, third = shape[-3:]
        if third in _CHANNELS:
            return first, second, third, False
        if first in _CHANNELS:
            return second, third, first, True
    raise CommandError(f"an input of shape {format_shape(shape)} takes no picture")
