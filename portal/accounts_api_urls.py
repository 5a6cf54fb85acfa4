"""Under /api/v1/auth/."""

from django.urls import path

from portal import accounts_api

urlpatterns = [
    path("session", accounts_api.session),
    path("login", accounts_api.login),
    path("logout", accounts_api.logout),
]
