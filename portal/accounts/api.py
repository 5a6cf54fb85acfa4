"""The session routes of the API, built on allauth's own forms and stages.

allauth's rate limits, authentication records and two-factor authentication apply here as they do on the pages.
"""

from typing import Any

from allauth.account.forms import ReauthenticateForm
from allauth.account.internal import flows
from allauth.account.internal.stagekit import get_pending_stage
from allauth.core.internal import ratelimit
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import Policy, has_two_factor, person, sign_in_first
from portal.accounts.forms import LIMITED, CodeAgainForm, CodeForm, SignInForm
from portal.accounts.passwords import MAX_LENGTH
from portal.accounts.signals import TOO_MANY, record_failed_sign_in
from portal.api.routes import NoBody, RefusalSerializer, StrictSerializer, api_route, errors, read_body, read_query
from portal.errors import PortalError
from portal.models import Membership, Role, User


class Credentials(StrictSerializer):
    """The body of a sign-in request."""

    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(trim_whitespace=False, max_length=MAX_LENGTH)
    code = serializers.CharField(
        required=False, max_length=32, help_text="From the authenticator app, or a recovery code; after `mfa_required`."
    )


class PersonSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    name = serializers.CharField()


class MembershipSerializer(serializers.Serializer[Any]):
    slug = serializers.SlugField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)


class SessionSerializer(serializers.Serializer[Any]):
    user = PersonSerializer()
    organizations = MembershipSerializer(many=True)


class Proof(StrictSerializer):
    """The body of a re-authentication: either a password or a code."""

    password = serializers.CharField(required=False, trim_whitespace=False, max_length=MAX_LENGTH)
    code = serializers.CharField(required=False, max_length=32)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError({"body": ["Send either password or code."]})
        return attrs


REFUSED_PROOF = OpenApiResponse(
    RefusalSerializer, "By `code`: `invalid_credentials`, `invalid_code`, or the CSRF token is missing."
)
REFUSED_SIGN_IN = OpenApiResponse(
    RefusalSerializer, "By `code`: `invalid_credentials`, `mfa_required` (send `code` too), `invalid_code`."
)


@extend_schema(
    operation_id="session",
    tags=["session"],
    summary="Get the signed-in person and their organizations",
    description="Sets the CSRF cookie, also for anonymous callers.",
    auth=[],
    responses={200: SessionSerializer, **errors(400, 401)},
)
@api_route("GET", allow=Policy.PUBLIC)
def session(request: Request) -> HttpResponse:
    get_token(request._request)
    read_query(request)
    if not request.user.is_authenticated:
        return sign_in_first(request._request)
    return Response(build_session(request.user))


@extend_schema(
    operation_id="login",
    tags=["session"],
    summary="Sign in",
    description="Needs the CSRF token, as every unsafe method does: GET the session first. Ends the previous session.",
    auth=[{"csrf": []}],  # type: ignore[list-item] # typed as names, taken as requirements
    request=Credentials,
    responses={200: SessionSerializer, 401: REFUSED_SIGN_IN, **errors(400, 403, 413, 415, 429, 503)},
)
@api_route("POST", allow=Policy.PUBLIC)
def login(request: Request) -> Response:
    """Sign in. The attempt is counted before its body is read, so the limit also covers bodies that are slow to parse."""
    consume_sign_in_rate(request._request)
    read_query(request)
    credentials = read_body(request, Credentials)
    return Response(build_session(sign_in(request._request, **credentials)))


@extend_schema(
    operation_id="logout",
    tags=["session"],
    summary="Sign out",
    request=None,
    responses={204: None, **errors(400, 401, 403, 413, 415, 503)},
)
@api_route("POST", allow=Policy.SIGNED_IN)
def logout(request: Request) -> Response:
    read_query(request)
    read_body(request, NoBody)
    flows.logout.logout(request._request)
    return Response(status=204)


