"""The settings pages of an organization: notification channels and their logs, approvals. Its members: portal/members.

Every member can read; only admins can make changes. Slack URLs are never shown, and signing secrets only once.
"""

from collections.abc import Callable
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import Policy, get_page_organization, is_fresh, person, policy
from portal.errors import NOT_FOUND, PortalError, found_or_404
from portal.members.approvals import find_too_few_approvers, require_second_approver
from portal.members.links import change_links
from portal.members.safeguards import Safeguard, switch_safeguard
from portal.models import Membership, Organization
from portal.models.notifications import ChannelKind, NotificationChannel, NotificationDelivery
from portal.notifications import commands
from portal.notifications.forms import ChannelForm, LinksForm
from portal.notifications.quiet import get_quiet_hours
from portal.outside_links import IN_CONSOLE, LABELS, PLACEHOLDERS
from portal.pagination import paginate
from portal.web.context import get_skip, settings_context
from portal.web.forms import IdempotentForm, attempt, submit
from portal.web.htmx import render_page

DELIVERIES_SHOWN = 20
# A log refreshes itself while a message is being sent or due within this many seconds.
SOON_SECONDS = 30


@policy(Policy.VIEWER)
@require_safe
def index(request: HttpRequest, slug: str) -> HttpResponse:
    return index_page(request, get_page_organization(request, slug))


def index_page(
    request: HttpRequest, organization: Organization, *, refused: str | None = None, status: int = 200
) -> HttpResponse:
    context = settings_context(request, organization) | {
        "members": Membership.objects.count_by_role(organization),
        "channels": NotificationChannel.objects.visible_to(request.user).for_list(organization),
        "kinds": ChannelKind,
        "too_few_approvers": find_too_few_approvers(organization),
        "linked": [label for name, label in LABELS.items() if getattr(organization, name)],
        "refused": refused,
    }
    return render(request, "portal/notifications/index.html", context, status=status)


@policy(Policy.ADMIN)
@require_POST
def second_approver(request: HttpRequest, slug: str) -> HttpResponse:
    """Switch the requirement of a second person on or off. `on` is 1 or 0, as for `switch`."""
    organization = get_page_organization(request, slug)
    is_required = request.POST.get("on") == "1"
    _, refusal = attempt(lambda: require_second_approver(organization, actor=person(request), is_required=is_required))
    if refusal:
        return index_page(request, organization, refused=refusal.message, status=refusal.status)
    state = "needs a second person from now on" if is_required else "no longer needs a second person"
    messages.success(request, f"Continuing a paused upgrade {state}.")
    return redirect("settings:index", slug)


@policy(Policy.ADMIN)
@require_POST
def safeguards(request: HttpRequest, slug: str) -> HttpResponse:
    """Switch the safeguard `name`. `on` is 1 or 0, as for `switch`."""
    organization = get_page_organization(request, slug)
    name, is_on = request.POST.get("name", ""), request.POST.get("on") == "1"
    if name not in Safeguard.values:
        raise PortalError("not_found", NOT_FOUND, 404)
    safeguard, fresh = Safeguard(name), is_fresh(request)
    _, refusal = attempt(
        lambda: switch_safeguard(organization, actor=person(request), safeguard=safeguard, is_on=is_on, is_fresh=fresh)
    )
    if refusal:
        return index_page(request, organization, refused=refusal.message, status=refusal.status)
    messages.success(request, f"{safeguard.label}: {'required' if is_on else 'not required'} from now on.")
    return redirect("settings:index", slug)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def links(request: HttpRequest, slug: str) -> HttpResponse:
    """Change the organization's links to other systems."""
    organization = get_page_organization(request, slug)
    form = LinksForm(request.POST if request.method == "POST" else None, initial=organization.link_templates)
    status = 200
    if request.method == "POST":
        saved, status = submit(form, lambda: change_links(organization, actor=person(request), **form.cleaned_data))
        if saved:
            messages.success(request, "Links saved.")
            return redirect("settings:index", slug)
    context = settings_context(request, organization) | {"form": form, "placeholders": [*PLACEHOLDERS, IN_CONSOLE]}
    return render(request, "portal/notifications/links.html", context, status=status)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    """Render the form and create a channel. Only this response contains a webhook's secret."""
    organization = get_page_organization(request, slug)
    if kind not in ChannelKind.values:
        raise PortalError("not_found", NOT_FOUND, 404)
    form = ChannelForm(ChannelKind(kind), request.POST or None)
    status = 200
    if request.method == "POST":
        made, status = submit(form, lambda: create(request, form, organization, ChannelKind(kind)))
        if made:
            return created(request, made)
    context = settings_context(request, organization) | {"form": form, "kind": ChannelKind(kind)}
    return render(request, "portal/notifications/form.html", context, status=status)


def create(request: HttpRequest, form: ChannelForm, organization: Organization, kind: ChannelKind) -> commands.Created:
    return commands.create_channel(organization, actor=person(request), kind=kind, **form.cleaned_data)


def created(request: HttpRequest, made: commands.Created) -> HttpResponse:
    channel = made.channel
    if made.secret:
        return show_secret(request, channel, made.secret)
    if channel.kind == ChannelKind.WEBHOOK:
        messages.warning(
            request,
            "This form was already sent. It created this channel and showed its signing secret. "
            "If you did not copy the secret, create a new one.",
        )
    else:
        messages.success(request, f"{channel.name} receives notifications from now on. Send a test to check it.")
    return redirect("settings:channel", channel.organization.slug, channel.pk)


