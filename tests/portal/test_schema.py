"""The API contract at /api/schema and /api/docs: complete, valid, and matching the actual responses."""

import functools
import gzip
import html
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from portal.api.examples import list_bodies
from portal.api.schema import openapi
from portal.models import User
from portal.models.notifications import NotificationKind
from tests.conftest import Cast, sign_in
from tests.local_aws import LocalAws
from tests.portal.isolation_table import PLACEHOLDER, TENANT, ask, fill, get_address, make_place, undone
from tests.portal.test_policies import routes
from tests.upgrades.conftest import make_upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]
Json = dict[str, Any]

PAGES = {"/api/docs"}
API = "api/"  # deployments and agents are also at the root: the same views, documented once


def path_in_document(route: str) -> str:
    return "/" + PLACEHOLDER.sub(r"{\1}", route)


def operations() -> Iterator[tuple[str, str, Json]]:
    """Return (method, path, operation) for the whole document."""
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def strict(schema: Any) -> Any:
    """Return the schema with additional fields forbidden."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if closed.get("type") == "object" and isinstance(closed.get("properties"), dict):
        closed["additionalProperties"] = False
    return closed


def assert_documented(response: Any, method: str, path: str) -> None:
    """Check that the route documents the response's status, and that the body matches the document field by field."""
    documented = openapi()["paths"][path][method.lower()]["responses"]
    assert str(response.status_code) in documented, f"{method} {path} answered {response.status_code}"
    validator = get_validator(method, path, str(response.status_code))
    if validator is None:
        assert response.content == b""
    else:
        validator.validate(response.json())


@functools.cache
def get_validator(method: str, path: str, status: str) -> Draft202012Validator | None:
    """Return the validator of a documented body, None for an empty one. Kept, because many answers share it."""
    content = openapi()["paths"][path][method.lower()]["responses"][status].get("content")
    if content is None:
        return None
    return Draft202012Validator({**strict(content["application/json"]["schema"]), "components": components()})


@functools.cache
def components() -> Any:
    return strict(openapi()["components"])


# --- the document --------------------------------------------------------------------------------------------------


def test_it_is_generated_without_a_warning_and_valid(tmp_path: Path) -> None:
    call_command("spectacular", "--fail-on-warn", "--validate", "--file", str(tmp_path / "schema.yml"))

    OpenAPIV31SpecValidator(openapi()).validate()
    assert openapi()["openapi"].startswith("3.1")
    assert openapi()["servers"] == [{"url": "/"}]


def test_the_document_is_public(db: None) -> None:
    response = Client().get("/api/schema")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == json.loads(json.dumps(openapi()))


def test_it_takes_the_format_json_and_no_other_method(db: None) -> None:
    assert Client().get("/api/schema?format=json").json() == Client().get("/api/schema").json()
    assert Client().get("/api/schema?format=json", headers={"Accept": "text/html, */*"}).status_code == 200
    assert Client().get("/api/schema?format=yaml").json()["errors"] == {"format": ["Must be one of json."]}
    assert Client().get("/api/schema?depth=1").status_code == 400
    assert Client().delete("/api/schema").status_code == 405


def test_every_api_route_is_in_it() -> None:
    served = {path_in_document(route) for route, _ in routes() if route.startswith(API)}

    assert served - PAGES == set(openapi()["paths"])


def test_every_operation_has_a_name_of_its_own_and_a_summary() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))
    assert all(operation.get("summary") for _, _, operation in operations())


def test_every_documented_error_has_a_shape_and_meaning() -> None:
    for _, _, operation in operations():
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
                assert answer["description"]


def test_session_and_csrf_requirements_are_documented() -> None:
    for method, path, operation in operations():
        needed = {name for requirement in operation.get("security", []) for name in requirement}

        assert ("401" in operation["responses"]) or path == "/api/schema"
        assert ("csrf" in needed) == (method != "GET")
        assert ("413" in operation["responses"]) or "requestBody" not in operation


def test_idempotency_keys_are_documented() -> None:
    keyed = {
        (method, path)
        for method, path, operation in operations()
        if "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", [])]
    }

    mismatched = {(method, path) for method, path, operation in operations() if "422" in operation["responses"]}
    assert keyed == mismatched
    assert ("DELETE", "/api/v1/deployments/{deployment_id}") in keyed


