from django.urls import path

from portal.tokens import views

app_name = "org_tokens"
urlpatterns = [
    path("", views.index, name="list"),
    path("new", views.new, name="new"),
    path("<uuid:token_id>/revoke", views.revoke, name="revoke"),
]
