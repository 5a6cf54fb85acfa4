"""The routes of the API contract, under /api/."""

from django.urls import path

from portal.api import schema

urlpatterns = [
    path("schema", schema.schema, name="api-schema"),
    path("docs", schema.docs, name="api-docs"),
]
