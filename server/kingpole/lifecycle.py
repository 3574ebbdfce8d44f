"""The life of models: found, loaded, reloaded, unloaded, and how ready the server is.

Knows the repository and the core's few calls; may not know protocols or frameworks. The
core is an argument, so tests can watch what it is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kingpole.configuration import ConfigurationError, ModelConfiguration
from kingpole.core_calls import Core
from kingpole.opening import describe, open_and_serve, reason_of
from kingpole.pipelines import asked_by, concerned, in_rounds
from kingpole.repository import Artifact, Broken, Files, RepositoryError, Upload, check_name, scan
from kingpole.repository.triton import read_override

LOAD_CONCURRENCY = 4
"""Models loaded at once. Source: Triton's `--model-load-thread-count`."""

_CONTROL_WAIT_MS = 250
_MAX_ANSWERING = 64
_NOT_ALLOWED = "explicit model load / unload is not allowed if polling is enabled"

Override = tuple[ModelConfiguration, list[str]]


@dataclass
class Version:
    """One version of a model and where it is in its life; its specification once it is served."""

    name: str
    version: str | None
    state: str = "UNKNOWN"
    reason: str = ""
    handle: int | None = None
    artifact: Artifact | None = None
    placed: str = ""
    specification: dict[str, Any] = field(default_factory=dict, repr=False)


