"""The OpenAPI 3.1 document: the table of routes, and what a running server adds of its models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kingpole import __version__
from kingpole.openapi import schemas
from kingpole.openapi.models import (
    MOST_ELEMENTS,
    MOST_INLINE_ELEMENTS,
    ServedModel,
    example_elements,
    example_request,
    infer_path,
    latest,
    request_schema,
    response_schema,
)
from kingpole.openapi.routes import BYTES, HEADERS, JSON, Answer, AnyOf, Bodies, Route
from kingpole.openapi.table import ROUTES, TAGS

_DESCRIPTION = (
    "Models are asked on the main port, which also takes gRPC and frames; the routes tagged Management are on"
    " a port of their own. Every GET on the main port also answers HEAD."
)
_PATH_PARAMETERS = {
    "model": "The model's name.",
    "version": "One of the model's versions.",
    "region": "The region's name.",
    "repository": "The name of a repository, which says nothing here.",
    "label": "One of the model's versions, too: labels are looked for among them.",
}
_SCHEMAS = "#/components/schemas/{name}"
_MAIN, _MANAGEMENT = "http://localhost:8000", "http://localhost:8002"


def make_document(
    models: Sequence[ServedModel] = (), *, main: Sequence[str] = (_MAIN,), management: str = _MANAGEMENT
) -> dict[str, Any]:
    """Make the document.

    Args:
        models: Served ones, each of which gets paths of its own.
        main: URLs of the main port.
        management: The management port's URL.
    """
    types = list(dict.fromkeys(_types()))
    made, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    writer = _Writer(dict(zip(types, made, strict=True)))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        item = paths.setdefault(route.path, {})
        if route.port == "management":
            item["servers"] = [{"url": management}]
        writer.write(route, item, models)
    paths.update(_model_paths(writer, models))
    info = {
        "title": "Kingpole",
        "version": __version__,
        "summary": "A small model server: many models, many protocols.",
        "description": _DESCRIPTION,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    document = {
        "openapi": "3.1.0",
        "info": info,
        # A Unix socket has no URL that a generated client could use.
        "servers": [{"url": url} for url in main if not url.startswith("unix:")] or [{"url": _MAIN}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**components, **_model_schemas(models)},
            "responses": writer.responses,
            "headers": {name: _header(name) for name in HEADERS},
        },
    }
    # Nothing shared between places, which YAML would write as aliases.
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _types() -> Iterable[Any]:
    for route in ROUTES:
        for bodies in (route.request or {}, *(answer.bodies for answer in route.answers.values())):
            for kind in bodies.values():
                if isinstance(kind, AnyOf):
                    yield from kind
                elif kind is not BYTES:
                    yield kind
    # Referred to by the models' own schemas.
    yield from (schemas.InferRequest, schemas.InferResponse)


class _Writer:
    """Writes routes as operations, and keeps the answers that several of them share."""

    def __init__(self, schema_of: dict[Any, Any]) -> None:
        self._schema_of = schema_of
        self.responses: dict[str, Any] = {}

    def write(self, route: Route, item: dict[str, Any], models: Sequence[ServedModel]) -> None:
        for method in route.methods:
            suffix = "" if method == route.methods[0] else method.title()
            operation: dict[str, Any] = {
                "operationId": route.operation + suffix,
                "tags": [route.tag],
                "summary": route.summary,
            }
            if route.description:
                operation["description"] = route.description
            if parameters := self._parameters(route, models):
                operation["parameters"] = parameters
            if route.request is not None:
                operation["requestBody"] = {
                    "required": route.is_request_required,
                    "content": self.content(route.request),
                }
            operation["responses"] = {
                str(status): self._response(answer) for status, answer in sorted(route.answers.items())
            }
            item[method] = operation

    def _parameters(self, route: Route, models: Sequence[ServedModel]) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        for name in re.findall(r"{(\w+)}", route.path):
            parameter: dict[str, Any] = {
                "name": name, "in": "path", "required": True, "description": _PATH_PARAMETERS[name],
                "schema": {"type": "string", "minLength": 1},
            }  # fmt: skip
            # Not where trying the example would load or unload it.
            if (
                models
                and name != "region"
                and "Repository" not in route.tag
                and route.methods != ("delete",)
                and route.port == "main"
            ):
                parameter["example"] = models[0].name if name == "model" else models[0].version
            written.append(parameter)
        for name in route.headers:
            schema, text = HEADERS[name]
            written.append({"name": name, "in": "header", "description": text, "schema": schema})
        return written

    def content(self, bodies: Bodies) -> dict[str, Any]:
        """Bodies by their media type."""
        return {
            media_type: {} if kind is BYTES else {"schema": self._schema(kind)}
            for media_type, kind in bodies.items()
        }

    def _schema(self, kind: Any) -> dict[str, Any]:
        if isinstance(kind, AnyOf):
            return {"anyOf": [self._schema_of[each] for each in kind]}
        schema: dict[str, Any] = self._schema_of[kind]
        return schema

    def _response(self, answer: Answer) -> dict[str, Any]:
        written: dict[str, Any] = {"description": answer.description}
        if answer.headers:
            written["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
        if answer.bodies:
            written["content"] = self.content(answer.bodies)
        if not answer.name:
            return written
        self.responses[answer.name] = written
        return {"$ref": f"#/components/responses/{answer.name}"}


def _header(name: str) -> dict[str, Any]:
    schema, text = HEADERS[name]
    return {"description": text, "schema": schema}


def _model_paths(writer: _Writer, models: Sequence[ServedModel]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The paths of the models themselves, so that a generator or a reader sees their tensors."""
    infer = next(route for route in ROUTES if route.operation == "infer")
    newest = latest(models)
    for versioned, chosen in ((False, newest), (True, models)):
        for model in chosen:
            item: dict[str, Any] = {}
            writer.write(infer, item, ())
            operation = item["post"]
            key = f"{model.name}.{model.version}"
            operation["operationId"] = f"infer.{key if versioned else model.name}"
            operation["summary"] = (
                f"Infer with {model.name}{f', version {model.version}' if versioned else ''}"
            )
            if model.description:
                operation["description"] = model.description
            # The path is the model's own.
            operation["parameters"] = [each for each in operation["parameters"] if each["in"] != "path"]
            operation["requestBody"]["content"][JSON] = {
                "schema": {"$ref": f"#/components/schemas/InferRequest.{key}"},
                **_example(model),
            }
            operation["responses"]["200"]["content"][JSON] = {
                "schema": {"$ref": f"#/components/schemas/InferResponse.{key}"}
            }
            yield infer_path(model, versioned=versioned), item


def _example(model: ServedModel) -> dict[str, Any]:
    elements = example_elements(model)
    if elements <= MOST_INLINE_ELEMENTS:
        return {"examples": {"smallest": {"value": example_request(model)}}}
    if elements <= MOST_ELEMENTS:
        # Relative to where this document is read.
        return {"examples": {"smallest": {"externalValue": f"examples/{model.name}/{model.version}"}}}
    return {}


def _model_schemas(models: Sequence[ServedModel]) -> dict[str, Any]:
    written = {}
    for model in models:
        written[f"InferRequest.{model.name}.{model.version}"] = request_schema(model)
        written[f"InferResponse.{model.name}.{model.version}"] = response_schema(model)
    return written
