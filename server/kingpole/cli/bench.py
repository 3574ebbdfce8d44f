"""`kingpole bench`: a closed loop of requests, for a first impression of a model's speed."""

from __future__ import annotations

import threading
import time
from typing import Any

from kingpole.cli import FAILURE, SUCCESS, USAGE, CommandError
from kingpole.cli.ask import answered, connect


def bench(url: str | None, model: str, concurrency: int, seconds: int, rows: int) -> int:
    """Send requests from several threads and print requests per second and latencies."""
    if min(concurrency, seconds, rows) < 1:
        raise CommandError("--concurrency, --seconds and --rows must be at least 1", USAGE)
    with answered():
        metadata = connect(url).metadata(model)
    inputs = {spec.name: _random(spec, rows) for spec in metadata.inputs}
    latencies_us: list[int] = []
    failures: list[BaseException] = []
    end_ns = time.monotonic_ns() + seconds * 1_000_000_000

    def ask() -> None:
        mine: list[int] = []
        try:
            client = connect(url)
            while (started_ns := time.monotonic_ns()) < end_ns:
                client.infer(model, inputs)
                mine.append((time.monotonic_ns() - started_ns) // 1000)
        except Exception as error:  # noqa: BLE001 - told once all threads have ended
            failures.append(error)
        latencies_us.extend(mine)

    threads = [threading.Thread(target=ask) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        print(f"{len(failures)} of {concurrency} connections failed: {failures[0]}")
    if not latencies_us:
        return FAILURE
    latencies_us.sort()
    count = len(latencies_us)
    percentiles = ", ".join(
        f"p{percent} {latencies_us[min(count - 1, count * percent // 100)]} \u00b5s"
        for percent in (50, 90, 99)
    )
    print(f"{count / seconds:.0f} requests/s ({count * rows / seconds:.0f} rows/s), {percentiles}")
    return FAILURE if failures else SUCCESS


def _random(spec: Any, rows: int) -> Any:
    import numpy as np

    from kingpole._arrays import dtype_of

    shape = [rows if index == 0 and size < 0 else abs(size) for index, size in enumerate(spec.shape)]
    datatype = str(spec.datatype)
    if datatype == "BYTES":
        tensor = np.empty(shape, object)
        tensor.ravel()[:] = [b"kingpole"] * tensor.size
        return tensor
    random = np.random.default_rng(0)
    if datatype.startswith(("FP", "BF")):
        return random.random(shape).astype(dtype_of(datatype))
    return random.integers(0, 2, shape).astype(dtype_of(datatype))
