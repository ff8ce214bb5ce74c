"""The exception tree: one root, a stable code and an HTTP status per class; the docstring is the default message."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.jobs.model import Attempt


def place_of(error: BaseException) -> str:
    """Name the file and line where an error was raised, as `job.py:12`, since its text may hold a prompt or a key."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""


def _restored(kind: type[VesselError], args: tuple[object, ...], held: dict[str, Any]) -> VesselError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(held)
    return error


class VesselError(Exception):
    """Vessel could not do what was asked."""

    code: ClassVar[str] = "vessel_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        """Take the class's docstring as the message unless a better one is given."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes whole; what a subclass's constructor takes makes no difference."""
        return _restored, (type(self), self.args, self.__dict__)


class SettingsError(VesselError):
    """The settings hold faults; nothing was started."""

    code = "settings_invalid"
    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        """List every fault at once, one per line."""
        self.faults = tuple(faults)
        super().__init__("The settings hold faults; nothing was started:\n" + "\n".join(f"  - {f}" for f in faults))


class RegistryError(SettingsError):
    """The model registry holds faults; nothing was started."""

    code = "registry_invalid"


class InvalidRequest(VesselError):
    """The request is not valid."""

    code = "invalid_request"
    http_status = 400
    exit_code = 2


class UnknownModel(InvalidRequest):
    """The model is neither in the registry nor a tier."""

    code = "model_not_found"
    http_status = 404


class UnsupportedContent(InvalidRequest):
    """The model cannot serve what the request holds."""

    code = "unsupported_content"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context window."""

    code = "context_length_exceeded"


class CostCapTooSmall(InvalidRequest):
    """No model of the chain can answer within max_cost_usd, so nothing was sent."""

    code = "max_cost_too_small"


class IdempotencyConflict(VesselError):
    """This idempotency key was already used with another body; the first job is unchanged. Use a new key."""

    code = "idempotency_key_reused"
    http_status = 409
    exit_code = 2


class JobNotFound(VesselError):
    """There is no such job, or it was finished longer ago than results are kept (VESSEL_RESULT_TTL)."""

    code = "job_not_found"
    http_status = 404


class WrongState(VesselError):
    """The job is not in a state that allows this."""

    code = "wrong_state"
    http_status = 409


class Unreachable(VesselError):
    """Something that is needed cannot be reached."""

    code = "unreachable"
    http_status = 503
    exit_code = 3


class RedisUnreachable(Unreachable):
    """Redis cannot be reached; nothing was accepted. Check VESSEL_REDIS_URL, or start `vessel up`."""

    code = "redis_unreachable"


class RedisRefused(Unreachable):
    """Redis answered but refused the write (out of memory, disk full or missing permission)."""

    code = "redis_refused"


class NoRedis(Unreachable):
    """No Redis is known. Set VESSEL_REDIS_URL (redis://host:6379/0), or start one with `vessel up`."""

    code = "no_redis"


class SpoolUnwritable(VesselError):
    """VESSEL_DATA_DIR cannot be written, so nothing was started: paid answers could not be kept through an outage."""

    code = "data_dir_unwritable"
    http_status = 503
    exit_code = 3


class NoWorkers(Unreachable):
    """No worker is alive, so nobody would answer. Start one with `vessel up` or `vessel worker --tiers ...`."""

    code = "no_workers"


class NoKey(Unreachable):
    """No Groq key is set. Put it into GROQ_API_KEY or a file named by GROQ_API_KEY_FILE."""

    code = "no_api_key"


class ClientClosed(VesselError):
    """This client is closed, so nothing was asked. Make a new one."""

    code = "client_closed"
    http_status = 503
    exit_code = 2


class WaitTimeout(VesselError, TimeoutError):
    """The job did not end within the time waited; it goes on. Ask again with `vessel wait`."""

    code = "wait_timeout"
    http_status = 408

    def __init__(self, message: str | None = None, *, job_id: str | None = None) -> None:
        """Hold the job's id where one job was waited for."""
        self.job_id = job_id
        super().__init__(message)


class JobFailed(VesselError):
    """The job ended without a result."""

    code = "job_failed"
    http_status = 502

    def __init__(self, job_id: str, state: str, reason: str, message: str, attempts: Sequence[Attempt] = ()) -> None:
        """Hold every attempt (model, status, reason, when); the text names the last reason only."""
        self.job_id = job_id
        self.state = state
        self.reason = reason
        self.attempts = tuple(attempts)
        super().__init__(f"Job {job_id} {state} ({reason}): {message}")
