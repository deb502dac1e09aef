"""The table of Prometheus metrics, from the registry that the server fills."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from csi_core.ledger_metrics import LedgerMetrics
from csi_core.server.metrics import CallMetrics

__all__ = ["metrics"]


def metrics() -> str:
    """One row for each metric."""
    registry = CollectorRegistry()
    CallMetrics(registry)
    registry.register(LedgerMetrics())
    rows = ["| metric | kind | |", "|---|---|---|"]
    rows += [f"| `{metric.name}` | {metric.type} | {metric.documentation} |" for metric in registry.collect()]
    return "\n".join(rows) + "\n"
