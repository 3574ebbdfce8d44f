"""`kingpole serve`: the wiring. It knows every part, and no part knows it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kingpole import __version__
from kingpole.cli import INTERRUPTED, NOT_STARTED, SUCCESS, USAGE, CommandError
from kingpole.cli.settings import Resolved, resolve
from kingpole.cpus import available_cpus
from kingpole.lifecycle import Lifecycle
from kingpole.log import Log
from kingpole.memory import available_memory_bytes
from kingpole.opening import reason_of
from kingpole.repository import RepositoryError, scan

if TYPE_CHECKING:  # the commands that need no server work without the compiled part
    from kingpole._core import Server


def serve(parsed: argparse.Namespace) -> int:
    """Serve until told to stop, and give the exit code."""
    started = time.monotonic()
    settings = decide_by_machine(resolve(parsed))
    if parsed.print_config:
        print(settings.describe())
        return SUCCESS
    paths = _check_paths(settings)
    core = _make_core(settings)
    try:
        addresses = core.start()
    except Exception as error:
        raise CommandError(f"cannot listen: {reason_of(error)}", NOT_STARTED) from error
    try:
        return asyncio.run(_run(settings, core, addresses, paths, started))
    except CommandError:
        core.stop(0)
        raise


def find_onnxruntime_library() -> str | None:
    """Find the shared library inside the onnxruntime package, without importing it."""
    found = importlib.util.find_spec("onnxruntime")
    for directory in (found.submodule_search_locations or []) if found else []:
        libraries = sorted(Path(directory, "capi").glob("libonnxruntime.so*"))
        if libraries:
            return str(libraries[0])
    return None


# Of the memory that may be used, the part that requests and answers may fill; the rest is for models.
_BUFFER_SHARE = 4


def decide_by_machine(settings: Resolved) -> Resolved:
    """Decide what depends on the machine and was not set."""
    memory_bytes = available_memory_bytes()
    reason = f"a quarter of {memory_bytes >> 20} MiB of memory"
    return settings.decide("buffer_bytes", max(1, memory_bytes // _BUFFER_SHARE), reason)


def core_configuration(settings: Resolved) -> dict[str, Any]:
    """The core's configuration as plain values."""
    cpus = available_cpus()
    made = {
        "listen": settings["listen"],
        "reactors": settings["reactors"] or cpus,
        "threads": settings["threads"] or cpus,
        "worker_command": [sys.executable, "-m", "kingpole.worker"],
        "worker_environment": {},
        "control": settings["control_mode"],
        "onnxruntime_library": settings["onnxruntime_library"] or find_onnxruntime_library(),
    }
    for name in (
        "buffer_bytes",
        "client_shared_memory",
        "cors_origin",
        "default_model",
        "execute_limit_seconds",
        "grpc_header_forward_pattern",
        "http_header_forward_pattern",
        "inline_limit_us",
        "load_limit_seconds",
        "max_body_bytes",
        "queue_bytes",
        "shared_memory_prefix",
        "stream_dialect",
        "tls_certificate",
        "trace_file",
        "tls_key",
    ):
        made[name] = settings[name]
    return made


def _check_paths(settings: Resolved) -> list[Path]:
    if not settings["path"]:
        raise CommandError("nothing to serve: give a PATH to a model or a repository", USAGE)
    paths = [Path(path) for path in settings["path"]]
    found = 0
    for path in paths:
        found += _count_models(path)
    if not found and settings["control_mode"] == "none":
        raise CommandError(
            f"no model in {', '.join(map(str, paths))}: expected an .onnx file, or directories with"
            " model.onnx, model.py, config.pbtxt or model.yaml",
            USAGE,
        )
    return paths


def _count_models(path: Path) -> int:
    try:
        return len(scan(path))
    except (OSError, RepositoryError) as error:
        raise CommandError(f"{path}: {reason_of(error)}", USAGE) from error


def _make_core(settings: Resolved) -> Server:
    # Read by the extension's allocator when it is loaded. Huge pages make every idle connection resident
    # as a whole: 5,000 of them cost 158 MB with them and 75 MB without (docs/adr/0010).
    os.environ.setdefault("MIMALLOC_ALLOW_THP", "0")
    try:
        from kingpole import _core
    except ImportError as error:
        raise CommandError(f"the compiled part of Kingpole is missing: {error}", NOT_STARTED) from error
    try:
        return _core.Server(json.dumps(core_configuration(settings)).encode())
    except _core.CoreError as error:
        raise CommandError(reason_of(error), NOT_STARTED) from error


