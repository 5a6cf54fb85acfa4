"""Pages of an agent's revisions: all of them, one with its differences from another, and the return to one."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from deployments import commands
from deployments.models import Agent, Deployment, Revision, find_numbers
from deployments.pages.agents import build_variables, find_agent
from deployments.revisions import compare, find_newest_number, must_roll
from portal.access import Policy, get_page_organization, person, policy
from portal.errors import found_or_404
from portal.pagination import DEFAULT_LIMIT, paginate
from portal.web.context import get_skip, page_context
from portal.web.forms import IdempotentForm, submit

# Revisions offered for a comparison, the newest ones.
OFFERED = 100


class RestoreForm(IdempotentForm):
    """`newest` is the number of the newest revision that the page showed."""

    newest = forms.IntegerField(widget=forms.HiddenInput, min_value=1)


@policy(Policy.VIEWER)
@require_safe
def list_revisions(request: HttpRequest, slug: str, agent_id: UUID) -> HttpResponse:
    organization = get_page_organization(request, slug)
    agent = find_agent(request, organization, agent_id)
    rows = Revision.objects.visible_to(request.user).for_list(agent)
    page = paginate(rows, skip=get_skip(request), limit=DEFAULT_LIMIT)
    is_first = page.items and not page.skip
    newest = page.items[0].number if is_first else find_newest_number(agent)
    context = page_context(request, organization) | {"agent": agent, "page": page, "newest": newest}
    return render(request, "deployments/agents/revisions.html", context)


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, agent_id: UUID, number: int) -> HttpResponse:
    """Render one revision. `?compare=` is the number of the revision to compare with, else the one before it."""
    organization = get_page_organization(request, slug)
    agent = find_agent(request, organization, agent_id)
    revisions = Revision.objects.visible_to(request.user).filter(agent=agent)
    asked = request.GET.get("compare", "")
    is_asked = asked.isascii() and asked.isdecimal() and len(asked) < 10
    found, other = find_numbers(revisions.for_detail(), number, int(asked) if is_asked else number - 1)
    revision = found_or_404(found)
    if is_asked:
        found_or_404(other)
    numbers = list(revisions.exclude(number=number).values_list("number", flat=True)[:OFFERED])
    context = page_context(request, organization) | {
        "agent": agent,
        "revision": revision,
        "variables": build_variables(revision.environment),
        "other": other,
        "differences": compare(other, revision) if other else [],
        "numbers": numbers,
        "newest": max(number, *numbers[:1]) if numbers else number,
    }
    return render(request, "deployments/agents/revision.html", context)


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def restore(request: HttpRequest, slug: str, agent_id: UUID, number: int) -> HttpResponse:
    """Show what the return to a revision changes (GET), then do it (POST)."""
    organization = get_page_organization(request, slug)
    agent = find_agent(request, organization, agent_id)
    revision, newest = find_with_newest(request, agent, number)
    form = RestoreForm(request.POST or None, initial={"newest": newest.number})
    status = 200
    if request.method == "POST":
        made, status = submit(
            form,
            lambda: commands.restore_revision(revision, actor=person(request), **form.cleaned_data),
        )
        if made:
            sentence = f"{agent.name} returns to revision {number}, as revision {made.number}."
            messages.success(request, f"{sentence} The status here updates as ECS reports it.")
            return redirect("agents:detail", slug, agent.pk)
        form.renew_key(newest=str(newest.number))
    context = page_context(request, organization) | {
        "agent": agent,
        "revision": revision,
        "newest": newest,
        "differences": compare(newest, revision),
        "effects": describe_effects(agent, revision, newest),
        "form": form,
    }
    return render(request, "deployments/agents/restore.html", context, status=status)


def find_with_newest(request: HttpRequest, agent: Agent, number: int) -> tuple[Revision, Revision]:
    """Return a revision of the agent, and the newest one. *Raises* PortalError 404 if there is none with this number."""
    revisions = Revision.objects.visible_to(request.user).filter(agent=agent)
    newest = revisions.order_by("-number").values("pk")[:1]
    found = list(revisions.for_detail().filter(Q(number=number) | Q(pk=newest)).order_by("-number"))
    return found_or_404(next((each for each in found if each.number == number), None)), found[0]


def describe_effects(agent: Agent, revision: Revision, newest: Revision) -> list[str]:
    """Return sentences that say what the return will do. *Costs* one query."""
    current = Deployment.objects.current(agent).select_related("target_revision", "live_revision")
    moved = [each for each in current if not each.is_stopping]
    sentences = [describe_roll(each, revision) for each in moved]
    if not moved:
        sentences.append("No deployment of the agent is live. A new one with 1 task is created.")
    sentences.append(f"New deployments use the settings of revision {revision.number} as well.")
    if has_edits(agent, newest):
        sentences.append("The agent was edited after its newest deploy. These changes are replaced too.")
    if revision.digest is None:
        sentences.append("The digest of its image is not known. ECS runs what the tag names now.")
    return sentences


def describe_roll(deployment: Deployment, revision: Revision) -> str:
    if not must_roll(deployment, revision):
        return f"Deployment {deployment.short_id} runs these settings already. It is left alone."
    tasks = f"{deployment.replicas} task{'' if deployment.replicas == 1 else 's'}"
    runs = deployment.live_revision or deployment.target_revision
    before = f" of revision {runs.number}" if runs else ""
    if deployment.status == "failed":
        return f"Deployment {deployment.short_id} has failed. ECS starts {tasks} of it again."
    return f"Deployment {deployment.short_id}: ECS replaces {tasks}{before}, and starts new tasks before it stops old ones."


def has_edits(agent: Agent, newest: Revision) -> bool:
    """Return whether the agent's size or environment was changed since; a deploy may have chosen another version."""
    return (agent.cpu, agent.memory, agent.environment) != (newest.cpu, newest.memory, newest.environment)


def build_sides(before: Revision, after: Revision) -> list[dict[str, Any]]:
    """Return rows with both revisions side by side: image, digest and size, and the variables that differ."""
    sizes = [
        ("Image", before.image, after.image),
        ("Digest", before.digest, after.digest),
        ("CPU", before.cpu, after.cpu),
        ("Memory", before.memory, after.memory),
    ]
    rows = [{"name": name, "before": old, "after": new, "differs": old != new} for name, old, new in sizes]
    variables = [each for each in compare(before, after) if each.is_variable]
    return rows + [
        {"name": each.name, "before": each.before, "after": each.after, "differs": True, "is_variable": True}
        for each in variables
    ]
