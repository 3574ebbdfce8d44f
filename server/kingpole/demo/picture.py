"""Turns a picture into the tensor the demo model takes, and its answer into words.

Knows nothing of the server or of any protocol.
"""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kingpole.demo.efficientnet import IMAGE_SIDE

# The shorter side before the center is cut out, as in the original's evaluation.
RESIZED_SIDE = 256


class Guess(NamedTuple):
    """One class and its probability."""

    label: str
    probability: float


def coffee() -> Path:
    """Return the path of scikit-image's picture of a cup of coffee.

    Raises:
        FileNotFoundError: scikit-image is not installed; the message names the command that installs it.
    """
    # Located, not imported: importing scikit-image takes a second, and its loader may want to download.
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the demo's picture is missing; install it with: pip install 'kingpole[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "coffee.png"


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as raw RGB `(1, 224, 224, 3)`: shorter side to 256, then the center."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    scale = RESIZED_SIDE / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - IMAGE_SIDE) // 2, (height - IMAGE_SIDE) // 2
    picture = picture.crop((left, top, left + IMAGE_SIDE, top + IMAGE_SIDE))
    return np.asarray(picture)[np.newaxis]


def best(probabilities: npt.NDArray[np.float32]) -> Guess:
    """Name the most probable of the 1,000 classes."""
    labels = files("kingpole.demo").joinpath("labels.txt").read_text("utf-8").splitlines()
    index = int(probabilities.reshape(-1).argmax())
    return Guess(labels[index], float(probabilities.reshape(-1)[index]))
