"""Prometheus metrics of the calls: how long, with which result, and how many are under way."""

from __future__ import annotations

from functools import cache

import grpc
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram

__all__ = ["CallMetrics"]

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class CallMetrics:
    """The call metrics of one server; ``registry`` is another one than Prometheus' own in tests only."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        duration = Histogram(
            "csi_core_call_duration_seconds",
            "Time to serve a CSI call, by method and gRPC status code.",
            ("method", "code"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        in_flight = Gauge(
            "csi_core_calls_in_flight", "CSI calls being served now, waiting ones included.", registry=registry
        )
        self._labelled = cache(lambda method, code: duration.labels(method, code.name))
        self.begin = in_flight.inc
        self._end = in_flight.dec

    def end(self, method: str, code: grpc.StatusCode, duration_s: float) -> None:
        """Count a call that has been answered."""
        self._end()
        self._labelled(method, code).observe(duration_s)
