from django.urls import URLPattern

app_name = "upgrades"
urlpatterns: list[URLPattern] = []
