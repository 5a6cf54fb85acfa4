"""Which secrets an organization's agents may name: those of its own AWS account, and of accounts that staff list.

The execution role of a shared account could read the secrets of every organization in it, so there the names must begin
with the prefix that staff set. Only new references are checked; an agent keeps those that it has.
"""

from django.db import connection

from deployments.container_spec import is_secret_reference
from portal.aws.errors import AwsError
from portal.aws.sts import own_account
from portal.models import Organization
from portal.tenancy import all_organizations


def reference_errors(organization: Organization, environment: dict[str, str], kept: dict[str, str]) -> list[str]:
    """Return a sentence for each reference that is not the organization's to use. `kept` holds the agent's present values.

    *Costs* nothing without a new reference; else one query, and one AWS call in the life of the process.
    """
    new = {name: arn for name, arn in environment.items() if is_secret_reference(arn) and kept.get(name) != arn}
    if not new:
        return []
    try:
        portal_account = own_account(organization.deployment_region)
    except AwsError:
        return [
            "AWS does not say now which account is the portal's, so references to secrets cannot be checked. Try again."
        ]
    own = organization.account or portal_account
    allowed = [own, *(each.strip() for each in organization.secret_accounts.split(",") if each.strip())]
    sentences = []
    for name, arn in new.items():
        account, path = split_reference(arn)
        if account not in allowed:
            sentences.append(
                f"{name}: this secret is in AWS account {account}. Agents of {organization.name} may use secrets of "
                f"{', '.join(dict.fromkeys(allowed))}. Staff can list more accounts in Django admin."
            )
        elif organization.secret_prefix:
            if not path.startswith(organization.secret_prefix):
                sentences.append(f"{name}: the secret's name must begin with {organization.secret_prefix}.")
        elif is_shared(organization, account, portal_account):
            sentences.append(
                f"{name}: AWS account {account} is shared, so staff must first set the prefix of "
                f"{organization.name}'s secrets in Django admin."
            )
    return sentences


def split_reference(arn: str) -> tuple[str, str]:
    """Return account and name of a secret or parameter.

    >>> split_reference("arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/db-1a2b3c:user::")
    ('111111111111', 'acme/db-1a2b3c:user::')
    >>> split_reference("arn:aws:ssm:eu-central-1:111111111111:parameter/acme/db")
    ('111111111111', 'acme/db')
    """
    _, _, _, _, account, resource = arn.split(":", 5)
    return account, resource.removeprefix("secret:").removeprefix("parameter/").lstrip("/")


def is_shared(organization: Organization, account: str, portal_account: str) -> bool:
    """Return whether another organization that is set up uses the account. A function of the database (0040) sees them."""
    with all_organizations("others may share the account"), connection.cursor() as cursor:
        cursor.execute("SELECT portal_account_is_shared(%s, %s, %s)", [organization.pk, account, portal_account])
        return bool(cursor.fetchone()[0])
