"""The identity of the database, by which a row shows that it came from a backup or from another server."""

from django.db import models
from django.db.models import Func


class DatabaseIdentity(Func):
    """The identity of the database that answers: its cluster, the cluster's timeline, and its and a table's object id.

    It changes when a dump is restored, when a backup is recovered to a point in time, and when a standby takes over. It
    does not change when a whole disk is put back. The function is created by upgrades/migrations/0013_restored.py.
    """

    function = "portal_database_identity"
    arity = 0
    output_field = models.CharField(max_length=100)
