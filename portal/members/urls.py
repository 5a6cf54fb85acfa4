from django.urls import path

from portal.members import views

app_name = "members"
urlpatterns = [
    path("", views.index, name="list"),
    path("new", views.new, name="new"),
    path("<int:membership_id>/role", views.role, name="role"),
    path("<int:membership_id>/remove", views.remove, name="remove"),
]
