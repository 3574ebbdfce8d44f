"""Classify a picture with the demo model: `python classify.py PICTURE [--url http://localhost:8000]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import kingpole_client
import numpy as np
from PIL import Image


def read_picture(path: str, height: int, width: int) -> np.ndarray:
    """Return the picture's middle as raw RGB, UINT8 of shape (1, height, width, 3)."""
    with Image.open(path) as picture:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((width, height))
    return np.asarray(square)[None]


def main() -> None:
    """Ask the server and print the five likeliest classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--labels", help="a file with one label a line: server/kingpole/demo/labels.txt")
    arguments = parser.parse_args()
    labels = []
    if arguments.labels:
        labels = Path(arguments.labels).read_text(encoding="utf-8").splitlines()
    with kingpole_client.connect(arguments.url, timeout_us=10_000_000) as client:
        wanted = client.metadata(arguments.model).inputs[0]
        if wanted.datatype != "UINT8" or len(wanted.shape) != 4 or wanted.shape[3] != 3:
            parser.error(
                f"{arguments.model} takes {wanted.datatype} {wanted.shape}, which is no raw RGB picture"
            )
        image = read_picture(arguments.picture, *wanted.shape[1:3])
        response = client.infer(arguments.model, {wanted.name: image})
    probabilities = next(iter(response.outputs.values()))[0]
    for index in np.argsort(-probabilities)[:5]:
        print(f"{probabilities[index]:7.2%}  {labels[index] if index < len(labels) else f'class {index}'}")


if __name__ == "__main__":
    main()
