"""Webhooks end to end: from the REST face, the client and the command line to a receiver, also over a kill -9."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from groq_vessel import GroqClient

from tests.api.serving import BODY, Served
from tests.integration.receiver import HANG, OK, Receiver
from tests.integration.running_up import Ran
from tests.waiting import wait_until
from vessel.cli import main
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

HOSTILE = ("http://169.254.169.254/latest", "http://0x7f000001/", "http://[::ffff:127.0.0.1]/x", "file:///etc/passwd",
           "gopher://example.com/", "http://user:pass@example.com/", "http://example.com:22/")  # fmt: skip
"""Refused whatever VESSEL_WEBHOOK_ALLOW_PRIVATE says."""
LINE: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": BODY | {"model": "openai/gpt-oss-20b"},
}


@pytest.fixture
def cli(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Give the command line in this process, on that stack."""
    for name, value in (served.variables() | {"COLUMNS": "250"}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main.run(arguments)
        written = capsys.readouterr()
        return Ran(code, written.out, written.err)

    return run


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen."""
    with Receiver() as receiver:
        yield receiver


def settled(served: Served, job_id: str) -> Any:
    """Wait until a job's webhook is settled, and give what the job says of it."""
    return wait_until(lambda: (hook := served.job(job_id)["webhook"]) and hook["state"] == "delivered" and hook)


def test_a_job_and_a_batch_are_told_when_they_have_ended(
    served: Served, receiver: Receiver, cli: Callable[..., Ran]
) -> None:
    """Over REST and with an SDK; the secret of the command line verifies, and the faces say what became of it."""
    secret = cli("webhooks", "secret", "--json").document["secret"]
    with served.http() as http:
        made = http.post("/v1/jobs", json=BODY | {"vessel": {"webhook": receiver.url}}).json()
        chat = http.post("/v1/chat/completions", json=BODY | {"vessel": {"webhook": f"{receiver.url}?t=1"}})
    with served.openai() as sdk:
        file = sdk.files.create(file=("in.jsonl", json.dumps(LINE).encode()), purpose="batch")
        batch = sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
            extra_body={"vessel": {"webhook": receiver.url}},
        )  # fmt: skip
        told = {got.id: got.verified(secret) for got in receiver.wait(3)}
        shown = wait_until(lambda: (b := sdk.batches.retrieve(batch.id)).to_dict()["vessel"]["webhook"]["state"] and b)  # type: ignore[index]
    ids = {f"msg_{made['id']}", f"msg_{chat.headers['x-vessel-job-id']}", f"msg_{batch.id}"}
    assert told.keys() == ids
    job = told[f"msg_{made['id']}"]
    assert (job["type"], job["data"]["state"]) == ("job.succeeded", "succeeded")
    assert job["data"]["usage"] == served.job(made["id"])["usage"]
    assert job["data"]["cost_usd"] == served.job(made["id"])["cost_usd"]
    assert told[f"msg_{batch.id}"]["type"] == "batch.completed"
    assert told[f"msg_{batch.id}"]["data"]["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert not any("hello" in got.body.decode() for got in receiver.got)
    assert shown.to_dict()["vessel"]["webhook"]["of"] == batch.id  # type: ignore[index]
    assert settled(served, made["id"])["tries"][0]["status"] == 200
    listed = cli("webhooks", "list", "--json").documents
    assert {one["id"] for one in listed} >= ids
    assert cli("job", made["id"], "--json").document["webhook"]["state"] == "delivered"
    assert f"delivered after 1 try; {receiver.url}" in cli("job", made["id"]).out
    assert "?t=1" not in cli("webhooks", "list").out


def test_the_client_and_the_command_line_take_a_webhook(
    served: Served, receiver: Receiver, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    """For jobs, batches, and a line of a batch."""
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(LINE | {"body": LINE["body"] | {"vessel": {"webhook": receiver.url}}}))
    with GroqClient(settings=served.settings()) as client:
        ids = [client.submit("hello", webhook=receiver.url).id]
        ids.append(client.submit_batch([{"prompt": "hello"}], webhook=receiver.url).id)
    ids.append(cli("submit", "hello", "--webhook", receiver.url, "--json").document["id"])
    ids.append(cli("batch", "submit", str(file), "--webhook", receiver.url, "--json").document["id"])
    got = receiver.wait(5)
    assert {one.id for one in got} >= {f"msg_{of}" for of in ids}
    (line,) = [one.message["data"] for one in got if one.message["data"].get("custom_id")]
    assert (line["batch_id"], line["custom_id"]) == (ids[-1], "a")

    def told() -> bool:
        return "delivered after 1 try" in cli("batch", "status", ids[-1]).out

    wait_until(told)


def test_a_kill_in_mid_delivery_loses_nothing(served: Served) -> None:
    """The worker is killed while the receiver has the message; the next one sends it again under the same id."""
    with Receiver(HANG, OK) as receiver, served.http() as http:
        job_id = http.post("/v1/jobs", json=BODY | {"vessel": {"webhook": receiver.url}}).json()["id"]
        receiver.wait(1)
        assert served.job(job_id)["webhook"]["state"] == "pending"
        assert "vessel_webhooks_waiting 1.0" in http.get("/metrics").text
        served.kill(served.workers.pop())
        with served.inside() as (door, runner):
            client: Any = runner.client
            for member in client.zrange(door.keys.webhooks, 0, -1):
                client.zincrby(door.keys.webhooks, -60_000, member)
        served.start_worker()
        receiver.wait(2)
        assert [got.id for got in receiver.got] == [f"msg_{job_id}"] * 2
        assert settled(served, job_id)["attempts"] == 1


def test_one_can_be_delivered_anew(served: Served, receiver: Receiver, cli: Callable[..., Ran]) -> None:
    """Under its old id; what there is not is told."""
    with served.http() as http:
        job_id = http.post("/v1/jobs", json=BODY | {"vessel": {"webhook": receiver.url}}).json()["id"]
    receiver.wait(1)
    settled(served, job_id)
    assert cli("webhooks", "retry", job_id, "--json").document["state"] == "pending"
    receiver.wait(2)
    assert {got.id for got in receiver.got} == {f"msg_{job_id}"}
    assert cli("webhooks", "retry", "job_" + "0" * 32).code == 1
    assert cli("webhooks", "retry", "../x").code == 2


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_address_is_refused_at_every_door(served: Served, url: str) -> None:
    """400 `invalid_webhook_url` with its parameter, and nothing is accepted."""
    asked = BODY | {"vessel": {"webhook": url}}
    line = {**LINE, "body": asked}
    with served.http() as http:
        file = {"file": ("in.jsonl", json.dumps(LINE).encode())}
        file_id = http.post("/v1/files", files=file, data={"purpose": "batch"}).json()["id"]
        batch = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        answers: list[httpx.Response] = [
            http.post("/v1/jobs", json=asked),
            http.post("/v1/chat/completions", json=asked),
            http.post("/v1/batches", json=batch | {"vessel": {"webhook": url}}),
        ]
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_webhook_url", "vessel.webhook")
    with GroqClient(settings=served.settings()) as client:
        for refuse in (
            lambda: client.submit("hello", webhook=url),
            lambda: client.submit_batch([{"prompt": "hello"}], webhook=url),
            lambda: client.submit_batch([line]),
        ):
            with pytest.raises(InvalidRequest):
                refuse()


@pytest.mark.parametrize("vessel", [{"webhook": 7}, {"webhook": "x" * 2049}, {"other": 1}, "x", [], {"webhook": ""}])
def test_what_a_batch_says_to_vessel_is_checked(served: Served, vessel: object) -> None:
    """It may name a webhook, and nothing else."""
    with served.http() as http:
        asked = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        answer = http.post("/v1/batches", json=asked | {"vessel": vessel})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("vessel")


def test_the_command_line_refuses_a_private_address(
    cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, for a job and for a batch."""
    monkeypatch.delenv("VESSEL_WEBHOOK_ALLOW_PRIVATE")
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(LINE))
    for command in (("submit", "hello"), ("batch", "submit", str(file))):
        done = cli(*command, "--webhook", "http://127.0.0.1:9000/x")
        assert (done.code, done.out) == (2, "")
        assert "VESSEL_WEBHOOK_ALLOW_PRIVATE" in done.err


def test_a_secret_can_be_rotated_and_set(cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is set is not rotated by a command; secrets are the tenants' own."""
    own = ("webhooks", "secret", "--tenant", "rotating", "--json")
    first = cli(*own).document
    second = cli(*own, "--rotate", "--overlap", "2h").document
    assert first["secret"] != second["secret"]
    assert len(second["previous_until"]) == 1
    assert cli(*own).document == second
    assert cli("webhooks", "secret", "--rotate", "--overlap", "soon").code == 2
    assert cli("webhooks", "secret", "--tenant", "").code == 2
    monkeypatch.setenv("VESSEL_WEBHOOK_SECRET", first["secret"])
    assert cli("webhooks", "secret").out.strip() == first["secret"]
    assert cli("webhooks", "secret", "--rotate").code == 2
