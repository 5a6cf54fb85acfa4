"""The counters and histograms of /metrics, as all processes have written them (counters.py)."""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from itertools import accumulate

from django.db.models.functions import Now
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from portal.models import MetricCount
from portal.monitoring.counters import BUCKET_NAMES, COUNTERS, HISTOGRAMS

KEPT = timedelta(days=30)

Series = dict[tuple[str, ...], float]


def collect() -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
    """Yield every counter and histogram, also those without a value yet. *Costs* one query."""
    series: defaultdict[str, Series] = defaultdict(dict)
    for name, text, value in MetricCount.objects.order_by("name", "labels").values_list("name", "labels", "value"):
        series[name][tuple(json.loads(text))] = value
    for metric in COUNTERS:
        counter = CounterMetricFamily(f"portal_{metric.name}", metric.help_text, labels=metric.labels)
        for labels, value in (dict.fromkeys(metric.always, 0.0) | series[metric.name]).items():
            counter.add_metric(labels, value)
        yield counter
    for metric in HISTOGRAMS:
        histogram = HistogramMetricFamily(f"portal_{metric.name}", metric.help_text, labels=metric.labels)
        for labels, total in series[f"{metric.name}_sum"].items():
            counts = [series[f"{metric.name}_bucket"].get((*labels, bucket), 0) for bucket in BUCKET_NAMES]
            histogram.add_metric(labels, list(zip(BUCKET_NAMES, accumulate(counts), strict=True)), total)
        yield histogram


def delete_stale_counts() -> None:
    """Delete series that have not grown for KEPT: routes that a release renamed, accounts that nobody uses any more."""
    MetricCount.objects.filter(counted_at__lt=Now() - KEPT).delete()
