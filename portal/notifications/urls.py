from django.urls import path

from portal.notifications import views

app_name = "settings"
urlpatterns = [
    path("", views.index, name="index"),
    path("links", views.links, name="links"),
    path("safeguards", views.safeguards, name="safeguards"),
    path("second-approver", views.second_approver, name="second_approver"),
    path("channels/new/<slug:kind>", views.new, name="new"),
    path("channels/<uuid:channel_id>/", views.channel, name="channel"),
    path("channels/<uuid:channel_id>/edit", views.edit, name="edit"),
    path("channels/<uuid:channel_id>/switch", views.switch, name="switch"),
    path("channels/<uuid:channel_id>/secret", views.secret, name="secret"),
    path("channels/<uuid:channel_id>/remove", views.remove, name="remove"),
    path("channels/<uuid:channel_id>/test", views.test, name="test"),
    path("channels/<uuid:channel_id>/deliveries/<uuid:delivery_id>/again", views.again, name="again"),
]