def test_routes_with_a_body_document_size_and_type_errors() -> None:
    for method, path, operation in operations():
        assert ({"413", "415"} <= operation["responses"].keys()) == (method != "GET"), f"{method} {path}"


def test_every_body_has_an_example_that_fits_it() -> None:
    document, seen = openapi(), set()
    for _, name, media in list_bodies(document):
        if name:
            key = media["examples"]["example"]["$ref"].rpartition("/")[2]
            example = document["components"]["examples"][key]["value"]
            schema = {**strict(media["schema"]), "components": components()}
            Draft202012Validator(schema, format_checker=FormatChecker()).validate(example)
            seen.add(key)

    assert seen == document["components"]["examples"].keys()
    assert document["components"]["examples"]["TriggerBodyRequest"]["value"]["service"] == "agent"


def find_optional_members(schema: Any, path: str, seen: set[str]) -> Iterator[str]:
    """Yield the members that the schema, or one that it refers to, does not require. `seen`: the names passed already."""
    if isinstance(schema, list):
        for each in schema:
            yield from find_optional_members(each, path, seen)
    if not isinstance(schema, dict):
        return
    name = schema.get("$ref", "").rpartition("/")[2]
    if name and name not in seen:
        seen.add(name)
        yield from find_optional_members(openapi()["components"]["schemas"][name], name, seen)
    if schema.get("type") == "object":
        yield from (
            f"{path}.{each}" for each in sorted(schema.get("properties", {}).keys() - set(schema.get("required", [])))
        )
    for key, value in schema.items():
        yield from find_optional_members(value, f"{path}.{key}", seen)


def test_nothing_in_an_answer_or_webhook_is_optional() -> None:
    """Absent values are null. The one exception is the body of errors, where each code has members of its own."""
    seen = {"Refusal"}
    sent = [
        (f"{method} {path}", media["schema"])
        for method, path, operation in operations()
        for answer in operation["responses"].values()
        for media in answer.get("content", {}).values()
    ]
    sent += [
        (name, media["schema"])
        for name, methods in openapi()["webhooks"].items()
        for media in methods["post"]["requestBody"]["content"].values()
    ]

    assert [each for path, schema in sent for each in find_optional_members(schema, path, seen)] == []
    assert {"UpgradeRecord", "HistoryItem", "ServiceEntry", "EvidenceRequest", "UpgradeEndedMessage"} <= seen


@pytest.mark.parametrize("read", ["logs", "metrics"])
def test_reads_with_a_limit_declare_its_headers(read: str) -> None:
    answers = openapi()["paths"][f"/api/v1/deployments/{{deployment_id}}/{read}"]["get"]["responses"]

    assert all({"RateLimit", "RateLimit-Policy"} <= answers[status]["headers"].keys() for status in ("200", "429"))


def test_every_notification_is_a_webhook_of_the_document() -> None:
    assert set(openapi()["webhooks"]) == set(NotificationKind.values)


def test_reads_document_their_etag_and_links() -> None:
    for method, path, operation in operations():
        answers = operation["responses"]
        assert ("304" in answers) == ("ETag" in answers.get("200", {}).get("headers", {})) == (method == "GET"), path

    lists = [
        path for method, path, each in operations() if method == "GET" and "Link" in each["responses"]["200"]["headers"]
    ]
    assert len(lists) == 8


