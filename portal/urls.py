"""The root URLconf. API routes have no trailing slash; pages have one."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from portal.accounts import views as accounts_views
from portal.monitoring import health, prometheus
from portal.tokens import views as tokens_views
from portal.web import activity, headers, search, views

# Django tries one pattern after the other, so each prefix is tried once, for all that is below it.
organization_patterns: list[URLPattern | URLResolver] = [
    path("", views.overview, name="overview"),
    path("search/", search.search, name="search"),
    path("activity/", activity.activity, name="activity"),
    path("activity.csv", activity.activity_csv, name="activity_csv"),
    path("deployments/", include("deployments.urls")),
    path("agents/", include("deployments.agent_urls")),
    path("views/", include("portal.saved_views.urls")),
    path("settings/", include("portal.notifications.urls")),
    path("settings/members/", include("portal.members.urls")),
    path("settings/tokens/", include("portal.tokens.urls")),
    path("", include("upgrades.urls")),
]
api_patterns: list[URLPattern | URLResolver] = [
    path("auth/", include("portal.accounts.api_urls")),
    path("", include("deployments.api.urls")),
    path("", include("upgrades.api.urls")),
]
urlpatterns = [
    path("", views.home, name="home"),
    path("o/<slug:slug>/", include(organization_patterns)),
    # Deployments and agents are served at the root as well, by the same views. Responses link to /api/v1/, because Django
    # reverses a name to its last address.
    path("", include("deployments.api.urls")),
    path("api/v1/", include(api_patterns)),
    path("api/", include("portal.api.urls")),
    path("account/", accounts_views.account, name="account"),
    path("account/default-organization", accounts_views.default_organization, name="default_organization"),
    path("account/times", accounts_views.times, name="times"),
    path("account/invitations/<int:membership_id>/accept", accounts_views.accept, name="accept_invitation"),
    path("account/invitations/<int:membership_id>/decline", accounts_views.decline, name="decline_invitation"),
    path("account/organizations/<slug:slug>/leave", accounts_views.leave, name="leave_organization"),
    path("account/devices/<int:device_id>/sign-out", accounts_views.sign_out_device, name="sign_out_device"),
    path("account/tokens/", tokens_views.own, name="tokens"),
    path("account/tokens/new", tokens_views.new_own, name="new_token"),
    path("account/tokens/<uuid:token_id>/revoke", tokens_views.revoke_own, name="revoke_token"),
    path("accounts/", accounts_views.accounts),
    path("accounts/2fa/webauthn/login/", accounts_views.passkey, name="mfa_login_webauthn"),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("health", health.health, name="health"),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", prometheus.metrics),
    path("csp-reports", headers.csp_reports),
    path(".well-known/security.txt", headers.security_txt),
]

handler400 = "portal.errors.bad_request"
handler403 = "portal.errors.permission_denied"
handler404 = "portal.errors.not_found"
handler429 = "portal.errors.too_many_requests"  # called by allauth
handler500 = "portal.errors.server_error"
