"""The API contract as an OpenAPI 3.1 document (`/api/schema`) and as a page (`/api/docs`), generated from the code.

Both are public. They explain how to sign in and contain no organization's data.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import Policy, policy
from portal.api.routes import StrictSerializer, api_route, choice, errors, read_query
from portal.safe_text import safe_bytes

Json = dict[str, Any]

ETAG = "Names this answer. Send it as `If-None-Match` with the next read."
LINK = "Addresses of other pages (RFC 8288): `first`, `prev`, `next`, `last`, as far as they exist and are known."
UNCHANGED = "The answer is still the one that `If-None-Match` names. It has no body."


def leave_out_root_paths(endpoints: list[Any]) -> list[Any]:
    """Drop the root paths (/deployments, /agents) from the document: they are the same views as under /api/v1."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith("/api/")]


def close_request_bodies(result: Json, **_: Any) -> Json:
    """Declare that request bodies take no other members: StrictSerializer refuses them. A hook of spectacular."""
    schemas = result["components"]["schemas"]
    for operation in (each for operations in result["paths"].values() for each in operations.values()):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            name = media["schema"].get("$ref", "").rpartition("/")[2]
            if name:
                schemas[name]["additionalProperties"] = False
    return result


def describe_reads(result: Json, **_: Any) -> Json:
    """Declare what every read has: an ETag and the answer 304, a list also its links. A hook of spectacular."""
    for operations in result["paths"].values():
        answers = operations.get("get", {}).get("responses", {})
        content = answers.get("200", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        headers = answers["200"].setdefault("headers", {})
        headers["ETag"] = {"schema": {"type": "string"}, "description": ETAG}
        if "has_more" in resolve(result, content["schema"]).get("properties", {}):
            headers["Link"] = {"schema": {"type": "string"}, "description": LINK}
        answers["304"] = {"description": UNCHANGED}
    return result


@cache
def openapi() -> Json:
    """Return the whole document. Built once per process, because routes do not change."""
    made = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call] # the library's
    return dict(json.loads(OpenApiJsonRenderer().render(made, renderer_context={})))


def compressed(view: Callable[..., Any]) -> Any:
    """Compress the view's answers for clients that accept gzip. A 304 varies by the same headers as its 200.

    Only for answers without a secret: compressed with text of the request, its length would tell it
    (https://www.breachattack.com). These two repeat none, and the page's CSRF token is another one in each answer.
    """
    return vary_on_headers("Accept-Encoding")(gzip_page(view))


class SchemaQuery(StrictSerializer):
    """The query of /api/schema. Tools that generate clients ask for the format."""

    format = choice(["json"])


@extend_schema(
    operation_id="schema",
    tags=["api"],
    summary="Get this document",
    auth=[],
    parameters=[SchemaQuery],
    responses={200: OpenApiTypes.OBJECT, **errors(400)},
)
@policy(Policy.PUBLIC)
@compressed
@api_route("GET", allow=Policy.PUBLIC)
def schema(request: Request) -> Response:
    """Return the OpenAPI 3.1 document of every route."""
    read_query(request, SchemaQuery)
    return Response(openapi())


@policy(Policy.PUBLIC)
@compressed
@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Render the same contract as a page."""
    base = request.build_absolute_uri("/").rstrip("/")
    context = {
        "info": openapi()["info"],
        "base": base,
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "operations": build_operations(openapi(), base),
    }
    page = render(request, "portal/api/docs.html", context)
    page.content = safe_bytes(page.content)  # SafeTextMiddleware gets it compressed
    return page


@dataclass(frozen=True)
class Parameter:
    """One parameter of a route. `place`: path, query, header or body."""

    name: str
    place: str
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True)
class Answer:
    status: str
    meaning: str
    fields: str


@dataclass(frozen=True)
class Operation:
    """One route, for display on the page."""

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Parameter]
    answers: list[Answer]
    curl: str


def build_operations(document: Json, base: str) -> list[Operation]:
    return [
        build_operation(document, method, path, operation, base)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def build_operation(document: Json, method: str, path: str, operation: Json, base: str) -> Operation:
    body = get_body_schema(document, operation)
    sent = [
        Parameter(
            parameter["name"],
            parameter["in"],
            describe_type(document, parameter["schema"]),
            parameter.get("required", False),
            parameter.get("description", ""),
        )
        for parameter in operation.get("parameters", [])
    ]
    sent += [
        Parameter(
            name, "body", describe_type(document, field), name in body.get("required", []), field.get("description", "")
        )
        for name, field in body.get("properties", {}).items()
    ]
    return Operation(
        anchor=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        description=operation.get("description", ""),
        parameters=sent,
        answers=[build_answer(document, status, answer) for status, answer in sorted(operation["responses"].items())],
        curl=build_curl(method.upper(), path, body, base),
    )


def build_answer(document: Json, status: str, answer: Json) -> Answer:
    content = answer.get("content", {}).get("application/json", {}).get("schema", {})
    fields = resolve(document, content).get("properties", {})
    return Answer(status, answer["description"] or HTTPStatus(int(status)).phrase, ", ".join(fields))


def get_body_schema(document: Json, operation: Json) -> Json:
    """Return the schema of the JSON body; empty if the route takes none."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return resolve(document, content.get("schema", {}))


def resolve(document: Json, schema: Json) -> Json:
    reference = schema.get("$ref")
    return dict(document["components"]["schemas"][reference.rpartition("/")[2]]) if reference else schema


def describe_type(document: Json, schema: Json) -> str:
    """Return a short description of a field's type.

    >>> describe_type({}, {"type": "integer", "minimum": 1, "maximum": 100, "default": 50})
    'integer, 1 to 100, default 50'
    >>> describe_type({}, {"enum": ["agent", "all"], "type": "string"})
    'agent or all'
    """
    found = resolve(document, schema)
    if "enum" in found:
        words = [str(value) for value in found["enum"] if value is not None]
        kind = " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
    else:
        types = found.get("type", "object")
        kind = " or ".join(types) if isinstance(types, list) else str(types)
    if "minimum" in found and "maximum" in found:
        kind += f", {found['minimum']} to {found['maximum']}"
    if "maxLength" in found:
        kind += f", up to {found['maxLength']} characters"
    if found.get("default") not in (None, ""):
        kind += f", default {json.dumps(found['default']).strip(chr(34))}"
    return kind


def build_curl(method: str, path: str, body: Json, base: str) -> str:
    """Return the call as a curl command that uses the cookies of a sign-in, in the file `jar`."""
    lines = [f"curl -b jar -c jar {base}{path}" if method == "GET" else f"curl -b jar -c jar -X {method} {base}{path}"]
    if method != "GET":
        lines += [f"-H 'Origin: {base}'", '-H "X-CSRFToken: $TOKEN"']
    if body.get("properties"):
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(build_example(body))}'"]
    return " \\\n  ".join(lines)


def build_example(body: Json) -> Json:
    """Return an example body: each required field with an acceptable value."""
    return {
        name: field["enum"][0] if "enum" in field else f"<{name}>"
        for name, field in body["properties"].items()
        if name in body.get("required", [])
    }
