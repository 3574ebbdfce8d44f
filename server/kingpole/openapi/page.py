"""The models and the routes as one page of HTML: nothing to fetch, and nothing that needs JavaScript.

Names and descriptions are other people's text: everything that is written goes through `_text`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from kingpole import __version__
from kingpole.openapi.models import (
    MOST_ELEMENTS,
    ServedModel,
    UnservedModel,
    curl_line,
    example_elements,
    latest,
)
from kingpole.openapi.table import ROUTES, TAGS
from kingpole.signature import TensorSpec, format_shape

_OPEN = next(iter(TAGS))
"""The routes that are shown without being asked for."""

_STYLE = files("kingpole.openapi").joinpath("page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS = {
    # Nothing is run, fetched or framed, even if something should slip through the escaping.
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_page(
    models: Sequence[ServedModel], unserved: Sequence[UnservedModel], *, main: Sequence[str]
) -> str:
    """Make the page.

    Args:
        models: What is served.
        unserved: What is known and not served.
        main: URLs of the main port; the commands go to the first that is not a Unix socket.
    """
    url = next((each for each in main if not each.startswith("unix:")), main[0])
    newest = latest(models)
    addresses = ", ".join(f"<code>{_text(url)}</code>" for url in main)
    parts = [
        f'<header><h1>Kingpole <small>{_text(__version__)}</small></h1><p class="lead">{addresses}</p>',
        '<nav><a href="#models">Models</a> <a href="#routes">Routes</a>'
        ' <a href="openapi.json">OpenAPI 3.1</a> <a href="metrics">Metrics</a></nav></header>',
        f'<h2 id="models">Models <small>{len(newest)} served</small></h2>',
        *(_model(model, _versions(model, models), url) for model in newest),
        *(_unserved(model) for model in unserved),
    ]
    if not models and not unserved:
        parts.append("<p>No model is served yet.</p>")
    parts.append('<h2 id="routes">Routes</h2>')
    parts += (_routes(tag, text) for tag, text in TAGS.items())
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Kingpole</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{_STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _text(text: object) -> str:
    return escape(str(text), quote=True)


def _versions(model: ServedModel, models: Iterable[ServedModel]) -> list[str]:
    return [each.version for each in models if each.name == model.name]


def _model(model: ServedModel, versions: Sequence[str], url: str) -> str:
    batching = f"batches up to {model.max_batch_size} rows" if model.max_batch_size else "does not batch"
    facts = [model.platform or model.backend, f"runs {model.runs}", batching]
    if len(versions) > 1:
        facts.append(f"versions {', '.join(versions)}")
    description = f"<p>{_text(model.description)}</p>" if model.description else ""
    rows = [_tensor("input", spec) for spec in model.inputs] + [
        _tensor("output", spec) for spec in model.outputs
    ]
    link = ""
    if example_elements(model) <= MOST_ELEMENTS:
        target = f"examples/{_text(model.name)}/{_text(model.version)}"
        link = f'<p class="note"><a href="{target}">The same request as JSON</a></p>'
    return (
        f'<section class="model" id="model-{_text(model.name)}">'
        f'<h3>{_text(model.name)} <span class="version">version {_text(model.version)}</span>'
        ' <span class="state ready">READY</span></h3>'
        f'<p class="facts">{" · ".join(map(_text, facts))}</p>{description}'
        '<div class="wide"><table><thead>'
        "<tr><th></th><th>name</th><th>datatype</th><th>shape</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<pre><code>{_text(curl_line(model, url))}</code></pre>{link}</section>"
    )


def _tensor(kind: str, spec: TensorSpec) -> str:
    optional = ' <span class="note">optional</span>' if spec.optional else ""
    return (
        f'<tr><td class="kind">{kind}</td><td><code>{_text(spec.name)}</code>{optional}</td>'
        f"<td><code>{_text(spec.datatype)}</code></td><td><code>{_text(format_shape(spec.shape))}</code></td></tr>"
    )


def _unserved(model: UnservedModel) -> str:
    version = f' <span class="version">version {_text(model.version)}</span>' if model.version else ""
    return (
        f'<section class="model"><h3>{_text(model.name)}{version}'
        f' <span class="state">{_text(model.state)}</span></h3><p>{_text(model.reason)}</p></section>'
    )


def _routes(tag: str, description: str) -> str:
    routes = [route for route in ROUTES if route.tag == tag]
    rows = "".join(
        f'<tr><td class="method">{_text(" ".join(route.methods).upper())}</td>'
        f"<td><code>{_text(route.path)}</code></td><td>{_text(route.summary)}</td></tr>"
        for route in routes
    )
    # Our own text, which is Markdown in the document.
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(description))
    count = "1 route" if len(routes) == 1 else f"{len(routes)} routes"
    return (
        f"<details{' open' if tag == _OPEN else ''}><summary><h3>{_text(tag)}</h3>"
        f' <span class="note">{count}</span><p>{marked}</p></summary>'
        f'<div class="wide"><table class="routes"><tbody>{rows}</tbody></table></div></details>'
    )
