"""Shared by every API route: strict input, and the decorator that declares a route.

The session routes are in portal/accounts/api.py; each app's routes are in its own api folder.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request

from portal.access import Policy, policy
from portal.api.conditional import answer_conditionally
from portal.errors import MAX_NAMED, printable, too_many_keys
from portal.models import Scope
from portal.models.idempotency import MAX_KEY_LENGTH
from portal.pagination import DEFAULT_LIMIT, MAX_LIMIT, MAX_SKIP

View = TypeVar("View", bound=Callable[..., Any])

# The most keys of a body or a query. No route takes more than a dozen.
MAX_KEYS = 50

# Headers, for `extend_schema(parameters=...)`.
ORGANIZATION = OpenApiParameter(
    "X-Organization",
    str,
    OpenApiParameter.HEADER,
    description="Slug. Without it: the person's default organization, else the only one whose membership they accepted.",
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description=f"Up to {MAX_KEY_LENGTH} characters. A request repeated with the same key is not executed again; "
    "the response describes what the first request created or changed.",
)


def rate_limited(status: int) -> list[OpenApiParameter]:
    """Return the headers of an answer with this status that counts against a rate limit, and those of its 429."""
    on: Any = {"location": OpenApiParameter.HEADER, "response": [status, 429]}
    policy_text = "The limit: how many requests (`q`) in how many seconds (`w`), as in the IETF's draft."
    left_text = "How many are left (`r`), and in how many seconds there are more (`t`)."
    return [
        OpenApiParameter("RateLimit-Policy", str, description=policy_text, **on),
        OpenApiParameter("RateLimit", str, description=left_text, **on),
    ]


def api_route(*methods: str, allow: Policy, scope: Scope | None = None) -> Callable[[View], Any]:
    """Declare an API view: its methods and who may call it. A GET route also accepts HEAD.

    `scope`: what an API token needs for the unsafe methods. None: no token may use them. Reads need Scope.READ.
    """
    accepted = [*methods, "HEAD"] if "GET" in methods else list(methods)

    def declare(view: View) -> Any:
        made: Any = api_view(accepted)(view)
        declared: Any = policy(allow)(answer_conditionally(made) if "GET" in methods else made)
        declared.scope = declared.cls.scope = scope  # the class is what the OpenAPI schema is made of
        return declared

    return declare


class StrictSerializer(serializers.Serializer[Any]):
    """Input that refuses unknown fields by name, so that a typo is never silently ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict) and not hasattr(data, "keys"):
            raise serializers.ValidationError({"body": ["Send a JSON object."]})
        if len(data) > MAX_KEYS:
            raise too_many_keys(len(data), MAX_KEYS)
        known = set(self.fields)
        unknown = sorted(printable(str(key)) for key in set(data) - known)
        if unknown:
            why = "Unknown." if len(unknown) <= MAX_NAMED else f"One of {len(unknown)} unknown keys."
            accepted = f"This route takes {', '.join(sorted(known))}." if known else "This route takes none."
            raise serializers.ValidationError({key: [f"{why} {accepted}"] for key in unknown[:MAX_NAMED]})
        return super().to_internal_value(data)


class NoQuery(StrictSerializer):
    """The query of a route that takes no query keys."""


class NoBody(StrictSerializer):
    """The body of a route that takes no fields: absent or an empty object."""


class StrictBoolean(serializers.BooleanField):
    """Accepts only JSON's true and false, not "no", 0 or "off"."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StrictString(serializers.CharField):
    """Accepts only a JSON string and does not convert numbers."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class BoundedList(serializers.ListField):
    """A list of at most `max_length` items. DRF would validate each item of a longer one before it refuses it."""

    def to_internal_value(self, data: Any) -> list[Any]:
        if self.max_length is not None and isinstance(data, list) and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return super().to_internal_value(data)


def describe_choices(values: list[str]) -> str:
    return f"Must be one of {', '.join(values)}."


def choice(values: list[str]) -> serializers.ChoiceField:
    """Return an optional filter over a closed set. The error for any other value lists the set."""
    return serializers.ChoiceField(
        choices=values, allow_null=True, default=None, error_messages={"invalid_choice": describe_choices(values)}
    )


class PageQuery(StrictSerializer):
    """The query keys `skip` and `limit` of a list."""

    skip = serializers.IntegerField(min_value=0, max_value=MAX_SKIP, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT)


def read_body(request: Request, serializer: type[StrictSerializer], *, partial: bool = False) -> dict[str, Any]:
    """Return the validated JSON body. Raises ValidationError (400) naming the wrong fields and up to ten unknown ones.

    With `partial`, required fields may be omitted, as in PATCH.
    """
    body = serializer(data=request.data, partial=partial)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


def read_query(request: Request | HttpRequest, serializer: type[StrictSerializer] = NoQuery) -> dict[str, Any]:
    """Return the validated query. Raises ValidationError (400) naming keys that are wrong, unknown or given twice."""
    keys = request.GET
    if len(keys) > MAX_KEYS:
        raise too_many_keys(len(keys), MAX_KEYS)
    repeated = [key for key in keys if len(keys.getlist(key)) > 1]
    if repeated:
        raise serializers.ValidationError({printable(key): ["Given more than once."] for key in repeated[:MAX_NAMED]})
    query = serializer(data=keys.dict())
    query.is_valid(raise_exception=True)
    return dict(query.validated_data)


def get_idempotency_key(request: Request) -> str | None:
    """Return the request's Idempotency-Key, not validated."""
    return request.headers.get("Idempotency-Key")


class RefusalSerializer(serializers.Serializer[Any]):
    """The body of every error response: `errors` by field for 400, a missing `scope` for 403, the blocking id or
    checks for 409. Not named after errors, because in some languages generated clients cannot have an `Error`."""

    detail = serializers.CharField()
    code = serializers.CharField()
    upgrade_id = serializers.CharField(required=False)
    scope = serializers.CharField(required=False)
    checks = serializers.ListField(child=serializers.CharField(), required=False)

    def get_fields(self) -> dict[str, Any]:
        # Declared here, because a serializer has its own attribute `errors`.
        sentences = serializers.ListField(child=serializers.CharField())
        return {**super().get_fields(), "errors": serializers.DictField(child=sentences, required=False)}


# The meaning of each error status on every route. A route may document more.
MEANINGS = {
    400: "Invalid input, named in `errors`, or not possible in the current state; see `code`.",
    401: "Not signed in, or `invalid_token`.",
    403: "Not allowed; see `code`: your role is too low, the API token lacks the `scope`, the CSRF token is missing, or "
    "re-authentication is required.",
    404: "It does not exist, or it belongs to another organization.",
    409: "Conflicts with the current state; see `code`: an upgrade in progress (`upgrade_id`), failed pre-flight "
    "checks (`checks`), nothing to stop or validate, or a plan that has changed.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not JSON.",
    422: "The Idempotency-Key was used for a different request.",
    429: "Too many attempts; `Retry-After` says how many seconds to wait.",
    502: "AWS failed, and there is no earlier result to return; `detail` says why.",
    503: "The database or another dependency is down. Nothing was changed; `Retry-After` says when to try again.",
}


def errors(*statuses: int) -> dict[int, OpenApiResponse]:
    """Return the documented errors of a route, for `extend_schema(responses=...)`."""
    return {status: OpenApiResponse(RefusalSerializer, MEANINGS[status]) for status in statuses}
