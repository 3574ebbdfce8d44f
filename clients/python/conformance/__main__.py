"""`python -m conformance CASE URL [EXTRA]`: one case; protocol/conformance/README.md says what must be."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from conformance import answers, conduct
from conformance.encoding import encode_vectors
from conformance.kinds import AWAITED, CaseFailedError, Client, connect

TRANSPORTS = ("http", "grpc", "frame", "unix")
# A case that waits for ever is a failure whose place should be seen.
WAIT_US = 100_000_000

WITH_CLIENT: dict[str, Callable[[Client], Awaitable[None]]] = {
    "server": answers.server, "datatypes": answers.datatypes, "shapes": answers.shapes,
    "parameters": answers.parameters, "errors": answers.errors, "open-inference": answers.open_inference,
    "deadline": conduct.deadline, "sequence": conduct.sequence, "pipeline": conduct.pipeline,
    "large": conduct.large, "killed": conduct.killed,
}  # fmt: skip
WITH_CLIENT_AND_PATH: dict[str, Callable[[Client, Path], Awaitable[None]]] = {
    "cancel": conduct.cancel, "stream": conduct.stream,
}  # fmt: skip
WITH_URL: dict[str, Callable[[str], Awaitable[None]]] = {
    "token": answers.token, "hostile": conduct.hostile, "shared-memory": conduct.shared_memory,
}  # fmt: skip


async def run_case(name: str, url: str, extra: str) -> None:
    """Run one case.

    Raises:
        CaseFailedError: It is not as it should be.
    """
    if name in WITH_URL:
        return await WITH_URL[name](url)
    if name == "tls":
        return await answers.tls(url, Path(extra).read_bytes())  # noqa: ASYNC240 - nothing else runs
    client = await connect(url, timeout_us=WAIT_US)
    try:
        if name in WITH_CLIENT:
            await WITH_CLIENT[name](client)
        elif name in WITH_CLIENT_AND_PATH:
            await WITH_CLIENT_AND_PATH[name](client, Path(extra))
        else:
            raise CaseFailedError(f"there is no case {name}")
    finally:
        await client.close()


def main(arguments: list[str]) -> int:
    """Do what is asked; 1 when a case failed, 2 when it cannot be told what is asked."""
    match arguments:
        case ["transports"]:
            print(*TRANSPORTS, *(f"{AWAITED}{name}" for name in TRANSPORTS))
            return 0
        case ["encode", directory, out]:
            print(encode_vectors(Path(directory), Path(out)), "requests written")
            return 0
        case [name, url, *rest] if len(rest) <= 1:
            try:
                asyncio.run(run_case(name, url, rest[0] if rest else ""))
            except CaseFailedError as failure:
                print(failure)
                return 1
            except Exception:  # noqa: BLE001 - whatever it is, it is why the case failed
                traceback.print_exc(limit=-4, file=sys.stdout)
                return 1
            return 0
    print("usage: run conformance transports | CASE URL [EXTRA] | encode DIRECTORY OUT")
    return 2


sys.exit(main(sys.argv[1:]))
