"""Removes the scope of a read in 20 places, one at a time, in a copy of the tree. There, tests/portal/probe_scopes.py
requests every address and searches for what belongs to another organization.

    make isolation ARGS="--only agent"

Without --control, row-level security is the second wall and no mutant may leak. With it, every request works in the
context of all organizations, as if there were no second wall: this shows that the mutants are real.
"""

import argparse
import time

from bench.mutants import Mutant, run_mutated

COPIED = ("portal", "upgrades", "deployments", "templates", "static", "tests", "manage.py", "pyproject.toml", "docs")
TEST = "tests/portal/probe_scopes.py"
LEAKED = "AssertionError: leaked at "


NO_SECOND_WALL = Mutant("all organizations", "portal/tenancy.py", "    return _context.get()", "    return ALL")
ACCESS, PEOPLE = "portal/access.py", "portal/models/people.py"
CHANNELS = "portal/notifications/views.py"
DEPLOYMENTS, AGENTS = "deployments/models.py", "deployments/pages/agents.py"
READS = "deployments/api/reads.py"
MUTANTS = (
    Mutant(
        "organizations a person sees",
        PEOPLE,
        "return user.access.ids(user.entered)",
        "return Organization.objects.filter(is_active=True)",
    ),
    Mutant(
        "organization of a page",
        ACCESS,
        "named = (each for each in list_organizations(request.user) if each.slug == slug)",
        "named = iter(Organization.objects.filter(slug=slug))",
    ),
    Mutant(
        "switcher of organizations",
        ACCESS,
        'return list_organizations(getattr(request, "user", AnonymousUser()))',
        "return list(Organization.objects.all())",
    ),
    Mutant(
        "organizations of the session",
        "portal/accounts/api.py",
        "Membership.objects.accepted().filter(user=user, organization__is_active=True)",
        "Membership.objects.accepted().filter(organization__is_active=True)",
    ),
    Mutant(
        "start page",
        "portal/web/views.py",
        "list_organizations(request.user)",
        '__import__("portal.models").models.Organization.objects.all()',
    ),
    Mutant(
        "list of members",
        PEOPLE,
        "return self.filter(organization=organization).select_related",
        "return self.select_related",
    ),
    Mutant(
        "one member",
        "portal/members/views.py",
        "visible.filter(organization=organization, pk=membership_id)",
        "Membership.objects.filter(pk=membership_id)",
    ),
    Mutant(
        "list of channels",
        "portal/models/notifications.py",
        "            self.filter(organization=organization)\n",
        "            NotificationChannel.objects.all()\n",
    ),
    Mutant(
        "one channel",
        CHANNELS,
        "visible.filter(organization=organization, pk=channel_id)",
        "NotificationChannel.objects.filter(pk=channel_id)",
    ),
    Mutant(
        "log of a channel",
        CHANNELS,
        "NotificationDelivery.objects.visible_to(request.user).filter(channel=channel)",
        "NotificationDelivery.objects",
    ),
    Mutant(
        "history of upgrades",
        "upgrades/models.py",
        "self.visible_to(user)\n            .filter(organization=organization)\n",
        "self\n",
    ),
    Mutant(
        "one upgrade on a page",
        "upgrades/pages/context.py",
        'Upgrade.objects.filter(organization=Given("organization"), upgrade_id',
        "Upgrade.objects.filter(upgrade_id",
    ),
    Mutant(
        "one upgrade in the API",
        "upgrades/api/upgrades.py",
        "visible = Upgrade.objects.visible_to(request.user).for_record()",
        "visible = Upgrade.objects.for_record()",
    ),
    Mutant(
        "open upgrades of the overview",
        "upgrades/pages/lanes.py",
        'Upgrade.objects.filter(organization=Given("organization"), status__in=OPEN)',
        "Upgrade.objects.filter(status__in=OPEN)",
    ),
    Mutant(
        "list of deployments",
        DEPLOYMENTS,
        "found = self.filter(organization=organization)\n        if status",
        "found = Deployment.objects.all()\n        if status",
    ),
    Mutant(
        "one deployment on a page",
        "deployments/pages/context.py",
        "visible.filter(organization=organization, pk=deployment_id)",
        "Deployment.objects.for_detail().filter(pk=deployment_id)",
    ),
    Mutant(
        "one deployment in the API",
        READS,
        "Deployment.objects.visible_to(user).filter",
        "Deployment.objects.filter",
    ),
    Mutant(
        "one agent in the API",
        READS,
        "Agent.objects.visible_to(user).filter",
        "Agent.objects.filter",
    ),
    Mutant(
        "list of agents",
        DEPLOYMENTS,
        "found = self.filter(organization=organization)\n        if q:\n            found = found.filter(name",
        "found = Agent.objects.all()\n        if q:\n            found = found.filter(name",
    ),
    Mutant(
        "one agent on a page",
        AGENTS,
        "visible.filter(organization=organization, pk=agent_id)",
        "Agent.objects.for_detail().filter(pk=agent_id)",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make isolation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--control", action="store_true", help="without the second wall")
    parser.add_argument("--only", default="", help="only mutants whose names contain this text")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    leaks = 0
    for mutant in chosen:
        began = time.monotonic()
        leak = find_leak(mutant, *([NO_SECOND_WALL] if options.control else []))
        leaks += leak is not None
        seconds = time.monotonic() - began
        print(
            f"{'LEAKED' if leak else 'nothing':8} {mutant.name} ({seconds:.0f} s){f': {leak}' if leak else ''}",
            flush=True,
        )
    wall = "without" if options.control else "with"
    print(f"{leaks} of {len(chosen)} removed scopes leaked {wall} row-level security.")
    return 1 if bool(leaks) != options.control else 0


def find_leak(*mutants: Mutant) -> str | None:
    """Return the first address that shows the canary of another organization; None if no address does."""
    run = run_mutated(mutants, COPIED, "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", TEST)
    lines = run.stdout.splitlines()
    for line in lines:
        if LEAKED in line:
            return line.partition(LEAKED)[2][:150]
    if run.returncode:
        # Neither a leak nor a pass proves anything.
        raise SystemExit("\n".join([*lines[-30:], run.stderr]))
    return None


if __name__ == "__main__":
    raise SystemExit(main())
