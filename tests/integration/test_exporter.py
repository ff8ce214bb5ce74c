"""Metrics of a process over HTTP: one port each, nothing but metrics, and none where none are wanted."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.stack import free_port
from vessel.observe.exporter import export
from vessel.observe.metrics import Instruments, Source
from vessel.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_processes_of_one_host_take_a_port_each(tmp_path: Path) -> None:
    """The second one finds the first one's port taken and takes the next; both can be scraped."""
    first_port = free_port(2)
    settings = load_settings({}, data_dir=tmp_path, metrics_port=first_port)
    one, two = Instruments(Source.WORKER), Instruments(Source.WORKER)
    one.set("vessel_worker_slots", 1)
    two.set("vessel_worker_slots", 2)
    urls = [export(settings, one.registry), export(settings, two.registry)]
    assert len(set(urls)) == 2
    seen = []
    for url in urls:
        assert url is not None
        families = {f.name: f for f in text_string_to_metric_families(httpx.get(url).text)}
        seen.append(families["vessel_worker_slots"].samples[0].value)
        assert "process_resident_memory_bytes" in families
    assert seen == [1, 2]
    assert httpx.get(f"http://127.0.0.1:{first_port}/").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{first_port}/metrics").status_code == 404


def test_a_port_of_0_serves_none_and_a_bad_address_only_warns(tmp_path: Path) -> None:
    """Metrics never keep a worker from working."""
    registry = Instruments(Source.WORKER).registry
    assert export(load_settings({}, data_dir=tmp_path, metrics_port=0), registry) is None
    assert export(load_settings({}, data_dir=tmp_path, metrics_host="203.0.113.9"), registry) is None


def test_a_client_that_says_nothing_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    """Each connection has a thread, and time to say what it wants."""
    port = free_port()
    url = export(load_settings({}, data_dir=tmp_path, metrics_port=port), Instruments(Source.WORKER).registry)
    with socket.create_connection(("127.0.0.1", port)):
        assert url is not None
        assert httpx.get(url, timeout=5).status_code == 200
