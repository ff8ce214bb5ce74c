"""The public import: `from groq_vessel import GroqClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel import client
from vessel.client import (
    AsyncJobHandle,
    AsyncTokenStream,
    Attempt,
    Budget,
    CodeResult,
    GateInfo,
    GroqClient,
    GroqCompound,
    IdempotencyConflict,
    InvalidLine,
    InvalidRequest,
    Job,
    JobEvent,
    JobFailed,
    JobHandle,
    JobNotFound,
    JobState,
    MaintenanceInfo,
    ModelInfo,
    NoRedis,
    NoWorkers,
    RedisUnreachable,
    Result,
    RoutePlan,
    SettingsError,
    Source,
    TierInfo,
    TokenStream,
    Unreachable,
    VesselError,
    Waiting,
    WaitTimeout,
    WrongState,
    analyze,
    generate_code,
    query,
    research,
)

if TYPE_CHECKING:
    from vessel.client import AsyncGroqClient

__all__ = [
    "AsyncGroqClient",
    "AsyncJobHandle",
    "AsyncTokenStream",
    "Attempt",
    "Budget",
    "CodeResult",
    "GateInfo",
    "GroqClient",
    "GroqCompound",
    "IdempotencyConflict",
    "InvalidLine",
    "InvalidRequest",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobState",
    "MaintenanceInfo",
    "ModelInfo",
    "NoRedis",
    "NoWorkers",
    "RedisUnreachable",
    "Result",
    "RoutePlan",
    "SettingsError",
    "Source",
    "TierInfo",
    "TokenStream",
    "Unreachable",
    "VesselError",
    "WaitTimeout",
    "Waiting",
    "WrongState",
    "analyze",
    "generate_code",
    "query",
    "research",
]


def __getattr__(name: str) -> Any:
    """Import the async client when it is first asked for."""
    if name == "AsyncGroqClient":
        return client.AsyncGroqClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