@extend_schema(
    operation_id="reauthenticate",
    tags=["session"],
    summary="Confirm that it is you",
    description="Send `password`, or `code` from the authenticator app or a recovery code. For 5 minutes, requests that "
    "answer 403 `reauthentication_required` are then accepted.",
    request=Proof,
    responses={204: None, 403: REFUSED_PROOF, **errors(400, 401, 413, 415, 429, 503)},
)
@api_route("POST", allow=Policy.SIGNED_IN)
def reauthenticate(request: Request) -> Response:
    """Confirm the person's identity in this session. The attempt is counted before its body is read."""
    user = person(request)
    if not ratelimit.consume(request._request, app="allauth.account", action="reauthenticate", user=user):
        record_failed_sign_in(user, step=TOO_MANY, actor=user)
        raise too_many_attempts("reauthenticate")
    read_query(request)
    proof = read_body(request, Proof)
    if "code" in proof:
        code_form = CodeAgainForm(data=proof, user=user)
        check(code_form, refused=PortalError("invalid_code", "The code is wrong or was used before.", 403))
        code_form.save()
    else:
        check(
            ReauthenticateForm(data=proof, user=user),
            refused=PortalError("invalid_credentials", "The password is wrong.", 403),
        )
        flows.reauthentication.reauthenticate_by_password(request._request)
    return Response(status=204)


def build_session(user: User) -> dict[str, Any]:
    """Return the body that describes the user's session, without suspended organizations. *Costs* one query."""
    memberships = Membership.objects.accepted().filter(user=user, organization__is_active=True)
    return {
        "user": {"email": user.email, "name": user.name},
        "organizations": [
            {"slug": membership.organization.slug, "name": membership.organization.name, "role": membership.role}
            for membership in memberships.select_related("organization")
        ],
    }


def sign_in(request: HttpRequest, *, email: str, password: str, code: str | None = None) -> User:
    """Sign the person in on this request's session, under a new session key. The caller has counted the attempt.

    1. Check the password, then the code, before anything changes. A refusal leaves the session unchanged.
    2. Sign out the current user, if any.
    3. Run allauth's sign-in with its stages, which records the methods and rotates the key.

    *Raises* PortalError 401 `invalid_credentials`, `mfa_required`, `invalid_code`; 429 `too_many_attempts`.
    """
    password_form = SignInForm(data={"login": email, "password": password}, request=request)
    check(password_form, refused=PortalError("invalid_credentials", "The e-mail address or password is wrong.", 401))
    person: User = password_form.user
    if not person.is_active:
        record_failed_sign_in(person, step="account switched off")
        raise PortalError("invalid_credentials", "The e-mail address or password is wrong.", 401)
    code_form = check_second_factor(person, code)
    flows.logout.logout(request)
    password_form.login(request)
    stage = get_pending_stage(request)
    if code_form and stage:
        code_form.save()
        stage.exit()
    if not request.user.is_authenticated:
        raise PortalError("invalid_credentials", "The portal could not sign you in. Use the sign-in page.", 401)
    return person


def check_second_factor(person: User, code: str | None) -> CodeForm | None:
    """Return the form of the accepted code; None for a person without two-factor authentication.

    Each code works once.
    """
    if not has_two_factor(person):
        return None
    if not code:
        raise PortalError(
            "mfa_required", "This person uses two-factor authentication. Send email, password and code together.", 401
        )
    form = CodeForm(data={"code": code}, user=person)
    check(
        form, refused=PortalError("invalid_code", "The code is wrong or was used before. Wait for the next one.", 401)
    )
    return form


def check(form: Form, *, refused: PortalError) -> None:
    """Raise `refused` if the form is not valid, or 429 if allauth counted too many failures."""
    if form.is_valid():
        return
    codes = {error.code for field in form.errors.as_data().values() for error in field}
    raise too_many_attempts("login_failed") if LIMITED in codes else refused


def consume_sign_in_rate(request: HttpRequest) -> None:
    """Count this request against the rate limit of the sign-in page. Raises PortalError 429, after recording it."""
    if not ratelimit.consume(request, app="allauth.account", action="login"):
        record_failed_sign_in(None, step=TOO_MANY)
        raise too_many_attempts("login")


def too_many_attempts(action: str) -> PortalError:
    rates = ratelimit.get_rates(app="allauth.account", action=action)
    return PortalError(
        "too_many_attempts",
        "Too many sign-in attempts. Wait, then try again.",
        429,
        retry_after=int(max(rate.duration for rate in rates)),
    )
