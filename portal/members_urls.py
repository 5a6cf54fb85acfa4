from django.urls import path

from portal import members_views

app_name = "members"
urlpatterns = [
    path("", members_views.index, name="list"),
    path("new", members_views.new, name="new"),
    path("<int:membership_id>/role", members_views.role, name="role"),
    path("<int:membership_id>/remove", members_views.remove, name="remove"),
]
