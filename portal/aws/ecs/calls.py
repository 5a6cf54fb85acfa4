"""Makes this package's calls to ECS, each with its scope, and parses what their replies have in common."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from portal.aws import calls
from portal.aws.credentials import AwsTarget, client
from portal.aws.errors import AwsUnavailable, translated
from portal.aws.permissions import Scope, Use
from portal.credential_shapes import mask_credentials


def read(target: AwsTarget, action: str, method: str, **parameters: Any) -> dict[str, Any]:
    """Make a read with one call, in a session that reaches the cluster of the parameters only."""
    scope = Scope(cluster=_cluster_of(parameters) or target.cluster)
    return calls.read(target, "ecs", action, method, scope=scope, parameters=parameters)


def _cluster_of(parameters: dict[str, Any]) -> str | None:
    """Return the name of the cluster that a read names, in a parameter of its own or in an ARN."""
    named = parameters.get("cluster") or next(iter(parameters.get("clusters", [])), None)
    arns = parameters.get("serviceDeploymentArns") or parameters.get("serviceRevisionArns") or []
    return last_part(named) if named else next((scope_of(arn).cluster for arn in arns), None)


def scope_of(arn: str) -> Scope:
    """Return the scope of writes to a service deployment (`arn:..:service-deployment/<cluster>/<service>/<id>`)."""
    parts = arn.split("/")
    return Scope(Use.SERVICE, parts[1], parts[2]) if len(parts) == 4 else Scope(Use.SERVICE)


def open_writer(target: AwsTarget, action: str, scope: Scope) -> Any:
    """Return the client for one write, with its role assumed. If this fails, the write was not sent."""
    try:
        with translated(action):
            return client(target, "ecs", writes=True, scope=scope)
    except AwsUnavailable as error:
        error.may_have_happened = False
        raise


def batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def is_named_in(reply: dict[str, Any], name: str) -> bool:
    """Return whether ECS lists the name among the `failures` of the reply: it does not exist."""
    return name in {last_part(each.get("arn")) for each in reply.get("failures", [])}


def last_part(arn: str | None) -> str:
    return (arn or "").rpartition("/")[2]


def answered_at(reply: dict[str, Any]) -> datetime:
    date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def masked(reported: str | None) -> str | None:
    """Return a text of ECS about a service, with credentials masked. Applications and registries write parts of it."""
    return mask_credentials(reported) if reported else reported
