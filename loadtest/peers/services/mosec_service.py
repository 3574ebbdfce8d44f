"""The mosec service of the load test: float32 bytes of one row in, float32 bytes out.

Runs in mosec's own environment; its configuration arrives in environment variables
because mosec owns the command line.
"""
# mosec is installed in its own environment only, and is untyped.
# mypy: disable-error-code="import-not-found,no-untyped-call,misc"

import os

import numpy
import onnxruntime
from mosec import Server, Worker

_SHAPE = tuple(int(dimension) for dimension in os.environ["BENCH_SHAPE"].split(","))


class OnnxModel(Worker):
    """ONNX Runtime with one thread; joins the rows of a batch and splits the output."""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def deserialize(self, data: bytes) -> bytes:
        """Take the body as it is."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Give the body as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Execute one batch."""
        joined = numpy.frombuffer(b"".join(data), numpy.float32).reshape(len(data), *_SHAPE)
        output = self._session.run(None, {self._input: joined})[0]
        return [row.tobytes() for row in output]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        OnnxModel,
        num=1,
        max_batch_size=int(os.environ["BENCH_MAX_BATCH_SIZE"]),
        max_wait_time=int(os.environ["BENCH_WAIT_MS"]),
    )
    server.run()
