"""The form that creates a deployment."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from deployments import commands
from deployments.models import Agent, Deployment
from deployments.pages.forms import FIELDS_OF_COMMANDS, DeploymentForm
from portal.access import Policy, get_page_organization, person, policy
from portal.models import User
from portal.web.context import page_context
from portal.web.forms import submit


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Deploy an agent. Viewers see a disabled form with the reason."""
    organization = get_page_organization(request, slug)
    agents = Agent.objects.visible_to(request.user).filter(organization=organization).order_by("name", "id")
    initial = {name: request.GET.get(name) for name in ("agent", "version")}
    form = DeploymentForm(organization, agents, request.POST or None, initial=initial)
    status = 200
    if request.method == "POST":
        deployment, status = submit(form, lambda: deploy(form, actor=person(request)), names=FIELDS_OF_COMMANDS)
        if deployment:
            return redirect("deployments:detail", slug, deployment.pk)
    chosen = next((each for each in agents if str(each.pk) == str(form["agent"].value())), None)
    context = page_context(request, organization) | {"form": form, "agents": agents, "chosen": chosen}
    return render(request, "deployments/new.html", context, status=status)


def deploy(form: DeploymentForm, *, actor: User) -> Deployment:
    asked = form.cleaned_data
    return commands.create_deployment(
        asked["agent"],
        actor=actor,
        replicas=asked["replicas"],
        version=asked["version"] or None,
        idempotency_key=asked["idempotency_key"],
    )
