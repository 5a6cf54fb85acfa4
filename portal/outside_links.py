"""An organization's links to other systems: templates of addresses that its admins write, filled in where they help.

A template without a value for one of its placeholders gives no link there, such as one with {agent} at a platform service.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from django.core.exceptions import ValidationError

MAX_LENGTH = 600
# By the column of Organization.
LABELS = {
    "ecs_link": "ECS console",
    "logs_link": "CloudWatch",
    "runbook_link": "Runbook",
    "ticket_link": "Ticket",
}
PLACEHOLDERS = (
    *("organization", "environment", "region", "cluster", "service", "log_group", "agent", "deployment", "upgrade"),
    "version",
)
# The CloudWatch console writes `%` of a name that is quoted twice as `$`.
IN_CONSOLE = "log_group_in_console"
PLACEHOLDER = re.compile(r"{([^{}]*)}")
ADDRESS = re.compile(r"https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][!-~]*)?")


@dataclass(frozen=True)
class OutsideLink:
    label: str
    href: str


def check_template(text: str) -> None:
    """Refuse what is no address, or names an unknown placeholder. Only {region} may be a part of the host."""
    unknown = set(PLACEHOLDER.findall(text)) - {*PLACEHOLDERS, IN_CONSOLE}
    if unknown:
        raise ValidationError(f"There is no {{{min(unknown)}}}.", code="invalid")
    host_known = text.replace("{region}", "r")
    rest = PLACEHOLDER.sub("", host_known)
    host = host_known.partition("://")[2]
    if not ADDRESS.fullmatch(rest) or "{" in re.split(r"[/?#]", host, maxsplit=1)[0] or set("<>\"'`{}\\") & set(rest):
        raise ValidationError("Use an address such as https://wiki.example.com/{agent}.", code="invalid")


def fill_templates(templates: dict[str, str], values: dict[str, str | None]) -> list[OutsideLink]:
    """Return the links. `templates`: by column, empty for none. `values`: by placeholder; None or empty if unknown."""
    quoted = {name: quote(value, safe="") for name, value in values.items() if value}
    if "log_group" in quoted:
        quoted[IN_CONSOLE] = quote(quoted["log_group"], safe="").replace("%", "$")
    return [
        OutsideLink(LABELS[column], PLACEHOLDER.sub(lambda found: quoted[found[1]], template))
        for column, template in templates.items()
        if template and all(name in quoted for name in PLACEHOLDER.findall(template))
    ]
