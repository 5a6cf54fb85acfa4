from django.urls import path

from portal.saved_views import views

app_name = "saved_views"
urlpatterns = [
    path("", views.index, name="list"),
    path("new", views.new, name="new"),
    path("<uuid:view_id>/edit", views.edit, name="edit"),
    path("<uuid:view_id>/remove", views.remove, name="remove"),
    path("<uuid:view_id>/default", views.default, name="default"),
]