def show_secret(request: HttpRequest, channel: NotificationChannel, secret: str) -> HttpResponse:
    context = settings_context(request, channel.organization) | {
        "channel": channel,
        "secret": secret,
        "is_renewed": bool(channel.old_secret_until),
    }
    return render(request, "portal/notifications/secret_shown.html", context)


@policy(Policy.VIEWER)
@require_safe
def channel(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    """Render one channel and its log. Only the log refreshes itself, while messages are being sent."""
    return channel_page(request, find_channel(request, slug, channel_id))


def channel_page(
    request: HttpRequest, channel: NotificationChannel, *, refused: str | None = None, status: int = 200
) -> HttpResponse:
    deliveries = NotificationDelivery.objects.visible_to(request.user).filter(channel=channel).newest_first()
    page = paginate(deliveries.select_related("channel"), skip=get_skip(request), limit=DELIVERIES_SHOWN)
    now = timezone.now()
    context = settings_context(request, channel.organization) | {
        "channel": channel,
        "quiet": get_quiet_hours(channel),
        "page": page,
        "query_without_skip": "",
        "is_live": any(each.happens_within(SOON_SECONDS, now=now) for each in page.items),
        "refused": refused,
        "test_seconds": commands.TEST_SECONDS,
        "days_kept": settings.NOTIFICATION_RETENTION_DAYS,
    }
    templates = ("portal/notifications/channel.html", "portal/notifications/_deliveries.html")
    return render_page(request, *templates, context, status=status)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    channel = find_channel(request, slug, channel_id)
    context = settings_context(request, channel.organization)
    # The form of a person who may not change the channel must not contain the target.
    initial_of = channel if context["may_act"] else None
    form = ChannelForm(ChannelKind(channel.kind), request.POST or None, channel=initial_of)
    status = 200
    if request.method == "POST":
        _, status = submit(form, lambda: change(request, form, channel))
        if status == 200:
            messages.success(request, "Changes saved. They apply to messages sent from now on.")
            return redirect("settings:channel", slug, channel.pk)
    context |= {"form": form, "channel": channel, "kind": ChannelKind(channel.kind)}
    return render(request, "portal/notifications/form.html", context, status=status)


def change(request: HttpRequest, form: ChannelForm, channel: NotificationChannel) -> None:
    asked = {name: form.cleaned_data[name] for name in ("name", "target", "events", "quiet")}
    commands.change_channel(channel, actor=person(request), **asked)


@policy(Policy.ADMIN)
@require_POST
def switch(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    """Switch the channel on or off. `on` is 1 or 0, so that a second click does not switch it back."""
    channel = find_channel(request, slug, channel_id)
    is_active = request.POST.get("on") == "1"
    commands.switch_channel(channel, actor=person(request), is_active=is_active)
    messages.success(request, f"{channel.name} is switched {'on' if is_active else 'off'}.")
    return redirect("settings:channel", slug, channel.pk)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def secret(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    """Render the confirmation, create a new signing secret and show it once."""
    channel = find_channel(request, slug, channel_id)
    form = IdempotentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        renewed = commands.renew_secret(channel, actor=person(request), **form.cleaned_data)
        if renewed:
            channel.refresh_from_db()
            return show_secret(request, channel, renewed)
        messages.warning(request, "This form was already sent. The new secret was shown then.")
        return redirect("settings:channel", slug, channel.pk)
    context = settings_context(request, channel.organization) | {"channel": channel, "form": form}
    return render(request, "portal/notifications/secret.html", context, status=422 if form.errors else 200)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    """Render the confirmation, and remove the channel with its log."""
    channel = find_channel(request, slug, channel_id)
    if request.method == "POST":
        commands.remove_channel(channel, actor=person(request))
        messages.success(request, f"{channel.name} was removed.")
        return redirect("settings:index", slug)
    context = settings_context(request, channel.organization) | {
        "channel": channel,
        "waiting": channel.deliveries.pending().count(),
    }
    return render(request, "portal/notifications/remove.html", context)


@policy(Policy.ADMIN)
@require_POST
def test(request: HttpRequest, slug: str, channel_id: UUID) -> HttpResponse:
    """Queue a test message. The log shows its result live."""
    channel = find_channel(request, slug, channel_id)
    return attempt_on_page(request, channel, lambda: commands.test_channel(channel, actor=person(request)))


@policy(Policy.ADMIN)
@require_POST
def again(request: HttpRequest, slug: str, channel_id: UUID, delivery_id: UUID) -> HttpResponse:
    """Queue a failed message again."""
    channel = find_channel(request, slug, channel_id)
    deliveries = NotificationDelivery.objects.visible_to(request.user).select_related("channel", "organization")
    delivery = found_or_404(deliveries.filter(channel=channel, pk=delivery_id).first())
    return attempt_on_page(request, channel, lambda: commands.send_again(delivery, actor=person(request)))


def attempt_on_page(request: HttpRequest, channel: NotificationChannel, command: Callable[[], object]) -> HttpResponse:
    """Run the command and redirect to the channel's page, or render that page with the refusal."""
    _, refusal = attempt(command)
    if refusal is None:
        return redirect("settings:channel", channel.organization.slug, channel.pk)
    response = channel_page(request, channel, refused=refusal.message, status=refusal.status)
    for name, value in refusal.headers.items():
        response[name] = value
    return response


def find_channel(request: HttpRequest, slug: str, channel_id: UUID) -> NotificationChannel:
    """Return the channel. Raises PortalError 404, also for a channel of another organization."""
    organization = get_page_organization(request, slug)
    visible = NotificationChannel.objects.visible_to(request.user).select_related("organization", "created_by")
    return found_or_404(visible.filter(organization=organization, pk=channel_id).first())
