"""Celery's entry point: `celery -A workers.app worker -Q power,power.batch`."""

from __future__ import annotations

import sys

from vessel.dispatch.app import make_app
from vessel.errors import VesselError
from vessel.registry import load_registry
from vessel.settings import load_settings
from workers import boot, shim

try:
    settings = load_settings()
    registry = load_registry(settings.registry)
except VesselError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code) from None

shim.install()
app = make_app(settings.redis_url or "", namespace=settings.namespace, tiers=registry.tiers)
boot.process.configure(settings, settings.redis_url or "")
boot.install(app)
