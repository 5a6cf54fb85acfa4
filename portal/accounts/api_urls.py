"""The routes under /api/v1/auth/."""

from django.urls import path

from portal.accounts import api

urlpatterns = [
    path("session", api.session),
    path("login", api.login),
    path("logout", api.logout),
    path("reauthenticate", api.reauthenticate),
]
