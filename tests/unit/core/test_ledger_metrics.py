"""The books of the pools, as Prometheus would read them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from csi_core.ledger import Ledger
from csi_core.ledger_metrics import LedgerMetrics


def scraped(metrics: LedgerMetrics) -> str:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_the_books_as_they_stand():
    metrics = LedgerMetrics()
    ledger = Ledger(1000, overcommit_ratio=2.0, physical=lambda: (2000, 50))
    ledger.load(300)
    metrics.announce("loop", "fast", ledger)
    text = scraped(metrics)
    for kind, size in {"capacity": 1000, "promised": 300, "reserved": 0, "used": 1950, "free": 50}.items():
        assert f'csi_core_pool_bytes{{backend="loop",kind="{kind}",pool="fast"}} {size:.1f}' in text
    assert 'csi_core_pool_overcommit_ratio{backend="loop",pool="fast"} 2.0' in text
    assert 'csi_core_pool_watermark{backend="loop",pool="fast"} 2.0' in text


def test_what_the_storage_does_not_say_is_left_out():
    metrics = LedgerMetrics()
    metrics.announce("sim", "sim", Ledger(1000))
    assert 'kind="used"' not in scraped(metrics)


def test_a_stopped_backend_is_shown_no_longer():
    metrics = LedgerMetrics()
    metrics.announce("one", "pool", Ledger(1))
    metrics.announce("two", "pool", Ledger(1))
    metrics.withdraw("one")
    text = scraped(metrics)
    assert 'backend="one"' not in text
    assert 'backend="two"' in text


def test_a_pool_that_cannot_be_asked_does_not_hide_the_others():
    def broken() -> tuple[int, int]:
        raise OSError("the disk is gone")

    metrics = LedgerMetrics()
    metrics.announce("loop", "gone", Ledger(1, physical=broken))
    metrics.announce("loop", "there", Ledger(1))
    text = scraped(metrics)
    assert 'pool="gone"' not in text
    assert 'pool="there"' in text