@pytest.mark.parametrize("path", ["/api/schema", "/api/docs"])
def test_document_and_page_are_sent_compressed(db: None, path: str) -> None:
    plain, packed = Client().get(path), Client().get(path, headers={"Accept-Encoding": "gzip"})
    head = Client().head(path, headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in plain
    assert (packed["Content-Encoding"], head["Content-Encoding"]) == ("gzip", "gzip")
    assert len(packed.content) < len(plain.content) / 5
    assert len(gzip.decompress(packed.content)) == len(plain.content)
    assert all("Accept-Encoding" in answer["Vary"] for answer in (plain, packed, head))


def test_a_compressed_document_is_confirmed_like_a_plain_one(db: None) -> None:
    packed = Client().get("/api/schema", headers={"Accept-Encoding": "gzip"})
    again = [
        Client().get("/api/schema", headers={"If-None-Match": packed["ETag"], **accepts})
        for accepts in ({}, {"Accept-Encoding": "gzip"})
    ]

    assert packed["ETag"] == Client().get("/api/schema")["ETag"]
    for answer in again:
        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", packed["ETag"])
        assert "Accept-Encoding" in answer["Vary"]
        assert "Content-Encoding" not in answer


# --- responses of the routes ---------------------------------------------------------------------------------------


BOUNDS = {
    "string": [{"maxLength"}, {"enum"}, {"pattern"}],
    "integer": [{"minimum", "maximum"}, {"enum"}],
    "array": [{"maxItems"}],
    "object": [{"maxProperties", "propertyNames"}],
    "boolean": [set()],
}


def find_open_members(schema: Json, path: str) -> Iterator[str]:
    """Yield the members of a request body whose size has no bound, and bodies that take unknown members."""
    if schema.get("additionalProperties") is not False:
        yield f"{path}: takes unknown members"
    for name, member in schema["properties"].items():
        kinds = [member["type"]] if isinstance(member["type"], str) else member["type"]
        for kind in set(kinds) - {"null"}:
            is_bound = any(bound <= member.keys() for bound in BOUNDS[kind]) or member.get("format") == "uuid"
            if not is_bound:
                yield f"{path}.{name}"
        for inner in (member.get("items"), member.get("additionalProperties")):
            if isinstance(inner, dict) and not any(bound <= inner.keys() for bound in BOUNDS[inner["type"]]):
                yield f"{path}.{name}: its values"


def test_request_bodies_are_closed_bounded_and_name_what_is_required() -> None:
    optional = {("CredentialsRequest", "code")}  # asked for by `mfa_required`
    optional |= {("ProofRequest", "password"), ("ProofRequest", "code")}  # one of the two
    found = []
    bodies = 0
    for method, path, operation in operations():
        for media in operation.get("requestBody", {}).get("content", {}).values():
            name = media["schema"]["$ref"].rpartition("/")[2]
            schema = openapi()["components"]["schemas"][name]
            bodies += 1
            found += find_open_members(schema, f"{method} {path}")
            free = {each for each, member in schema["properties"].items() if "default" in member}
            free |= {each for each, member in schema["properties"].items() if "null" in member["type"]}
            free |= {each for each, member in schema["properties"].items() if member["type"] in ("array", "object")}
            needed = set(schema["properties"]) - free - {each for body, each in optional if body == name}
            if method != "PATCH" and set(schema.get("required", [])) != needed:
                found.append(f"{method} {path}: requires {schema.get('required')}, not {sorted(needed)}")

    assert bodies >= 9
    assert found == []


@pytest.mark.parametrize("statuses", [[Status.PENDING], [Status.IN_PROGRESS], [Status.SUCCESS], [Status.FAILED]])
def test_records_are_as_documented(cast: Cast, platform: LocalAws, client_for: SignIn, statuses: list[Status]) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=statuses)
    make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[Status.SKIPPED])
    client = client_for(cast.viewer)
    base = "/api/v1/deployments"

    assert_documented(client.get(f"{base}/upgrade/{upgrade.upgrade_id}"), "GET", f"{base}/upgrade/{{upgrade_id}}")
    assert_documented(client.get(f"{base}/upgrades"), "GET", f"{base}/upgrades")
    assert_documented(client.get(f"{base}/upgrades?status=FAILED&limit=1"), "GET", f"{base}/upgrades")
    assert_documented(client.get(f"{base}/versions"), "GET", f"{base}/versions")
    assert_documented(client.get("/api/v1/auth/session"), "GET", "/api/v1/auth/session")
    assert_documented(client.get("/api/schema"), "GET", "/api/schema")


