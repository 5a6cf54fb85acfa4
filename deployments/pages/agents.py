"""Pages of agents: list, detail with deployments, new and edit. They use the same queries and commands as the API."""

from functools import cache
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db.models import UUIDField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from deployments import commands
from deployments.container_spec import is_secret_reference
from deployments.lists import deployments_page
from deployments.models import Agent, Deployment, Revision
from deployments.pages.agent_forms import AgentForm, build_initial
from deployments.pages.forms import FIELDS_OF_COMMANDS
from deployments.states import Status, find_worst
from portal.access import Policy, get_page_organization, person, policy
from portal.database.statements import Given
from portal.database.together import Together
from portal.errors import found_or_404
from portal.models import Organization, User
from portal.pagination import DEFAULT_LIMIT, paginate
from portal.web.context import page_context
from portal.web.csv import MAX_ROWS
from portal.web.forms import submit
from portal.web.htmx import render_page
from portal.web.neighbours import opened_from

DEPLOYMENTS_SHOWN, REVISIONS_SHOWN = 20, 5


@policy(Policy.VIEWER)
@require_safe
def list_agents(request: HttpRequest, slug: str) -> HttpResponse:
    organization = get_page_organization(request, slug)
    q = request.GET.get("q", "").strip()[:80]
    skip = request.GET.get("skip", "0")
    agents = Agent.objects.visible_to(request.user).for_list(organization, q=q or None).with_worst_status()
    context = page_context(request, organization) | {
        "page": paginate(agents, skip=int(skip) if skip.isdecimal() and len(skip) < 9 else 0, limit=DEFAULT_LIMIT),
        "q": q,
        "query_without_skip": urlencode({"q": q}) if q else "",
        "csv_url": reverse("agents:csv", args=[slug]),
        "most_rows": MAX_ROWS,
    }
    return render_page(request, "deployments/agents/list.html", "deployments/agents/_rows.html", context)


@policy(Policy.VIEWER)
@require_safe
def detail(request: HttpRequest, slug: str, agent_id: UUID) -> HttpResponse:
    """Render the agent with its settings, its deployments and their worst status, and its newest revisions."""
    organization = get_page_organization(request, slug)
    read = make_detail().read(organization=organization.pk, agent=agent_id)
    agent: Agent = found_or_404(next(iter(read["agent"]), None))
    current: list[Deployment] = read["current"]
    context = page_context(request, organization) | {
        "agent": agent,
        "status": find_worst({each.status for each in current}),
        "rolling": [each for each in current if each.is_rolling],
        "variables": build_variables(agent.environment),
        "revisions": read["revisions"],
        "page": deployments_page(request.user, organization, skip=0, limit=DEPLOYMENTS_SHOWN, agent_id=agent.pk),
        "labels": dict(Status.choices),
        "opened_from": opened_from({"agent": str(agent.pk)}),
    }
    return render(request, "deployments/agents/detail.html", context)


@cache
def make_detail() -> Together:
    """Return the statement of an agent with its current deployments and its newest revisions."""
    agent, own = Given("agent", UUIDField()), Given("organization", UUIDField())
    current = Deployment.objects.current_of(own, agent)
    revisions = Revision.objects.filter(organization=own).for_list(agent)
    return Together(
        agent=Agent.objects.for_detail().filter(organization=own, pk=agent),
        current=current.select_related("target_revision", "live_revision"),
        revisions=revisions[:REVISIONS_SHOWN],
    )


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    organization = get_page_organization(request, slug)
    form = AgentForm(request.POST or None)
    status = 200
    if request.method == "POST":
        agent, status = submit(form, lambda: create(form, organization, person(request)), names=FIELDS_OF_COMMANDS)
        if agent:
            messages.success(request, f"{agent.name} created. Deploy it to run it.")
            return redirect("agents:detail", slug, agent.pk)
    context = page_context(request, organization) | {"form": form, "agent": None}
    return render(request, "deployments/agents/form.html", context, status=status)


def create(form: AgentForm, organization: Organization, actor: User) -> Agent:
    key = form.cleaned_data["idempotency_key"]
    return commands.create_agent(organization, actor=actor, idempotency_key=key, **form.fields_of_agent())


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str, agent_id: UUID) -> HttpResponse:
    organization = get_page_organization(request, slug)
    agent = find_agent(request, organization, agent_id)
    chosen = {"image": request.GET["image"]} if request.GET.get("image") else {}
    form = AgentForm(request.POST or None, initial=build_initial(agent) | chosen)
    status = 200
    if request.method == "POST":
        saved, status = submit(
            form,
            lambda: commands.update_agent(agent, actor=person(request), **form.fields_of_agent()),
            names=FIELDS_OF_COMMANDS,
        )
        if saved:
            messages.success(request, "Changes saved. They apply to future deployments.")
            return redirect("agents:detail", slug, agent.pk)
    context = page_context(request, organization) | {"form": form, "agent": agent}
    return render(request, "deployments/agents/form.html", context, status=status)


def find_agent(request: HttpRequest, organization: Organization, agent_id: UUID) -> Agent:
    """Return the agent. *Raises* PortalError 404 if it does not exist or belongs to another organization."""
    visible = Agent.objects.visible_to(request.user).for_detail()
    return found_or_404(visible.filter(organization=organization, pk=agent_id).first())


def build_variables(environment: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, "is_secret": is_secret_reference(value)}
        for name, value in sorted(environment.items())
    ]