async def _run(
    settings: Resolved, core: Server, addresses: list[str], paths: list[Path], started: float
) -> int:
    stopping = _stop_on_signals()
    log = Log(lambda: json.loads(core.log_settings()))
    lifecycle = Lifecycle(
        core,
        paths,
        mode=settings["control_mode"],
        load_models=settings["load_model"],
        worker=settings["worker"] if settings["worker"] != "auto" else None,
        report=log.info,
        warn=log.error,
        detail=log.verbose,
    )
    scheme = "https" if settings["tls_certificate"] else "http"
    urls = [each if each.startswith("unix:") else f"{scheme}://{each}" for each in addresses]
    runner, management = await _listen_management(settings, core, lifecycle, urls)
    log.info(f"kingpole {__version__} listens on {', '.join(urls)} (HTTP, gRPC)")
    if management:
        log.info(
            f"management on {management} (what is served: {management}/docs, metrics: {management}/metrics)"
        )
    background = [
        asyncio.create_task(_load(lifecycle, settings, log, started), name="load"),
        asyncio.create_task(lifecycle.serve_controls(), name="controls"),
    ]
    stop_wait = asyncio.create_task(stopping.wait())
    failed: BaseException | None = None
    # The tasks never end by themselves: one that does has failed, and the server with it.
    waiting = {*background, stop_wait}
    while not stopping.is_set() and failed is None:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        failed = next((each.exception() for each in done if each is not stop_wait and each.exception()), None)
    if failed is None:
        log.info("draining")
    else:
        log.error(f"stopping: {type(failed).__name__}: {failed}")
    core.drain()
    ending: list[asyncio.Task[Any]] = [*background, stop_wait]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
    finished = await asyncio.to_thread(core.stop, settings["drain_seconds"] * 1000)
    await lifecycle.close()
    if runner is not None:
        await runner.cleanup()
    if finished:
        log.info("stopped")
    else:
        log.warning(f"stopped; some requests took more than {settings['drain_seconds']} s")
    if failed is not None:
        return NOT_STARTED
    return SUCCESS


async def _load(lifecycle: Lifecycle, settings: Resolved, log: Log, started: float) -> None:
    await lifecycle.start()
    say = log.info if lifecycle.ready else log.error
    say(_summary(lifecycle, started))
    while settings["control_mode"] == "poll":
        await asyncio.sleep(settings["poll_seconds"])
        try:
            await lifecycle.poll()
        except OSError as error:
            # A repository on a network may be away for a while; what is served stays.
            log.error(f"cannot look at the repository: {reason_of(error)}")


def _summary(lifecycle: Lifecycle, started: float) -> str:
    versions = lifecycle.versions()
    served = [entry for entry in versions if entry.state == "READY"]
    took = f"{time.monotonic() - started:.1f} s after the start"
    if lifecycle.ready:
        return f"ready, {len(served)} of {len(versions)} served, {took}"
    broken = sorted({entry.name for entry in versions if entry.state != "READY"})
    return f"not ready: {', '.join(broken)} cannot be served ({len(served)} of {len(versions)} are, {took})"


async def _listen_management(
    settings: Resolved, core: Server, lifecycle: Lifecycle, urls: list[str]
) -> tuple[Any, str]:
    address = settings["management"]
    if address == "off":
        return None, ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise CommandError(f"management: expected HOST:PORT or off, got '{address}'", USAGE)
    from kingpole.management import is_local, listen, make_application

    local = is_local(host)
    if not local and not settings["management_public"]:
        raise CommandError(
            f"management on {host} would let anyone load models; --management-public allows it", USAGE
        )
    try:
        application = make_application(core, lifecycle, main=urls, local=local)
        return await listen(application, host.strip("[]"), int(port))
    except OSError as error:
        raise CommandError(
            f"cannot listen on {address} (management): {error.strerror}", NOT_STARTED
        ) from error


def _stop_on_signals() -> asyncio.Event:
    """An event that the first signal sets; the second ends the process at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            # Workers see their sockets close and end too.
            os._exit(INTERRUPTED)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopping
