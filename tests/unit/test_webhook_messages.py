"""What is sent and what follows from an attempt: pure rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from vessel.errors import SettingsError
from vessel.notify.backoff import ATTEMPTS, DELAYS_S, TEXTS, DeliveryState, Outcome, Trouble, follow, trouble_of
from vessel.notify.delivery import read_delivery
from vessel.notify.secret import configured, headers
from vessel.notify.store import Secrets, new_secret
from vessel.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

JOB = "job_" + "0" * 32
BATCH = "batch_" + "0" * 32
AT = 1_795_780_800_000


def test_the_waits_are_those_of_standard_webhooks_with_jitter() -> None:
    """Ten attempts; each wait is its step give or take a tenth."""
    failed = Outcome(Trouble.STATUS, 500)
    for attempts, delay in enumerate(DELAYS_S, 1):
        least, most = (follow(failed, attempts, jitter) for jitter in (0.0, 1.0))
        assert (least.state, most.state) == (DeliveryState.PENDING, DeliveryState.PENDING)
        assert (least.delay_ms, most.delay_ms) == (int(delay * 900), int(delay * 1100))
    assert follow(failed, ATTEMPTS, 0.5).state is DeliveryState.GIVEN_UP


@pytest.mark.parametrize(
    ("status", "trouble", "state"),
    [
        (200, Trouble.NONE, DeliveryState.DELIVERED),
        (204, Trouble.NONE, DeliveryState.DELIVERED),
        (301, Trouble.REDIRECT, DeliveryState.PENDING),
        (304, Trouble.REDIRECT, DeliveryState.PENDING),
        (400, Trouble.STATUS, DeliveryState.PENDING),
        (410, Trouble.GONE, DeliveryState.GIVEN_UP),
        (500, Trouble.STATUS, DeliveryState.PENDING),
    ],
)
def test_only_2xx_delivers_and_only_410_ends(status: int, trouble: Trouble, state: DeliveryState) -> None:
    """A redirect is a failure of its own kind."""
    assert trouble_of(status) is trouble
    assert follow(Outcome(trouble, status), 1, 0.5).state is state


def test_a_refused_address_is_given_up_at_once() -> None:
    """Asking again would be asking for trouble."""
    assert follow(Outcome(Trouble.ADDRESS_REFUSED), 1, 0.5).state is DeliveryState.GIVEN_UP


@pytest.mark.parametrize(
    ("status", "asked", "delay_ms"),
    [(429, 60.0, 60_000), (503, 1.0, 5_000), (503, 1e9, 86_400_000), (500, 60.0, 5_000), (429, None, 5_000)],
)
def test_a_receiver_may_ask_to_be_left_alone(status: int, asked: float | None, delay_ms: int) -> None:
    """With 429 and 503, never for less than the schedule and never for more than a day."""
    assert follow(Outcome(Trouble.STATUS, status, asked), 1, 0.5).delay_ms == delay_ms


def test_every_trouble_has_a_text() -> None:
    """What people read."""
    assert set(TEXTS) == set(Trouble)


def record(**more: str) -> dict[str, bytes]:
    """Build a delivery's record."""
    known = {"id": JOB, "kind": "job", "state": "succeeded", "url": "https://example.com/x?t=1", "at": str(AT)}
    return {name: value.encode() for name, value in (known | more).items()}


def told(**more: str) -> dict[str, str]:
    """Build what a record holds of its job or batch."""
    return {f"d:{name}": value for name, value in more.items()}


def test_a_job_is_told_without_prompt_and_answer() -> None:
    """Ids, state, tier, model, usage, cost and reason: the whole message."""
    found = read_delivery(record(**told(
        tenant="t", tier="fast", model="a", served_tier="power", served_model="b", served_vessel="groq", n="2",
        priority="batch", usage='{"total_tokens":7}', cost="0.00012", created=str(AT - 5000), batch=BATCH,
        custom="line-1",
    )))  # fmt: skip
    assert found is not None
    assert json.loads(found.payload()) == {
        "type": "job.succeeded",
        "timestamp": "2026-11-27T12:00:00.000Z",
        "data": {
            "id": JOB, "object": "job", "state": "succeeded", "reason": None, "tier": "power", "model": "b",
            "vessel": "groq", "priority": "batch", "attempts": 2, "usage": {"total_tokens": 7}, "cost_usd": 0.00012,
            "created_at": "2026-11-27T11:59:55.000Z", "finished_at": "2026-11-27T12:00:00.000Z", "batch_id": BATCH,
            "custom_id": "line-1", "retry_of": None,
        },
    }  # fmt: skip


