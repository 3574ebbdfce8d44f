"""Every HTTP route, on both ports: the one place that says so in Python.

The management listener makes its routes of this table. Those of the main port are answered by the frontends
in Rust; a test asks a running server for each row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kingpole.openapi import migration_schemas, schemas
from kingpole.openapi.migration import TAGS as MIGRATION_TAGS
from kingpole.openapi.migration import migration
from kingpole.openapi.routes import (
    BYTES,
    EVENTS,
    FRAME,
    FRAMES,
    JSON,
    OCTETS,
    TEXT,
    Answer,
    AnyOf,
    Bodies,
    Route,
    errors,
)

TAGS = {
    "Open Inference": "Asking models: the Open Inference Protocol v2 with binary tensors.",
    "Repository": "Which models there are; loading and unloading, when the server runs with"
    " `--control-mode explicit`.",
    "Shared memory": "Named regions of memory that clients on the same machine share, when the server runs"
    " with `--client-shared-memory`. CUDA regions are not offered.",
    "Settings": "What is logged and traced: Triton's extensions.",
    "Frame": "Kingpole's own format, one frame per body: what `kingpole_client` sends.",
    "GraphPipe": "What GraphPipe's clients send, unchanged.",
    **MIGRATION_TAGS,
    "Management": "For operators, on a port of its own.",
}

_ERROR: Bodies = {JSON: schemas.Error}
_INFER_ERRORS = (400, 404, 413, 415, 429, 499, 500, 501, 503, 504)
_BODY_ERRORS = (400, 413, 415, 429, 499, 504)
_CODED_INFER_ERRORS = (400, 404, 406, *_INFER_ERRORS[2:])
_CODED = ("Content-Encoding", "Vary")
_INFER_HEADERS = ("Inference-Header-Content-Length", "kingpole-timeout-us", "kingpole-timing")
_INFER_ANSWER = Answer(
    "The outputs; with `application/octet-stream`, JSON of the length in the header and then their bytes.",
    {JSON: schemas.InferResponse, OCTETS: BYTES},
    ("Inference-Header-Content-Length", "Server-Timing", *_CODED),
)


_GENERATE: dict[str, Any] = {
    "tag": "Open Inference",
    "methods": ("post",),
    "description": "Fields that name an input are its elements; `parameters` and all other fields but `id`"
    " are parameters.",
    "request": {JSON: schemas.Generate},
    "headers": ("kingpole-timeout-us",),
}


def _ok(description: str, kind: Any) -> Answer:
    return Answer(description, {JSON: kind})


def _of_versions(route: Route) -> tuple[Route, Route]:
    """A route of a model, and the same of one of its versions."""
    action = route.path.partition("{model}")[2]
    versioned = f"/v2/models/{{model}}/versions/{{version}}{action}"
    return route, replace(route, path=versioned, operation=f"{route.operation}Version")


def _open_inference() -> tuple[Route, ...]:
    tag: dict[str, Any] = {"tag": "Open Inference", "methods": ("get",)}
    unknown = errors(_ERROR, 404, 503)
    return (
        Route(
            path="/v2",
            operation="serverMetadata",
            summary="Who the server is",
            **tag,
            answers={200: _ok("The server.", schemas.ServerMetadata)},
        ),
        Route(
            path="/v2/health/live",
            operation="serverLive",
            summary="Whether the server answers",
            **tag,
            answers={200: _ok("It does.", schemas.Live), 503: _ok("It is ending.", schemas.Live)},
        ),
        Route(
            path="/v2/health/ready",
            operation="serverReady",
            summary="Whether every model is served",
            **tag,
            answers={200: _ok("Ready.", schemas.Ready), 503: _ok("Not ready.", schemas.Ready)},
        ),
        Route(
            path="/v2/models",
            operation="models",
            summary="The models that are ready",
            **tag,
            answers={200: _ok("Their names.", schemas.Models)},
        ),
        Route(
            path="/v2/models/stats",
            operation="statistics",
            summary="What every model has done",
            **tag,
            answers={200: _ok("One row for each version.", schemas.Statistics)},
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}",
                operation="modelMetadata",
                summary="What a model takes and gives",
                **tag,
                answers={200: _ok("The model.", schemas.ModelMetadata), **unknown},
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/ready",
                operation="modelReady",
                summary="Whether a model can infer",
                **tag,
                answers={
                    200: _ok("It can.", schemas.ModelReady),
                    **errors(_ERROR, 404),
                    503: _ok("Not now.", schemas.ModelReady),
                },
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/config",
                operation="modelConfiguration",
                **tag,
                summary="A model's configuration",
                answers={200: _ok("As Triton writes it.", schemas.ModelConfiguration), **unknown},
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/stats",
                operation="modelStatistics",
                summary="What a model has done",
                **tag,
                answers={200: _ok("One row for each version.", schemas.Statistics), **unknown},
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/infer",
                operation="infer",
                tag="Open Inference",
                methods=("post",),
                summary="Infer",
                description="With binary tensors, the JSON comes first and the header says how long it is."
                " The content type is not looked at.",
                request={JSON: schemas.InferRequest, OCTETS: BYTES},
                headers=_INFER_HEADERS,
                answers={200: _INFER_ANSWER, **errors(_ERROR, *_CODED_INFER_ERRORS)},
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/generate",
                operation="generate",
                summary="Infer, with plain fields",
                **_GENERATE,
                answers={
                    200: _ok("The outputs as fields; of one element bare.", schemas.Generated),
                    **errors(_ERROR, *_INFER_ERRORS),
                },
            )
        ),
        *_of_versions(
            Route(
                path="/v2/models/{model}/generate_stream",
                operation="generateStream",
                summary="Infer, with plain fields, any number of responses",
                **_GENERATE,
                answers={
                    200: Answer(
                        "An event for each response, with the same object as its data; an event `error` if"
                        " something fails after the first.",
                        {EVENTS: str},
                    ),
                    **errors(_ERROR, *_INFER_ERRORS),
                },
            )
        ),
    )


def _repository() -> tuple[Route, ...]:
    change: dict[str, Any] = {
        "tag": "Repository",
        "methods": ("post",),
        "request": {JSON: schemas.RepositoryParameters},
        "is_request_required": False,
    }
    index, load, unload = (
        Route(
            path="/v2/repository/index",
            methods=("post",),
            operation="repositoryIndex",
            tag="Repository",
            summary="Every model and version, and its state",
            request={JSON: schemas.IndexQuestion},
            is_request_required=False,
            answers={200: _ok("The index.", list[schemas.IndexRow]), **errors(_ERROR, *_BODY_ERRORS)},
        ),
        Route(
            path="/v2/repository/models/{model}/load",
            operation="repositoryModelLoad",
            **change,
            summary="Load or reload a model; answered when it is served",
            answers={
                200: _ok("It is served.", schemas.Empty),
                **errors(_ERROR, *_BODY_ERRORS, 404, 409, 500, 503),
            },
        ),
        Route(
            path="/v2/repository/models/{model}/unload",
            operation="repositoryModelUnload",
            **change,
            summary="Unload a model; answered when it takes no more requests",
            answers={200: _ok("It is going.", schemas.Empty), **errors(_ERROR, *_BODY_ERRORS, 500, 503)},
        ),
    )
    return index, load, unload, *_of_named_repository(index, load, unload)


def _of_named_repository(index: Route, load: Route, unload: Route) -> tuple[Route, ...]:
    """The same where a repository is named: its name says nothing here, and changes are refused."""

    def named(route: Route, **changed: Any) -> Route:
        path = route.path.replace("/v2/repository/", "/v2/repository/{repository}/")
        return replace(route, path=path, operation=f"{route.operation}Named", **changed)

    refused = errors(_ERROR, *_BODY_ERRORS, 501)
    return named(index), named(load, answers=refused), named(unload, answers=refused)


def _settings() -> tuple[Route, ...]:
    rows = []
    for path, operation, summary, told, change, unknown in (
        ("/v2/logging", "LogSettings", "what is logged", schemas.LogSettings, schemas.LogChanges, ()),
        (
            "/v2/trace/setting",
            "TraceSettings",
            "what is traced",
            schemas.TraceSettings,
            schemas.TraceChanges,
            (),
        ),
        (
            "/v2/models/{model}/trace/setting",
            "ModelTraceSettings",
            "what is traced of a model",
            schemas.TraceSettings,
            schemas.TraceChanges,
            (404, 503),
        ),
    ):
        common: dict[str, Any] = {"path": path, "tag": "Settings"}
        answer = {200: _ok("The settings.", told)}
        rows += [
            Route(
                **common,
                methods=("get",),
                operation=f"get{operation}",
                summary=f"Tell {summary}",
                answers={**answer, **errors(_ERROR, *unknown)},
            ),
            Route(
                **common,
                methods=("post",),
                operation=f"set{operation}",
                summary=f"Set {summary}",
                request={JSON: change},
                is_request_required=False,
                answers={**answer, **errors(_ERROR, *_BODY_ERRORS, *unknown, 501)},
            ),
        ]
    return tuple(rows)


def _shared_memory() -> tuple[Route, ...]:
    missing = {404: Answer("There is no such region.", _ERROR)}
    refused = {403: Answer("The key is not one that clients may name.", _ERROR)}
    system, cuda = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
    found = _ok("A row for each region.", list[schemas.SharedMemoryRegion])
    none = _ok("There never are any.", list[schemas.SharedMemoryRegion])
    gone = _ok("It is gone, or never was.", schemas.Empty)
    off = errors(_ERROR, 501)

    def route(path: str, operation: str, summary: str, answers: dict[int, Answer], **more: Any) -> Route:
        reads = operation.endswith("Status")
        return Route(
            path=path, operation=operation, tag="Shared memory", methods=("get",) if reads else ("post",),
            summary=summary, answers=answers, **more,
        )  # fmt: skip

    def register(path: str, operation: str, answers: dict[int, Answer], **more: Any) -> Route:
        answers = {**errors(_ERROR, *_BODY_ERRORS), **off, **answers}
        return route(f"{path}/region/{{region}}/register", operation, "Register a region", answers, **more)

    registered = _ok("It is registered.", schemas.Empty)
    one = "/region/{region}"
    return (
        route(f"{system}/status", "systemRegionsStatus", "Every region", {200: found, **off}),
        route(f"{system}{one}/status", "systemRegionStatus", "One region", {200: found, **missing, **off}),
        register(
            system,
            "systemRegionRegister",
            {200: registered, **refused},
            request={JSON: schemas.RegionRegistration},
        ),
        route(f"{system}{one}/unregister", "systemRegionUnregister", "Forget a region", {200: gone, **off}),
        route(f"{system}/unregister", "systemRegionsUnregister", "Forget every region", {200: gone, **off}),
        route(f"{cuda}/status", "cudaRegionsStatus", "Every CUDA region", {200: none}),
        route(f"{cuda}{one}/status", "cudaRegionStatus", "One CUDA region", missing),
        register(cuda, "cudaRegionRegister", {}, request={JSON: dict[str, Any]}, is_request_required=False),
        route(f"{cuda}{one}/unregister", "cudaRegionUnregister", "Forget a CUDA region", {200: gone}),
        route(f"{cuda}/unregister", "cudaRegionsUnregister", "Forget every CUDA region", {200: gone}),
    )


def _frame() -> Route:
    kind: Bodies = {FRAME: BYTES}
    answers = {
        200: Answer(
            "A Response frame; with `Accept: application/x-kingpole-stream` all there are, as they are made.",
            {FRAME: BYTES, FRAMES: BYTES},
        ),
        **errors(kind, *_INFER_ERRORS),
        415: Answer("The content type says that it is no frame.", _ERROR),
    }
    return Route(
        path="/v1/infer",
        methods=("post",),
        operation="inferFrame",
        tag="Frame",
        summary="Infer, frame to frame",
        description="A frame may be sent to any path; its content type decides. Errors are frames too, with"
        " the status of their code.",
        request=kind,
        headers=("kingpole-timeout-us",),
        answers=answers,
    )


def _graphpipe() -> tuple[Route, ...]:
    kind: Bodies = {TEXT: str}
    paths = {
        "/": "Default",
        "/{model}": "",
        "/models/{model}": "Models",
        "/models/{model}/versions/{version}": "Version",
    }
    # KServe V1 asks there whether the server is alive, which it is without a default model, too.
    root = AnyOf(migration_schemas.RootMetadata, migration_schemas.RootStatus)
    rows = []
    for path, suffix in paths.items():
        described = {200: _ok("The model.", schemas.GraphpipeMetadata), **errors(kind, 404, 503)}
        rows.append(
            Route(
                path=path,
                methods=("get",),
                operation=f"graphpipeMetadata{suffix}",
                tag="GraphPipe",
                summary="What a model takes and gives",
                answers={200: _ok("Alive, with the model or without.", root)} if path == "/" else described,
            )
        )
        rows.append(
            Route(
                path=path,
                methods=("post", "put"),
                operation=f"graphpipeInfer{suffix}",
                tag="GraphPipe",
                summary="Infer",
                request={OCTETS: BYTES},
                headers=("kingpole-timeout-us",),
                answers={
                    200: Answer(
                        "The outputs.",
                        {OCTETS: BYTES},
                        _CODED,
                    ),
                    **errors(kind, *_CODED_INFER_ERRORS),
                },
            )
        )
    controls = (
        Route(
            path=f"/control/is_{what}",
            methods=("get",),
            operation=f"graphpipe{what.title()}",
            tag="GraphPipe",
            summary=f"Whether the server is {what}",
            answers={200: Answer("It is.", kind), 503: Answer("It is not.", kind)},
        )
        for what in ("alive", "ready")
    )
    clients = Route(
        path="/control/client_count",
        methods=("get",),
        operation="graphpipeClients",
        tag="GraphPipe",
        summary="How many connections are open",
        answers={200: Answer("Their number.", kind)},
    )
    return (*rows, *controls, clients)


def _management() -> tuple[Route, ...]:
    common: dict[str, Any] = {"tag": "Management", "port": "management"}
    refused = errors(_ERROR, 403)
    change: dict[str, Any] = {"methods": ("post",), **common}
    change_errors = {**refused, **errors(_ERROR, 400, 404, 409, 503)}
    get: dict[str, Any] = {"methods": ("get",), **common}
    too_long = {413: Answer("The body is larger than 1 MiB.", {TEXT: str})}
    return (
        Route(
            path="/metrics",
            operation="metrics",
            summary="Everything counted, for Prometheus",
            **get,
            answers={200: Answer("Version 0.0.4 of the text format.", {TEXT: str}), **refused},
        ),
        Route(
            path="/healthz",
            operation="health",
            summary="Whether every model is served",
            **get,
            answers={200: _ok("Ready.", schemas.Ready), 503: _ok("Not ready.", schemas.Ready), **refused},
        ),
        Route(
            path="/repository",
            operation="managedIndex",
            summary="Every version, where it runs",
            **get,
            answers={200: _ok("One row for each.", list[schemas.ManagedVersion]), **refused},
        ),
        Route(
            path="/statistics",
            operation="managedStatistics",
            summary="What every version has done",
            **get,
            answers={200: _ok("One row for each.", list[schemas.ManagedStatistics]), **refused},
        ),
        Route(
            path="/repository/{model}/load",
            operation="managedLoad",
            summary="Load or reload a model",
            request={JSON: schemas.RepositoryParameters},
            is_request_required=False,
            **change,
            answers={200: _ok("It is served.", schemas.Empty), **change_errors, **too_long},
        ),
        Route(
            path="/repository/{model}/unload",
            operation="managedUnload",
            summary="Unload a model",
            **change,
            answers={200: _ok("It is gone.", schemas.Empty), **change_errors},
        ),
        Route(
            path="/openapi.json",
            operation="openapi",
            summary="This document, with the models served",
            **get,
            answers={200: _ok("OpenAPI 3.1.", dict[str, Any]), **refused},
        ),
        Route(
            path="/docs",
            operation="docs",
            summary="The models and the routes, as a page to read",
            **get,
            answers={200: Answer("The page.", {"text/html": str}), **refused},
        ),
        Route(
            path="/examples/{model}/{version}",
            operation="example",
            **get,
            summary="A request that this version answers",
            answers={
                200: _ok("To be sent to infer.", schemas.InferRequest),
                **refused,
                **errors(_ERROR, 404),
            },
        ),
    )


ROUTES: tuple[Route, ...] = (
    *_open_inference(),
    *_repository(),
    *_shared_memory(),
    *_settings(),
    _frame(),
    *_graphpipe(),
    *migration(),
    *_management(),
)
