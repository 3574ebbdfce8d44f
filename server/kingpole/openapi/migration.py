"""The routes of other servers, on the main port: TensorFlow Serving, KServe V1, SageMaker, MLflow.

What they mean is in protocol/spec/migration.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kingpole.openapi import migration_schemas as schemas
from kingpole.openapi.routes import (
    BYTES,
    JSON,
    OCTETS,
    SAGEMAKER_BINARY,
    TEXT,
    Answer,
    AnyOf,
    Bodies,
    Route,
    errors,
)
from kingpole.openapi.schemas import Empty, Error, InferRequest, InferResponse

TENSORFLOW, KSERVE, SAGEMAKER = "TensorFlow Serving", "KServe V1", "SageMaker and MLflow"
TAGS = {
    TENSORFLOW: "What clients of TensorFlow Serving send over REST; KServe V1's share `:predict` and the"
    " model's status.",
    KSERVE: "What else clients of KServe's first protocol send.",
    SAGEMAKER: "What both call an invocation, their health checks, and SageMaker's multi-model endpoints.",
}

_NPY = "application/x-npy"
_ERROR: Bodies = {JSON: Error}
# A GraphPipe client's body is answered as GraphPipe's.
_ERROR_OR_TEXT: Bodies = {JSON: Error, TEXT: str}
_BODY_ERRORS = (400, 413, 415, 429, 499, 504)
_INFER_ERRORS = (*_BODY_ERRORS, 404, 500, 503)


def _ok(description: str, kind: Any) -> Answer:
    return Answer(description, {JSON: kind})


def migration() -> tuple[Route, ...]:
    """The routes, in the order in which they are shown."""
    return (*_tensorflow(), *_kserve(), *_health(), *_invocations(), *_multi_model())


def _of_versions(route: Route) -> tuple[Route, ...]:
    """A route of a model, and the same of one of its versions under both names for it."""
    action = route.path.partition("{model}")[2]
    return (
        route,
        *(
            replace(
                route,
                path=f"/v1/models/{{model}}/{kind}s/{{{kind}}}{action}",
                operation=f"{route.operation}{kind.title()}",
            )
            for kind in ("version", "label")
        ),
    )


def _asking(verb: str, summary: str, request: Any, answers: dict[int, Answer], **more: Any) -> Route:
    """A POST to a model with a verb behind its name."""
    known: dict[str, Any] = {
        "path": f"/v1/models/{{model}}:{verb}", "methods": ("post",), "tag": TENSORFLOW,
        "operation": f"tensorflow{verb.title()}", "summary": summary, "request": {JSON: request},
        "headers": ("kingpole-timeout-us",), "answers": answers,
    }  # fmt: skip
    return Route(**{**known, **more})


def _tensorflow() -> tuple[Route, ...]:
    get: dict[str, Any] = {"methods": ("get",), "tag": TENSORFLOW}
    predict = _asking(
        "predict",
        "Infer, with rows or with whole tensors",
        AnyOf(schemas.Instances, schemas.Inputs),
        {
            200: Answer(
                "`predictions` for `instances`, `outputs` for `inputs`.",
                {JSON: AnyOf(schemas.Predictions, schemas.Outputs), OCTETS: BYTES},
            ),
            **errors(_ERROR_OR_TEXT, *_INFER_ERRORS),
        },
        description="The content type is not looked at, but for GraphPipe's: its bytes are answered in kind.",
    )
    predict = replace(predict, request={**(predict.request or {}), OCTETS: BYTES})
    asking = (
        predict,
        _asking(
            "classify",
            "Classify rows",
            schemas.Examples,
            {200: _ok("Labels and scores.", schemas.Classifications), **errors(_ERROR, *_INFER_ERRORS)},
        ),
        _asking(
            "regress",
            "Regress rows",
            schemas.Examples,
            {200: _ok("Values.", schemas.Regressions), **errors(_ERROR, *_INFER_ERRORS)},
        ),
    )
    status = Route(
        path="/v1/models/{model}",
        operation="tensorflowStatus",
        summary="The states of a model's versions",
        **get,
        answers={
            200: _ok("A version is served.", schemas.ServableStatus),
            **errors(_ERROR, 404),
            503: _ok("None is served.", schemas.ServableStatus),
        },
    )
    metadata = Route(
        path="/v1/models/{model}/metadata",
        operation="tensorflowMetadata",
        summary="What a model takes and gives",
        **get,
        answers={200: _ok("The model.", schemas.ServableDescription), **errors(_ERROR, 404, 503)},
    )
    return tuple(each for route in (*asking, status, metadata) for each in _of_versions(route))


def _kserve() -> tuple[Route, ...]:
    models = Route(
        path="/v1/models",
        methods=("get",),
        operation="kserveModels",
        tag=KSERVE,
        summary="The models that are served",
        answers={200: _ok("Their names.", schemas.ServableNames)},
    )
    explain = _asking(
        "explain",
        "Not offered",
        AnyOf(schemas.Instances, schemas.Inputs),
        errors(_ERROR, *_BODY_ERRORS, 404, 501, 503),
        tag=KSERVE,
        operation="kserveExplain",
        headers=(),
    )
    return (models, *_of_versions(explain))


def _health() -> tuple[Route, ...]:
    get: dict[str, Any] = {"methods": ("get",), "tag": SAGEMAKER}
    # MLflow calls these JSON, which an empty line is not, nor always a version.
    bodies: Bodies = {JSON: BYTES}
    health = (
        Route(
            path=path,
            operation=operation,
            summary="Whether every model is served",
            **get,
            answers={200: Answer("Ready.", bodies), 503: Answer("Not ready.", bodies)},
        )
        for path, operation in (("/ping", "ping"), ("/health", "mlflowHealth"))
    )
    version = Route(
        path="/version",
        operation="mlflowVersion",
        summary="The server's version",
        **get,
        answers={200: Answer("The bare version.", bodies)},
    )
    return (*health, version)


def _invocations() -> tuple[Route, ...]:
    refused: Bodies = {JSON: schemas.InvocationError, TEXT: str}
    failed = {
        status: replace(answer, name=f"Invocation{status}", headers=(*answer.headers, "x-amzn-errortype"))
        for status, answer in errors(refused, *_INFER_ERRORS).items()
    }
    failed[415] = replace(
        failed[415],
        description="The media type is not listed, or the content coding is not gzip, deflate or none.",
    )
    answer = Answer(
        "As the request was: predictions, Open Inference's outputs, or an array where `Accept` asks for it.",
        {
            JSON: AnyOf(schemas.Predictions, InferResponse),
            _NPY: BYTES,
            SAGEMAKER_BINARY: BYTES,
            OCTETS: BYTES,
        },
    )
    invoke = Route(
        path="/invocations",
        methods=("post",),
        operation="invoke",
        tag=SAGEMAKER,
        summary="Infer with the default model",
        description="Without a media type, as `application/octet-stream` or"
        " `application/x-www-form-urlencoded`, a body is JSON or GraphPipe's. CSV may say `header=present` or"
        " `header=absent`, the binary media type must say `json-header-size`.",
        request={
            JSON: AnyOf(
                schemas.DataframeSplit,
                schemas.DataframeRecords,
                schemas.InvocationInstances,
                schemas.InvocationInputs,
                InferRequest,
            ),
            "text/csv": str,
            _NPY: BYTES,
            SAGEMAKER_BINARY: BYTES,
            OCTETS: BYTES,
        },
        headers=("kingpole-timeout-us", "X-Amzn-SageMaker-Target-Model"),
        answers={200: answer, **failed},
    )
    summary = "Infer with this model"
    return (
        invoke,
        replace(invoke, path="/endpoints/{model}/invocations", operation="invokeEndpoint", summary=summary),
        replace(invoke, path="/models/{model}/invoke", operation="invokeModel", summary=summary),
    )


def _multi_model() -> tuple[Route, ...]:
    return (
        Route(
            path="/models",
            methods=("get",),
            operation="sagemakerModels",
            tag=SAGEMAKER,
            summary="The models that are served",
            answers={200: _ok("One row for each.", schemas.LoadedModels)},
        ),
        Route(
            path="/models",
            methods=("post",),
            operation="sagemakerLoad",
            tag=SAGEMAKER,
            summary="Load a model of the repository",
            request={JSON: schemas.ModelToLoad},
            answers={
                200: _ok("It is served.", schemas.LoadedModel),
                **errors(_ERROR, *_BODY_ERRORS, 404, 500, 503),
                409: Answer("It is served already, or loading failed.", _ERROR),
            },
        ),
        Route(
            path="/models/{model}",
            methods=("delete",),
            operation="sagemakerUnload",
            tag=SAGEMAKER,
            summary="Unload a model",
            answers={200: _ok("It is gone.", Empty), **errors(_ERROR, 404, 500, 503)},
        ),
    )
