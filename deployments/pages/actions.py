"""Pages that run commands: on one deployment from its page, or on several from the list."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.views.decorators.http import require_http_methods

from deployments import commands
from deployments.models import Deployment
from deployments.pages.action_words import (
    DONE,
    LABELS,
    TYPED_ABOVE,
    Bulk,
    BulkRow,
    build_confirmation,
    build_refusal_sentence,
    describe_consequence,
)
from deployments.pages.context import find_deployment
from deployments.pages.forms import FORMS, TypedForm
from deployments.states import Command, Status
from portal.access import Policy, get_page_organization, person, policy
from portal.attempts import note_refusal
from portal.errors import NOT_FOUND, PortalError
from portal.models import Organization, User
from portal.web.context import page_context
from portal.web.forms import submit
from portal.web.htmx import render_page, wants_fragment

BULK_COMMANDS = {Command.RESTART, Command.STOP, Command.KILL}
MAX_ROWS = 50


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def act(request: HttpRequest, slug: str, deployment_id: UUID, command: str) -> HttpResponse:
    """Show what the command will do (GET), then run it (POST).

    Renders a part of the deployment's page for htmx, else a page of its own.
    """
    organization = get_page_organization(request, slug)
    deployment = find_deployment(request, organization, deployment_id)
    if command not in FORMS:
        raise PortalError("not_found", NOT_FOUND, 404)
    requested = Command(command)
    form = FORMS[requested](deployment, request.POST or None)
    context = page_context(request, organization)
    may_not_reason = context["may_not_reason"]
    status = 200
    if request.method == "POST" and may_not_reason:
        form.add_error(None, may_not_reason)
        status = 403
    elif request.method == "POST":
        actor = person(request)
        _, status = submit(form, lambda: run_named_command(requested, deployment, actor=actor, **form.cleaned_data))
        if status == 200:
            return respond_done(request, deployment, build_done_sentence(requested, deployment, form.cleaned_data))
    confirmation = build_confirmation(requested, deployment, may_not_reason)
    context |= {"deployment": deployment, "form": form, "act": confirmation}
    return as_part(render_page(request, "deployments/action.html", "deployments/_action.html", context, status=status))


def run_named_command(command: Command, deployment: Deployment, *, actor: User, **asked: Any) -> None:
    """Run a command by its name. *Raises* the command's PortalError."""
    key = asked.get("idempotency_key")
    if command == Command.SCALE:
        commands.scale_deployment(deployment, actor=actor, replicas=asked["replicas"], idempotency_key=key)
    elif command == Command.STOP:
        commands.stop_deployment(deployment, actor=actor, idempotency_key=key)
    elif command == Command.RESTART:
        commands.restart_deployment(deployment, actor=actor, idempotency_key=key)
    else:
        commands.kill_deployment(deployment, actor=actor, idempotency_key=key)


def build_done_sentence(command: Command, deployment: Deployment, asked: dict[str, Any]) -> str:
    to = f" to {asked['replicas']}" if command == Command.SCALE else ""
    return f"{DONE[command]}: {deployment.agent.name}{to}. The status here updates as ECS reports it."


def respond_done(request: HttpRequest, deployment: Deployment, sentence: str) -> HttpResponse:
    """Render the confirmation and make the live regions refresh. Without htmx, redirect to the deployment."""
    if not wants_fragment(request):
        messages.success(request, sentence)
        return redirect("deployments:detail", deployment.organization.slug, deployment.pk)
    body = render_to_string("deployments/_action_done.html", {"sentence": sentence}, request)
    return as_part(HttpResponse(body, headers={"HX-Trigger": "changed"}))


@policy(Policy.OPERATOR)
@require_http_methods(["POST"])
def bulk(request: HttpRequest, slug: str) -> HttpResponse:
    """Run one command on several deployments. A refusal of one shows its reason and does not stop the others."""
    organization = get_page_organization(request, slug)
    context = page_context(request, organization)
    context["bulk"] = asked = build_bulk(request, organization, context["may_not_reason"])
    response = render_page(request, "deployments/bulk.html", "deployments/_bulk.html", context, status=asked.status)
    if asked.is_done:
        response["HX-Trigger"] = "changed"
    return as_part(response)