class ControlError(Exception):
    """A load or unload that failed, with the code for whoever asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Lifecycle:
    """Loads what the repositories hold and keeps the core's picture of it true.

    Promises: a reload serves the new version before the old one is closed, and keeps the
    old one when it fails; a broken model disturbs no other; changes to one model never
    overlap; the server is ready exactly while every expected model is READY; an unloaded
    model takes no request from the moment that its unloading is answered, and files that
    came with a request are removed with the model that was made of them.
    """

    def __init__(
        self,
        core: Core,
        paths: Iterable[Path],
        *,
        mode: str = "none",
        load_models: Iterable[str] = (),
        worker: str | None = None,
        report: Callable[[str], None] = print,
        warn: Callable[[str], None] | None = None,
        detail: Callable[[str], None] | None = None,
    ) -> None:
        """Take what it works on.

        Args:
            core: What serves.
            paths: The repositories.
            mode: `none`, `poll` or `explicit`: who decides what is loaded.
            load_models: In explicit mode, what is loaded at the start; `*` is everything.
            worker: Where models run whose configuration does not say.
            report: Told what happens.
            warn: Told what went wrong; `report` if it is left out.
            detail: Told what is asked of it; nobody if it is left out.
        """
        self._core = core
        self._paths = tuple(paths)
        self._mode = mode
        self._load_models = tuple(load_models)
        self._worker = worker
        self._report = report
        self._warn = warn or report
        self._detail = detail or (lambda _: None)
        self._versions: dict[tuple[str, str | None], Version] = {}
        self._expected: set[str] = set()
        self._changing: dict[str, asyncio.Lock] = {}
        self._loading = asyncio.Semaphore(LOAD_CONCURRENCY)
        self._uploads: dict[str, list[Upload]] = {}
        self._unloading: set[asyncio.Task[None]] = set()
        self._seen: dict[str, object] = {}
        self._loaded_stamps: dict[str, object] = {}
        self._lost_early: dict[int, str] = {}
        self._pipelines: dict[str, list[Artifact | Broken]] = {}

    @property
    def ready(self) -> bool:
        """Whether every expected model is served, in at least one version.

        A version that is loading, or broken, beside one that serves is a rollout and takes no traffic away.
        """
        by_name: dict[str, list[str]] = {}
        for entry in self._versions.values():
            by_name.setdefault(entry.name, []).append(entry.state)
        return all(any(state == "READY" for state in by_name.get(name, ())) for name in self._expected)

    def versions(self) -> list[Version]:
        """Every known version, by name and number."""
        return sorted(self._versions.values(), key=lambda entry: (entry.name, int(entry.version or 0)))

    async def start(self) -> None:
        """Load what is to be there from the start; returns when each is READY or UNAVAILABLE."""
        found = await self._scan()
        if self._mode == "explicit":
            wanted = set(found) if "*" in self._load_models else set(self._load_models)
            for name in found.keys() - wanted:
                self._versions[name, None] = Version(name, None, "UNAVAILABLE", "not loaded")
        else:
            wanted = set(found)
        self._expected = set(wanted)
        self._publish()
        await self._change_all({name: found.get(name, []) for name in wanted})
        self._loaded_stamps = {name: _stamp(entries) for name, entries in found.items()}
        self._seen = dict(self._loaded_stamps)

    async def poll(self) -> None:
        """Look for changes once; a model is reloaded when two looks have seen the same change."""
        found = await self._scan()
        stamps = {name: _stamp(entries) for name, entries in found.items()}
        settled = {name for name, stamp in stamps.items() if self._seen.get(name) == stamp}
        gone = {name for name in self._loaded_stamps if name not in stamps and name not in self._seen}
        self._seen = stamps
        changed = {name for name in settled if self._loaded_stamps.get(name) != stamps[name]}
        for name in changed:
            self._loaded_stamps[name] = stamps[name]
            self._expected.add(name)
        for name in gone:
            del self._loaded_stamps[name]
        await asyncio.gather(
            self._change_all({name: found[name] for name in changed}),
            *(self._unload(name) for name in sorted(gone)),
        )
        await self._look_again(changed)

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None, files: Files = ()) -> None:
        """Load or reload a model because somebody asked.

        Args:
            name: The model.
            parameters: `config` replaces the configuration that is beside the model.
            files: Load these instead of what the repository has; they need a `config`.

        Raises:
            ControlError: With the code and the reason.
        """
        self._detail(f"asked to load {name!r} with {sorted(parameters or ())} and {len(files)} files")
        self._allow_control()
        upload: Upload | None = None
        try:
            override = _read_load(check_name(name), parameters or {}, files)
            if files:
                upload = await asyncio.to_thread(Upload, name, files)
        except (ConfigurationError, RepositoryError) as error:
            raise ControlError("INVALID_ARGUMENT", str(error)) from error
        except OSError as error:
            raise ControlError(
                "FAILED_PRECONDITION", f"failed to load '{name}': {reason_of(error)}"
            ) from error
        found: list[Artifact | Broken] | None = None
        try:
            found = (await self._scan(name, override, (upload.root,) if upload else self._paths)).get(name)
        except (OSError, RepositoryError) as error:
            # Where the repository lies is the operator's business.
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            raise ControlError(
                "FAILED_PRECONDITION", f"failed to load '{name}': the repository cannot be read: {why}"
            ) from error
        finally:
            if upload is not None and not found:
                await asyncio.to_thread(upload.remove)
        if not found:
            raise ControlError("NOT_FOUND", f"failed to load '{name}': the repository has no such model")
        await self._load_asked(found)
        reason = await self._change(name, found, upload)
        if reason is None:
            await self._look_again({name})
        if reason is not None:
            raise ControlError("FAILED_PRECONDITION", f"failed to load '{name}': {reason}")
        self._expected.add(name)
        self._publish()

    async def unload(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Unload a model because somebody asked; one that is not loaded is no error.

        Returns once no further request is admitted. Those that were go on, and then the model's memory is
        given back; until then its state is UNLOADING.

        Args:
            name: The model.
            parameters: `unload_dependents`: of a pipeline, also unload the models that it asks.

        Raises:
            ControlError: When this server does not take such requests.
        """
        self._detail(f"asked to unload {name!r}")
        self._allow_control()
        for key, value in (parameters or {}).items():
            if key != "unload_dependents":
                raise ControlError(
                    "INVALID_ARGUMENT", f"unknown unload parameter '{key}', expected 'unload_dependents'"
                )
            if not isinstance(value, bool):
                raise ControlError("INVALID_ARGUMENT", f"parameter '{key}' must be true or false")
        if name not in self._changing:
            # Never heard of: whoever makes names up leaves nothing behind.
            return
        asked = asked_by(self._pipelines.get(name, ())) if (parameters or {}).get("unload_dependents") else ()
        await self._begin_unloading(name)
        for each in sorted(asked):
            await self.unload(each, parameters)

    async def close(self) -> None:
        """Finish what is being unloaded, and remove the files that came with requests."""
        await asyncio.gather(*self._unloading, return_exceptions=True)
        for uploads in self._uploads.values():
            for upload in uploads:
                await asyncio.to_thread(upload.remove)
        self._uploads.clear()

    async def serve_controls(self) -> None:
        """Answer the load and unload requests that came in by the inference protocols, until cancelled.

        Also loads models again that were lost with their worker.
        """
        answering: set[asyncio.Task[None]] = set()
        while True:
            if len(answering) >= _MAX_ANSWERING:
                # More wait in the core, which refuses what passes its own limit.
                await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED)
            request = await asyncio.to_thread(self._core.next_control, _CONTROL_WAIT_MS)
            if request is None:
                continue
            told = json.loads(request)
            answer = (
                self._recover(told["handle"], told["reason"])
                if told["action"] == "lost"
                else self._answer(told)
            )
            task = asyncio.create_task(answer)
            answering.add(task)
            task.add_done_callback(answering.discard)

    async def _recover(self, handle: int, reason: str) -> None:
        """Say that a version is gone with its worker, and load it once more from its files."""
        lost = next((entry for entry in self._versions.values() if entry.handle == handle), None)
        if lost is None or lost.artifact is None:
            # It is being served just now: whoever does so looks here.
            self._lost_early[handle] = reason
            return
        async with self._changing.setdefault(lost.name, asyncio.Lock()):
            if lost.handle != handle:
                # It was reloaded, unloaded or removed meanwhile.
                return
            lost.state, lost.reason = "UNAVAILABLE", reason
            self._publish()
            self._warn(f"{lost.name}: version {lost.version} is lost: {reason}")
            await self._close(lost)
            await self._load_version(lost.artifact)

    async def _answer(self, request: dict[str, Any]) -> None:
        code, message = None, ""
        try:
            if request["action"] == "load":
                files: Files = ()
                if request.get("files"):
                    files = await asyncio.to_thread(self._core.take_files, request["token"])
                await self.load(request["model"], request.get("parameters"), files)
            else:
                await self.unload(request["model"], request.get("parameters"))
        except ControlError as error:
            code, message = error.code, str(error)
        except Exception as error:  # noqa: BLE001 - whoever asked is waiting and must be answered
            code, message = "INTERNAL", f"{type(error).__name__}: {error}"
        self._core.complete_control(request["token"], code, message)

    def _allow_control(self) -> None:
        if self._mode != "explicit":
            raise ControlError("UNAVAILABLE", _NOT_ALLOWED)

    async def _scan(
        self, only: str | None = None, override: Override | None = None, paths: Iterable[Path] | None = None
    ) -> dict[str, list[Artifact | Broken]]:
        """Everything found, by model; a name that is in two places is broken."""
        found: dict[str, list[Artifact | Broken]] = {}
        for path in self._paths if paths is None else paths:
            here: dict[str, list[Artifact | Broken]] = {}
            for each in await asyncio.to_thread(scan, path, override, only):
                here.setdefault(each.name, []).append(each)
            for name, entries in here.items():
                if name in found:
                    found[name] = [Broken(name, f"'{name}' is there twice, also in {path}")]
                else:
                    found[name] = entries
        return found

    async def _change(
        self, name: str, found: list[Artifact | Broken], upload: Upload | None = None
    ) -> str | None:
        """Bring a model to what was found; gives the reason when a version could not be loaded."""
        async with self._changing.setdefault(name, asyncio.Lock()):
            if upload is not None:
                self._uploads.setdefault(name, []).append(upload)
            try:
                return await self._bring(name, found)
            finally:
                await self._tidy(name)

    async def _change_all(self, found: Mapping[str, list[Artifact | Broken]]) -> None:
        """Bring models to what was found, pipelines after the models that they ask."""
        for names in in_rounds(found):
            await asyncio.gather(*(self._change(name, found[name]) for name in names))

    async def _look_again(self, changed: set[str]) -> None:
        """Check the pipelines that ask these models again: what was missing may be there, or fit no more."""
        for name in concerned(self._pipelines, changed):
            await self._change(name, self._pipelines[name])

    async def _load_asked(self, found: list[Artifact | Broken]) -> None:
        """Load what a pipeline asks and is not served yet, as Triton does. Its check tells what is absent."""
        served = {entry.name for entry in self._versions.values() if entry.state == "READY"}
        asked = asked_by(found) - served
        there = await self._scan() if asked else {}
        wanted: dict[str, list[Artifact | Broken]] = {}
        while asked:
            new = {name: there[name] for name in asked & there.keys()}
            wanted.update(new)
            asked = {each for entries in new.values() for each in asked_by(entries)} - served - wanted.keys()
        await self._change_all(wanted)
        self._expected |= wanted.keys()

    async def _bring(self, name: str, found: list[Artifact | Broken]) -> str | None:
        broken = next((each.reason for each in found if isinstance(each, Broken)), None)
        artifacts = [each for each in found if isinstance(each, Artifact)]
        self._pipelines.pop(name, None)
        if asked_by(found):
            self._pipelines[name] = found
        if not found:
            broken = "there is no model of this name in the repository"
        elif not artifacts and broken is None:
            broken = "there is no version to serve"
        if broken is not None:
            self._fail(name, None, broken)
            return broken
        reasons = await asyncio.gather(*(self._load_version(artifact) for artifact in artifacts))
        reason = next((each for each in reasons if each), None)
        if reason is None:
            wanted = {artifact.version for artifact in artifacts}
            others = [
                entry
                for entry in self._versions.values()
                if entry.name == name and entry.version not in wanted
            ]
            for entry in others:
                await self._close(entry)
                del self._versions[name, entry.version]
        self._publish()
        return reason

    async def _tidy(self, name: str) -> None:
        """Remove the files of earlier requests that nothing of a model is made of any more."""
        in_use = [
            entry.artifact.directory
            for entry in self._versions.values()
            if entry.name == name and entry.handle is not None and entry.artifact is not None
        ]
        kept = []
        for upload in self._uploads.pop(name, []):
            if any(upload.holds(directory) for directory in in_use):
                kept.append(upload)
            else:
                await asyncio.to_thread(upload.remove)
        if kept:
            self._uploads[name] = kept

    async def _load_version(self, artifact: Artifact) -> str | None:
        key = (artifact.name, artifact.version)
        old = self._versions.get(key)
        if old is None or old.state != "READY":
            self._versions.pop((artifact.name, None), None)
            self._versions[key] = Version(*key, "LOADING")
            self._publish()
        async with self._loading:
            try:
                handle, opened, served = await asyncio.to_thread(
                    open_and_serve, self._core, artifact, self._worker
                )
            except Exception as error:  # noqa: BLE001 - whatever it was is the reason
                reason = reason_of(error)
                self._fail(artifact.name, artifact.version, reason)
                return reason
        if (lost := self._lost_early.pop(handle, None)) is not None:
            await asyncio.to_thread(self._core.close, handle)
            self._fail(artifact.name, artifact.version, lost)
            return lost
        self._versions[key] = Version(*key, "READY", "", handle, artifact, served["placed"], opened)
        self._publish()
        for line in describe(artifact, opened, served):
            self._report(line)
        if old is not None and old.handle is not None:
            await asyncio.to_thread(self._core.close, old.handle)
        return None

    def _fail(self, name: str, version: str | None, reason: str) -> None:
        current = [
            entry
            for entry in self._versions.values()
            if entry.name == name and version in (None, entry.version) and entry.state == "READY"
        ]
        if current:
            line = f"{name}: reload failed, version {current[-1].version} stays: {reason}"
        else:
            if version is None:
                self._versions = {key: entry for key, entry in self._versions.items() if key[0] != name}
            self._versions[name, version] = Version(name, version, "UNAVAILABLE", reason)
            line = f"{name}: cannot be served: {reason}"
        # Whoever reads the line finds the core knowing it.
        self._publish()
        self._warn(line)

    async def _unload(self, name: str) -> None:
        await (await self._begin_unloading(name))

    async def _begin_unloading(self, name: str) -> asyncio.Task[None]:
        """Admit no more requests for a model; gives the task that does the rest."""
        lock = self._changing.setdefault(name, asyncio.Lock())
        # Given back by the task, so that no other change comes between.
        await lock.acquire()
        try:
            entries = await self._withdraw(name)
            task = asyncio.create_task(self._finish_unloading(name, entries, lock))
        except BaseException:
            lock.release()
            raise
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)
        return task

    async def _withdraw(self, name: str) -> list[Version]:
        """Admit no more requests for a model; gives its versions. Its lock is held."""
        self._expected.discard(name)
        self._pipelines.pop(name, None)
        entries = [entry for entry in self._versions.values() if entry.name == name]
        for entry in entries:
            entry.state, entry.reason = "UNLOADING", ""
        # Before: a request must not find that nobody has ever heard of the model.
        self._publish()
        for entry in entries:
            if entry.handle is not None:
                await asyncio.to_thread(self._core.withdraw, entry.handle)
        return entries

    async def _finish_unloading(self, name: str, entries: list[Version], lock: asyncio.Lock) -> None:
        """Let a model's requests end and give back what it took, and then its lock."""
        try:
            for entry in entries:
                await self._close(entry)
                entry.state, entry.reason = "UNAVAILABLE", "unloaded"
            await self._tidy(name)
            self._publish()
            if entries:
                self._report(f"{name}: unloaded")
        finally:
            lock.release()

    async def _close(self, entry: Version) -> None:
        handle, entry.handle = entry.handle, None
        if handle is not None:
            await asyncio.to_thread(self._core.close, handle)

    def _publish(self) -> None:
        """Tell the core what it does not serve, and whether all is as expected."""
        rows = [
            [entry.name, entry.version, entry.state, entry.reason]
            for entry in self.versions()
            if entry.state != "READY"
        ]
        self._core.set_index(json.dumps(rows).encode())
        self._core.set_expected(self.ready)


def _read_load(name: str, parameters: Mapping[str, Any], files: Files) -> Override | None:
    """The configuration that came with a load, if one did."""
    for key in parameters:
        if key != "config":
            raise ConfigurationError(
                f"unknown load parameter '{key}', expected 'config' or 'file:<version>/<path>'"
            )
    if "config" in parameters:
        return read_override(str(parameters["config"]))
    if files:
        raise ConfigurationError(f"files of '{name}' came without their 'config'")
    return None


def _stamp(entries: list[Artifact | Broken]) -> object:
    return tuple(
        (each.version, each.stamp) if isinstance(each, Artifact) else each.reason for each in entries
    )
