"""The simulator's own side, as the demonstration uses it: break something, and ask what was seen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import httpx

from vessel.cli.launch import SIMULATOR_KEY

STORM_MODEL = "openai/gpt-oss-20b"
STORM_AFTER = 8
STORM_WAIT_S = 3
STORM_BEGINS_S = 20.0
LOOK_S = 0.01
DEAD_MODEL = "qwen/qwen3.8-27b"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the simulator counted; the cost by its own price list."""

    completed: int
    refused: int
    prompt: int
    completion: int
    cached: int
    cost_usd: Decimal


class Panel:
    """One simulator. Proxies of the environment are not for it."""

    def __init__(self, url: str) -> None:
        """Remember the price list before anything is taken off it."""
        self._http = httpx.Client(base_url=url, trust_env=False, headers={"Authorization": f"Bearer {SIMULATOR_KEY}"})
        self._prices = {model["id"]: model["pricing"] for model in self._get("/openai/v1/models")["data"]}

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def break_things(self) -> None:
        """Take a model out of service, and refuse all calls but a few to another one until `calm`."""
        self._post("/_sim/models", {"remove": [DEAD_MODEL]})
        rule = {"kind": "rate_limit", "model": STORM_MODEL, "skip": STORM_AFTER, "retry_after": str(STORM_WAIT_S)}
        self._post("/_sim/faults", rule)

    def calm(self) -> None:
        """End the refusals; the model that was taken out of service stays out."""
        self._http.delete("/_sim/faults").raise_for_status()

    def await_storm(self) -> None:
        """Wait until the first call has been refused, but not for long."""
        until = time.monotonic() + STORM_BEGINS_S
        while not self._get("/_sim/stats")["refused"] and time.monotonic() < until:
            time.sleep(LOOK_S)

    def seen(self) -> Seen:
        """Count what was answered."""
        stats = self._get("/_sim/stats")
        tokens = stats["tokens"]
        cost = sum((self._cost(model, one["tokens"]) for model, one in stats["by_model"].items()), Decimal(0))
        return Seen(
            stats["completed"], stats["refused"], tokens["prompt"], tokens["completion"], tokens["cached"], cost
        )

    def _cost(self, model: str, tokens: dict[str, int]) -> Decimal:
        if not tokens["total"]:
            return Decimal(0)
        prices = {name: Decimal(price) for name, price in self._prices[model].items()}
        fresh = (tokens["prompt"] - tokens["cached"]) * prices["prompt"]
        cached = tokens["cached"] * prices.get("input_cache_read", prices["prompt"])
        return fresh + cached + tokens["completion"] * prices["completion"]

    def _get(self, path: str) -> Any:
        return self._http.get(path).raise_for_status().json()

    def _post(self, path: str, body: object) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()
