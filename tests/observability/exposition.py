"""Metrics as a worker exports them, read with Prometheus's own parser."""

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}


@dataclass
class Metric:
    """One metric: its samples by labels; of a histogram, those of its buckets, sum and count too."""

    name: str
    kind: str
    meaning: str
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)

    @property
    def labels(self) -> set[str]:
        """The labels of its samples."""
        return {label for _, labels, _ in self.samples for label in labels} - {"le"}


class Metrics:
    """All metrics of one scrape."""

    def __init__(self, text: str) -> None:
        self.metrics: dict[str, Metric] = {}
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            metric = self.metrics.setdefault(name, Metric(name, family.type, family.documentation))
            metric.samples += [(sample.name, dict(sample.labels), sample.value) for sample in family.samples]

    def names(self) -> set[str]:
        """All names that a query may use."""
        return {name for metric in self.metrics.values() for name, _, _ in metric.samples}

    def value(self, sample: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(
            value
            for metric in self.metrics.values()
            for name, has, value in metric.samples
            if name == sample and labels.items() <= has.items()
        )
