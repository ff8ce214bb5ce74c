"""To start Flower by hand: `celery -A workers.app flower --conf=ops/flowerconfig.py`; see docs/observe.md."""

from workers.flowerconfig import *  # noqa: F403  a configuration is its names
