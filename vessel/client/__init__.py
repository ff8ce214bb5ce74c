"""What `groq_vessel` re-exports: clients, results, and the errors they raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.batches.estimate import Estimate
from vessel.batches.model import Batch, BatchNotFound, BatchStatus, Fault, InvalidBatch
from vessel.client.batch_handle import AsyncBatchHandle, BatchHandle
from vessel.client.batching import BatchResult
from vessel.client.compound import GroqCompound
from vessel.client.following import JobEvent
from vessel.client.functions import analyze, generate_code, query, research
from vessel.client.gates import GateInfo, MaintenanceInfo
from vessel.client.handle import AsyncJobHandle, JobHandle
from vessel.client.many import InvalidLine
from vessel.client.result import CodeResult, Result, Source, ToolCall
from vessel.client.streaming import AsyncTokenStream, TokenStream
from vessel.client.structured import InvalidAnswer
from vessel.client.survey import ModelInfo, RoutePlan, TierInfo
from vessel.client.sync import GroqClient
from vessel.errors import (
    ClientClosed,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    NoRedis,
    NoWorkers,
    RedisUnreachable,
    SettingsError,
    Unreachable,
    VesselError,
    WaitTimeout,
    WrongState,
)
from vessel.jobs.model import Attempt, Job
from vessel.usage.budgets import Budget
from vessel.watch.waiting import Waiting
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.client.concurrent import AsyncGroqClient

__all__ = [
    "AsyncBatchHandle",
    "AsyncGroqClient",
    "AsyncJobHandle",
    "AsyncTokenStream",
    "Attempt",
    "Batch",
    "BatchHandle",
    "BatchNotFound",
    "BatchResult",
    "BatchStatus",
    "Budget",
    "ClientClosed",
    "CodeResult",
    "Estimate",
    "Fault",
    "GateInfo",
    "GroqClient",
    "GroqCompound",
    "IdempotencyConflict",
    "InvalidAnswer",
    "InvalidBatch",
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
    "ToolCall",
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
    """Import the async client when it is first asked for: asyncio is a third of what the rest costs."""
    if name == "AsyncGroqClient":
        from vessel.client.concurrent import AsyncGroqClient  # noqa: PLC0415  the reason stands above

        return AsyncGroqClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
