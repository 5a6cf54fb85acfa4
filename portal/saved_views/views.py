"""The pages of saved views. Everybody sees their own and the shared ones; another person's own view does not exist."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import Policy, get_page_organization, person, policy
from portal.errors import found_or_404
from portal.models import Organization, SavedView, ViewedList
from portal.saved_views.commands import change_view, choose_default, remove_view, save_view
from portal.saved_views.forms import ChangeForm, SaveForm
from portal.saved_views.lists import clean_query, describe_query, get_address
from portal.web.context import settings_context
from portal.web.forms import submit


@policy(Policy.VIEWER)
@require_safe
def index(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the views by list. *Costs* one query."""
    organization = get_page_organization(request, slug)
    views = list(SavedView.objects.offered(person(request), organization).select_related("user"))
    lists = [
        (listed.label, [describe(view, organization) for view in views if view.list == listed]) for listed in ViewedList
    ]
    context = settings_context(request, organization) | {"lists": lists, "has_views": bool(views)}
    return render(request, "portal/saved_views/list.html", context)


def describe(view: SavedView, organization: Organization) -> dict[str, Any]:
    return {
        "view": view,
        "href": get_address(organization, view.list, view.query),
        "filters": describe_query(view.query),
    }


@policy(Policy.VIEWER)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the form with the filters in `query`, and save them."""
    organization = get_page_organization(request, slug)
    context = settings_context(request, organization)
    asked = {"list": request.GET.get("list", ""), "query": clean_query(request.GET.get("query", ""))}
    form = SaveForm(context["may_act"], request.POST or None, initial=asked)
    status = 200
    if request.method == "POST":
        saved, status = submit(form, lambda: save(request, organization, form))
        if saved:
            messages.success(request, f"The view {saved.name} is saved.")
            return redirect(get_address(organization, saved.list, saved.query))
    query = str(form["query"].value() or "")
    context |= {"form": form, "filters": describe_query(query), "listed": find_list(form["list"].value())}
    context["back"] = get_address(organization, context["listed"], query)
    return render(request, "portal/saved_views/new.html", context, status=status)


def save(request: HttpRequest, organization: Organization, form: SaveForm) -> SavedView:
    asked = dict(form.cleaned_data)
    return save_view(organization, actor=person(request), listed=asked.pop("list"), **asked)


def find_list(name: Any) -> ViewedList:
    return ViewedList(name) if name in ViewedList.values else ViewedList.DEPLOYMENTS


@policy(Policy.VIEWER)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str, view_id: UUID) -> HttpResponse:
    """Render the form with name and sharing, and change the view. Raises PortalError 404, also for another person's."""
    organization, view = find_view(request, slug, view_id)
    context = view_context(request, organization, view)
    now = {"name": view.name, "is_shared": view.is_shared}
    form = ChangeForm(context["may_share"], request.POST or None, initial=now)
    status = 200
    if request.method == "POST":
        changed, status = submit(form, lambda: change_view(view, actor=person(request), **form.cleaned_data))
        if changed:
            messages.success(request, f"The view {changed.name} is saved.")
            return redirect("saved_views:list", slug)
    return render(request, "portal/saved_views/edit.html", context | {"form": form}, status=status)


@policy(Policy.VIEWER)
@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, slug: str, view_id: UUID) -> HttpResponse:
    """Render the confirmation, and delete the view. Raises PortalError 404, also for another person's."""
    organization, view = find_view(request, slug, view_id)
    if request.method == "POST":
        remove_view(view, actor=person(request))
        messages.success(request, f"The view {view.name} is deleted.")
        return redirect("saved_views:list", slug)
    return render(request, "portal/saved_views/remove.html", view_context(request, organization, view))


@policy(Policy.VIEWER)
@require_POST
def default(request: HttpRequest, slug: str, view_id: UUID) -> HttpResponse:
    """Make the view the person's default of its list; `on` other than 1 ends that."""
    _, view = find_view(request, slug, view_id)
    is_default = request.POST.get("on") == "1"
    choose_default(view, actor=person(request), is_default=is_default)
    listed = ViewedList(view.list).label
    messages.success(
        request, f"{listed} opens {f'with {view.name}' if is_default else 'unfiltered'} for you from now on."
    )
    return redirect("saved_views:list", slug)


def find_view(request: HttpRequest, slug: str, view_id: UUID) -> tuple[Organization, SavedView]:
    organization = get_page_organization(request, slug)
    offered = SavedView.objects.offered(person(request), organization).select_related("organization", "user")
    return organization, found_or_404(offered.filter(pk=view_id).first())


def view_context(request: HttpRequest, organization: Organization, view: SavedView) -> dict[str, Any]:
    """Return the context of a page of one view. Only admins act on a shared one; on an own one its owner acts."""
    context = settings_context(request, organization)
    is_admin = context["may_act"]
    may_act = is_admin or not view.is_shared
    reason = None if may_act else context["may_not_reason"]
    return (
        context | describe(view, organization) | {"may_act": may_act, "may_not_reason": reason, "may_share": is_admin}
    )
