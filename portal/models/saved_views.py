"""Saved views: filters of a list under a name. The rules are in portal/saved_views/commands.py."""

import uuid
from typing import ClassVar, Self

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Lower, Now

from portal.models.people import Organization, TenantQuerySet, User

NAME_LENGTH = 60
QUERY_LENGTH = 1000


class ViewedList(models.TextChoices):
    """The lists whose filters can be saved."""

    DEPLOYMENTS = "deployments", "Deployments"
    UPGRADES = "upgrades", "History of upgrades"


class SavedViewQuerySet(TenantQuerySet["SavedView"]):
    def offered(self, user: User, organization: Organization) -> Self:
        """Return the person's own views and the shared ones, by name, with `is_default`: whether the person chose it."""
        chosen = DefaultView.objects.filter(view=OuterRef("pk"), user=user)
        mine_or_shared = self.visible_to(user).filter(Q(user=user) | Q(is_shared=True), organization=organization)
        return mine_or_shared.annotate(is_default=Exists(chosen)).order_by(Lower("name"), "id")


class SavedView(models.Model):
    """Filters of a list, for its owner, or shared with the organization."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    list = models.CharField(max_length=20, choices=ViewedList.choices)
    name = models.CharField(max_length=NAME_LENGTH)
    query = models.CharField(
        max_length=QUERY_LENGTH, help_text="The list's filters, as the query string of its address."
    )
    is_shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[SavedViewQuerySet] = SavedViewQuerySet.as_manager()  # type: ignore[assignment] # as_manager is untyped

    class Meta:
        constraints = [
            models.UniqueConstraint("organization", "user", "list", Lower("name"), name="saved_view_once_by_name"),
            models.CheckConstraint(condition=Q(list__in=ViewedList.values), name="saved_view_list_known"),
        ]

    def __str__(self) -> str:
        return self.name


class DefaultView(models.Model):
    """The view with which a list opens for one person. Without one, the list opens unfiltered."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    list = models.CharField(max_length=20, choices=ViewedList.choices)
    view = models.ForeignKey(SavedView, on_delete=models.CASCADE, related_name="defaults")

    objects: ClassVar[TenantQuerySet["DefaultView"]] = TenantQuerySet.as_manager()  # type: ignore[assignment] # as_manager is untyped

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user", "list"], name="default_view_once")]

    def __str__(self) -> str:
        return f"{self.list}: {self.view_id}"