def build_bulk(request: HttpRequest, organization: Organization, may_not_reason: str | None) -> Bulk:
    """Run the command if it was confirmed. Return the results, the refusal or the confirmation."""
    name = request.POST.get("command", "")
    if name not in BULK_COMMANDS:
        return Bulk(name, "Bulk action", status=422, error="Choose Restart, Stop or Kill.")
    command, deployments = Command(name), get_selected(request, organization)
    count = len(deployments)
    title = f"{LABELS[command]} {count} deployment{'' if count == 1 else 's'}"
    if may_not_reason:
        return Bulk(name, title, status=403, error=may_not_reason)
    if not deployments:
        error = "Select at least one deployment first."
        return Bulk(name, f"{LABELS[command]} deployments", status=422, error=error)
    if len(request.POST.getlist("id")) > MAX_ROWS:
        error = f"Select at most {MAX_ROWS} deployments at a time."
        return Bulk(name, f"{LABELS[command]} deployments", status=422, error=error)
    form = build_confirmation_form(request, command, count)
    if form.is_valid():
        return Bulk(name, title, rows=run_bulk(command, deployments, person(request)), is_done=True)
    return Bulk(
        name,
        f"{title}?",
        status=422 if form.is_bound else 200,
        verb=title,
        consequence=describe_consequence(command),
        rows=[preview_row(command, deployment) for deployment in deployments],
        form=form,
    )


def build_confirmation_form(request: HttpRequest, command: Command, count: int) -> forms.Form:
    """Return the form that confirms, bound once it was sent: by typing for a kill and for many rows, else by its button."""
    sent = request.POST if request.POST.get("is_sure") else None
    if command != Command.KILL and count <= TYPED_ABOVE:
        return forms.Form(sent)
    return TypedForm(f"{command.value} {count}", sent)


def get_selected(request: HttpRequest, organization: Organization) -> list[Deployment]:
    """Return the selected deployments of the organization. Invalid and other organizations' ids are ignored.

    *Costs* one query.
    """
    ids = []
    for text in request.POST.getlist("id")[:MAX_ROWS]:
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    visible = Deployment.objects.visible_to(request.user).matching(organization)
    return list(visible.filter(pk__in=ids).select_related("agent", "organization"))


def preview_row(command: Command, deployment: Deployment) -> BulkRow:
    refusal = build_refusal_sentence(deployment.refusal(command))
    if refusal:
        return BulkRow(deployment, "refused", f"No change. {refusal}")
    if command == Command.KILL and deployment.status == Status.KILLED:
        return BulkRow(deployment, "refused", "No change. It is already killed.")
    tasks = f"{deployment.running_replicas} running task{'' if deployment.running_replicas == 1 else 's'}"
    sentence = {
        Command.RESTART: f"{deployment.replicas} task{'' if deployment.replicas == 1 else 's'} will start.",
        Command.STOP: f"Its {tasks} will stop.",
        Command.KILL: f"Its {tasks} will stop, and its service will be deleted.",
    }[command]
    return BulkRow(deployment, "will", sentence)


def run_bulk(command: Command, deployments: list[Deployment], actor: User) -> list[BulkRow]:
    rows = []
    for deployment in deployments:
        try:
            run_named_command(command, deployment, actor=actor)
        except PortalError as error:
            note_refusal(error)
            rows.append(BulkRow(deployment, "refused", f"Not done. {error.message.rstrip('.')}."))
        else:
            deployment.refresh_from_db(fields=["status", "running_replicas"])
            rows.append(BulkRow(deployment, "done", f"{DONE[command]}."))
    return rows


def as_part(response: HttpResponse) -> HttpResponse:
    """Mark the response so that confirm.js shows even a refusal in the page, unlike an error page."""
    response["HX-Part"] = "act"
    return response
