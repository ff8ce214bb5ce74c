"""Celery's entry point: `celery -A workers.app worker -Q power,power.batch`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vessel.dispatch.app import make_app
from vessel.errors import NoRedis, VesselError
from vessel.registry import load_registry
from vessel.settings import load_settings, resolve_redis_url
from workers import boot, shim

if TYPE_CHECKING:
    from celery import Celery


def _build() -> Celery:
    settings = load_settings()
    registry = load_registry(settings.registry)
    redis_url = resolve_redis_url(settings)
    if redis_url is None:
        raise NoRedis
    shim.install()
    built = make_app(
        redis_url,
        namespace=settings.namespace,
        tiers=list(registry.tiers),
        slots=settings.concurrency,
        call_timeout_s=settings.call_timeout,
    )
    boot.install(built, settings, redis_url)
    return built


try:
    app = _build()
except VesselError as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(error.exit_code) from None

if "flower" in sys.argv:  # also where it was started without Vessel's configuration, which is open to all by default
    from workers.flower import install

    install()
