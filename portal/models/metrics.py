"""The counters of all processes (portal/monitoring/counters.py)."""

from django.db import models
from django.db.models.functions import Now

from portal.monitoring.counters import TABLE


class MetricCount(models.Model):
    """One series of a counter, or one bucket of a histogram. No label names an organization or a person."""

    name = models.CharField(max_length=100)
    labels = models.TextField(help_text="The values of the labels, as a JSON array.")
    value = models.FloatField(db_default=0)
    counted_at = models.DateTimeField(db_default=Now(), help_text="When it last grew.")

    class Meta:
        db_table = TABLE
        constraints = [models.UniqueConstraint(fields=["name", "labels"], name="metric_count_once")]

    def __str__(self) -> str:
        return f"{self.name}{self.labels} {self.value:g}"
