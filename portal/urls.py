"""The root URLconf. API routes have no trailing slash; pages have one."""

from django.contrib import admin
from django.urls import include, path

from portal.accounts import views as accounts_views
from portal.monitoring import health, prometheus
from portal.web import activity, headers, views

urlpatterns = [
    path("", views.home, name="home"),
    path("o/<slug:slug>/", views.overview, name="overview"),
    path("o/<slug:slug>/activity/", activity.activity, name="activity"),
    path("o/<slug:slug>/activity.csv", activity.activity_csv, name="activity_csv"),
    path("o/<slug:slug>/", include("upgrades.urls")),
    path("o/<slug:slug>/deployments/", include("deployments.urls")),
    path("o/<slug:slug>/agents/", include("deployments.agent_urls")),
    path("o/<slug:slug>/settings/", include("portal.notifications.urls")),
    path("o/<slug:slug>/settings/members/", include("portal.members.urls")),
    path("api/v1/auth/", include("portal.accounts.api_urls")),
    # Deployments and agents are served at the root as well, by the views below. Responses link to /api/v1/.
    path("", include("deployments.api.urls")),
    path("api/v1/", include("deployments.api.urls")),
    path("api/v1/", include("upgrades.api.urls")),
    path("api/", include("portal.api.urls")),
    path("account/", accounts_views.account, name="account"),
    path("account/default-organization", accounts_views.default_organization, name="default_organization"),
    path("account/invitations/<int:membership_id>/accept", accounts_views.accept, name="accept_invitation"),
    path("account/invitations/<int:membership_id>/decline", accounts_views.decline, name="decline_invitation"),
    path("account/organizations/<slug:slug>/leave", accounts_views.leave, name="leave_organization"),
    path("account/devices/<int:device_id>/sign-out", accounts_views.sign_out_device, name="sign_out_device"),
    path("accounts/", accounts_views.accounts),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("health", health.health),
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
