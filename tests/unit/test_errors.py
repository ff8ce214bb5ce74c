"""One tree of errors: each has a code and a status, and travels between processes whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import vessel.client
from vessel.batches.model import InvalidBatch
from vessel.client import InvalidLine
from vessel.errors import InvalidRequest, JobFailed, SettingsError, VesselError, WaitTimeout
from vessel.jobs.model import Attempt

ATTEMPT = Attempt(1, "openai/gpt-oss-20b", "power", 1_700_000_000_000, "w", "bad_request", 400, reason="bad_request")
MADE = [
    VesselError("text", param="p"),
    WaitTimeout("text", job_id="job_1"),
    JobFailed("job_1", "failed", "bad_request", "Groq refused it.", [ATTEMPT]),
    SettingsError(["one", "two"]),
    InvalidLine(3, InvalidRequest("x", param="y"), ["job_1"]),
    InvalidBatch(()),
]


def _tree(root: type[Any]) -> list[type[Any]]:
    return [root, *(one for child in root.__subclasses__() for one in _tree(child))]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_travels(error: VesselError) -> None:
    """Pools of processes and Celery send errors; one that cannot be unpickled would hang or hide them."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  our own bytes
        assert type(other) is type(error)
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_a_timeout_is_pythons_own_too() -> None:
    """`except TimeoutError` is what people write."""
    with pytest.raises(TimeoutError) as ended:
        raise WaitTimeout(job_id="job_1")
    assert isinstance(ended.value, VesselError)
    assert str(ended.value).startswith("The job did not end")


def test_a_failed_job_holds_what_each_attempt_was() -> None:
    """Model, status, reason and when."""
    failed = MADE[2]
    assert isinstance(failed, JobFailed)
    (attempt,) = failed.attempts
    assert (attempt.model, attempt.status, attempt.reason) == ("openai/gpt-oss-20b", 400, "bad_request")
    assert attempt.started_at > 0


def test_all_errors_are_of_one_tree() -> None:
    """What the client's modules name as an error is a VesselError with a sentence for a message."""
    public = [getattr(vessel.client, name) for name in vessel.client.__all__]
    errors = [one for one in public if isinstance(one, type) and issubclass(one, BaseException)]
    assert len(errors) > 10
    assert set(errors) <= set(_tree(VesselError))
    for one in _tree(VesselError):
        assert (one.__doc__ or "").strip().partition("\n")[0].endswith((".", "`."))
        assert 400 <= one.http_status < 600