def test_commands_are_answered_as_documented(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client, path = client_for(cast.operator), "/api/v1/deployments/upgrade"

    accepted = client.post(path, {"service": "agent"}, content_type="application/json")
    conflict = client.post(path, {"service": "agent"}, content_type="application/json")
    stopped = client.post(f"{accepted.json()['status_url']}/stop", content_type="application/json")

    assert (accepted.status_code, conflict.status_code, stopped.status_code) == (202, 409, 202)
    assert_documented(accepted, "POST", path)
    assert_documented(conflict, "POST", path)
    assert_documented(stopped, "POST", f"{path}/{{upgrade_id}}/stop")


def test_operator_routes_are_answered_as_documented(
    cast: Cast, platform: LocalAws, client_for: SignIn, subtests: Any
) -> None:
    place, client = make_place(cast, cast.acme), client_for(cast.operator)

    for row in TENANT:
        for method in sorted(row.allowed - {"head"}) if row.route.startswith(API) else ():
            with subtests.test(f"{method} {row.route}"), undone():
                answer = ask(client, row, method, place)

                assert answer.status_code < 300
                assert_documented(answer, method, path_in_document(row.route))


def test_every_202_says_when_to_ask_again(cast: Cast, platform: LocalAws, client_for: SignIn, subtests: Any) -> None:
    place, client = make_place(cast, cast.acme), client_for(cast.operator)
    rows = {path_in_document(row.route): row for row in TENANT}
    accepted = [(method, path) for method, path, operation in operations() if "202" in operation["responses"]]

    assert len(accepted) == 5
    for method, path in accepted:
        with subtests.test(f"{method} {path}"), undone():
            answer = ask(client, rows[path], method.lower(), place)

            assert (answer.status_code, answer.get("Retry-After")) == (202, "2")
            assert "Retry-After" in openapi()["paths"][path][method.lower()]["responses"]["202"]["headers"]


def test_signing_in_and_out_is_answered_as_documented(cast: Cast) -> None:
    client, path = Client(), "/api/v1/auth"
    credentials = {"email": cast.operator.email, "password": cast.password}

    for answer in (
        client.post(f"{path}/login", credentials | {"password": "wrong"}, content_type="application/json"),
        client.post(f"{path}/login", {}, content_type="application/json"),
        client.post(f"{path}/login", credentials, content_type="application/json"),
    ):
        assert_documented(answer, "POST", f"{path}/login")
    assert_documented(client.post(f"{path}/logout", content_type="application/json"), "POST", f"{path}/logout")


def test_every_refusal_of_every_route_is_documented(
    cast: Cast, platform: LocalAws, client_for: SignIn, subtests: Any
) -> None:
    place = make_place(cast, cast.acme)
    rows = {path_in_document(row.route): row for row in TENANT}
    anonymous, viewer, outsider = Client(), client_for(cast.viewer), client_for(cast.outsider)
    unproven = sign_in(Client(enforce_csrf_checks=True), cast.operator)

    for method, path, _ in operations():
        row = rows.get(path)
        address = get_address(row, place) if row else path
        body = fill(row.sends.get(method.lower()), place.words(row)) if row else None
        with subtests.test(f"{method} {path}"):
            clients = (anonymous, viewer, outsider, unproven)
            for answer in chain.from_iterable(ask_wrongly(each, method, address, body or {}) for each in clients):
                assert_documented(answer, method, path)


def ask_wrongly(client: Client, method: str, address: str, body: Any) -> list[Any]:
    """Return the answers to an unknown query key and, but for a GET, to the right body and to wrong ones."""
    send: Any = functools.partial(getattr(client, method.lower()), headers={"X-Organization": "acme"})
    answers = [send(f"{address}?unknown=1")]
    if method != "GET":
        answers += [send(address, each, content_type="application/json") for each in (body, {"unknown": 1}, "{")]
        answers.append(send(address, "x", content_type="text/plain"))
    return answers


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_route(db: None) -> None:
    response = Client().get("/api/docs")

    text = response.content.decode()
    assert response.status_code == 200
    for method, path, operation in operations():
        assert f'<span class="method">{method}</span> <span class="mono">{path}</span>' in text
        assert f'href="#{operation["operationId"]}"' in text
        assert operation["summary"] in text
    for said in ("Idempotency-Key", "force_new_deployment", "X-CSRFToken", "integer, 1 to 100, default 50", "curl"):
        assert said in text


def test_the_page_keeps_to_the_content_security_policy(db: None) -> None:
    text = Client().get("/api/docs").content.decode()

    assert "<style" not in text
    assert "style=" not in text
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_the_page_shows_curl_commands(db: None) -> None:
    page = html.unescape(Client().get("/api/docs").content.decode())

    assert (
        "curl -b jar -c jar -X POST http://testserver/api/v1/deployments/upgrade \\\n"
        "  -H 'Origin: http://testserver' \\\n"
        '  -H "X-CSRFToken: $TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        """  -d '{"service": "agent"}'"""
    ) in page