def test_a_batch_is_told_by_its_sums() -> None:
    """Counts, usage and cost; the files only where they hold something."""
    sums = told(tenant="t", file="file-1", model="a", created=str(AT), total="3", pico="1500000")
    counts = {"d:n:succeeded": "2", "d:n:failed": "1", "d:u:prompt_tokens": "10", "d:u:completion_tokens": "4"}
    found = read_delivery(record(id=BATCH, kind="batch", state="completed", **sums, **counts))
    assert found is not None
    message = json.loads(found.payload())
    data = message["data"]
    assert message["type"] == "batch.completed"
    assert data["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert data["usage"] == {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
    assert data["cost_usd"] == 1.5e-06
    assert data["output_file_id"].startswith("file-")
    assert data["error_file_id"].startswith("file-")
    assert set(data) == {
        "id", "object", "state", "reason", "model", "input_file_id", "output_file_id", "error_file_id",
        "request_counts", "usage", "cost_usd", "created_at", "finished_at",
    }  # fmt: skip


def test_a_delivery_is_described_without_its_query() -> None:
    """Its attempts are there in their order, however many digits their numbers have."""
    rows = {f"a:{n}": json.dumps({"at": AT, "status": 500, "trouble": "status", "ms": n}) for n in (9, 10, 11)}
    found = read_delivery(record(n="11", next=str(AT), **rows))
    assert found is not None
    shown = found.as_dict()
    assert [one["number"] for one in shown["tries"]] == [9, 10, 11]
    assert (shown["id"], shown["of"], shown["url"]) == (f"msg_{JOB}", JOB, "https://example.com/x?...")
    assert (shown["state"], shown["reason"], shown["attempts"]) == ("pending", "status", 11)
    assert read_delivery({}) is None


def test_a_message_verifies_with_the_receivers_library() -> None:
    """By each of the secrets that sign; not by another one, and not when it was changed."""
    ours, old = new_secret(), new_secret()
    now = int(datetime.now(UTC).timestamp() * 1000)
    signed = headers((ours, old), "msg_1", now, '{"a":"ä"}'.encode())
    assert Webhook(ours).verify('{"a":"ä"}', signed) == {"a": "ä"}
    assert Webhook(old).verify('{"a":"ä"}', signed) == {"a": "ä"}
    for secret, body in ((new_secret(), '{"a":"ä"}'), (ours, '{"a":"b"}')):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, signed)


def test_an_old_secret_signs_until_its_time_is_over() -> None:
    """By Redis' clock."""
    kept = Secrets("whsec_new", old=(("whsec_old", AT),))
    assert kept.signing(AT - 1) == ("whsec_new", "whsec_old")
    assert kept.signing(AT) == ("whsec_new",)


def test_a_secret_is_set_by_a_variable_or_a_file_that_is_read_again(tmp_path: Path) -> None:
    """Two in it both sign; the file goes before the variable."""
    first, second = new_secret(), new_secret()
    assert configured(load_settings({})) == ()
    assert configured(load_settings({"VESSEL_WEBHOOK_SECRET": f"{first} {second}"})) == (first, second)
    file = tmp_path / "secret"
    file.write_text(f"{second}\n")
    settings = load_settings({"VESSEL_WEBHOOK_SECRET": first, "VESSEL_WEBHOOK_SECRET_FILE": str(file)})
    assert configured(settings) == (second,)
    file.write_text(f"{first}\n{second}\n")
    assert configured(settings) == (first, second)


@pytest.mark.parametrize("content", [b"", b"whsec_c2hvcnQ=", b"not a secret", b"\xff\xfe", None])
def test_an_unusable_secret_is_told_without_showing_it(tmp_path: Path, content: bytes | None) -> None:
    """A text that is none, one that is too short, and a file that is not there."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as fault:
        configured(load_settings({"VESSEL_WEBHOOK_SECRET_FILE": str(file)}))
    assert "VESSEL_WEBHOOK_SECRET_FILE" in str(fault.value)
    assert "c2hvcnQ" not in str(fault.value)
    with pytest.raises(SettingsError) as fault:
        load_settings({"VESSEL_WEBHOOK_SECRET": "whsec_c2hvcnQ="})
    assert "c2hvcnQ" not in str(fault.value)
