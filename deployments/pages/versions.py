"""The page that picks a version of an agent from its image's repository in Amazon ECR."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.models import Deployment
from deployments.pages.agents import find_agent
from deployments.registry import read_versions
from portal.access import Policy, get_page_organization, policy
from portal.web.context import page_context


@policy(Policy.VIEWER)
@require_safe
def versions(request: HttpRequest, slug: str, agent_id: UUID) -> HttpResponse:
    organization = get_page_organization(request, slug)
    agent = find_agent(request, organization, agent_id)
    current = Deployment.objects.current(agent).select_related("live_revision")
    runs = [each.live_revision for each in current if each.is_live]
    context = page_context(request, organization) | {
        "agent": agent,
        "registry": read_versions(organization, agent.image),
        "live": {revision.digest for revision in runs if revision and revision.digest},
    }
    return render(request, "deployments/agents/versions.html", context)
