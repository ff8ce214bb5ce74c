"""Webhooks reach a real receiver, verify there, come again when they must, and go nowhere else."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from aiohttp.abc import ResolveResult

from tests.contract.world import HOUR_MS
from tests.integration.receiver import HANG, Receiver, answer
from tests.integration.telling import Telling, delivered
from tests.waiting import wait_until_async
from vessel.notify import sender, store
from vessel.notify.backoff import DeliveryState, Trouble
from vessel.notify.courier import AT_RECEIVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import redis

    from tests.conftest import RedisServer
    from vessel.notify.sender import Found

pytestmark = pytest.mark.redis("valkey")


@pytest.fixture
async def telling(redis_client: redis.Redis, redis_server: RedisServer) -> AsyncIterator[Telling]:
    """Give a world on an empty server."""
    telling = Telling(redis_client, redis_server)
    yield telling
    await telling.close()


async def test_a_receiver_verifies_what_it_gets(telling: Telling) -> None:
    """By the id, the time and the signature of Standard Webhooks; then it is delivered and not sent again."""
    with Receiver() as receiver:
        job_id = telling.ended(f"{receiver.url}?token=1")
        courier = telling.courier()
        assert await delivered(courier) == 1
        assert await delivered(courier) == 0
    (got,) = receiver.got
    message = got.verified(telling.secret)
    assert (message["type"], message["data"]["id"]) == ("job.succeeded", job_id)
    assert (got.id, got.path, got.headers["content-type"]) == (f"msg_{job_id}", "/hook?token=1", "application/json")
    assert got.headers["user-agent"].startswith("vessel-webhooks/")
    found = telling.delivery(job_id)
    assert (found.state, found.attempts, found.tries[0].status) == (DeliveryState.DELIVERED, 1, 200)


async def test_a_receiver_that_fails_gets_it_again_under_the_same_id(telling: Telling) -> None:
    """500, nothing that is HTTP, no answer but a closed connection, then 200; each attempt is kept."""
    with Receiver(answer(500), b"what?\r\n\r\n", answer(503, "retry-after: 7200"), answer(204)) as receiver:
        job_id = telling.ended(receiver.url)
        courier = telling.courier()
        for _ in range(4):
            assert await delivered(courier) == 1
            telling.pass_time()
    assert [got.id for got in receiver.got] == [f"msg_{job_id}"] * 4
    assert len({got.body for got in receiver.got}) == 1
    found = telling.delivery(job_id)
    tries = [(one.status, one.trouble) for one in found.tries]
    assert tries == [
        (500, Trouble.STATUS), (None, Trouble.PROTOCOL), (503, Trouble.STATUS), (204, Trouble.NONE),
    ]  # fmt: skip
    assert found.state is DeliveryState.DELIVERED


async def test_a_receiver_that_asks_for_time_gets_it(telling: Telling) -> None:
    """Retry-After of a 429, in seconds."""
    with Receiver(answer(429, "retry-after: 7200")) as receiver:
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
    found = telling.delivery(job_id)
    assert found.next_at is not None
    assert found.next_at - found.tries[0].at >= 2 * HOUR_MS


async def test_gone_is_given_up(telling: Telling) -> None:
    """410 says that nobody wants it any more."""
    with Receiver(answer(410)) as receiver:
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
    found = telling.delivery(job_id)
    assert (found.state, found.tries[-1].trouble) == (DeliveryState.GIVEN_UP, Trouble.GONE)


async def test_a_redirect_is_not_followed(telling: Telling) -> None:
    """Where it leads nothing comes; it is a failure, told as what it is."""
    with Receiver() as target, Receiver(answer(307, f"location: {target.url}")) as receiver:
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
        assert target.peers == 0
    found = telling.delivery(job_id)
    assert (found.state, found.tries[-1].trouble) == (DeliveryState.PENDING, Trouble.REDIRECT)
    assert "not followed" in found.as_dict()["tries"][0]["message"]


async def test_a_receiver_that_hangs_does_not_delay_others(telling: Telling) -> None:
    """However many webhooks wait for it, it has a few calls at once."""
    with Receiver(HANG) as hanging, Receiver() as receiver:
        for _ in range(40):
            telling.ended(hanging.url)
        job_id = telling.ended(receiver.url)
        courier = telling.courier()

        async def came() -> bool:
            await courier.tick()
            return telling.delivery(job_id).state is DeliveryState.DELIVERED

        await wait_until_async(came)
        assert len(hanging.got) <= AT_RECEIVER
        await courier.close()


async def test_an_answer_that_does_not_come_in_time_is_a_failure(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole attempt has its time."""
    monkeypatch.setattr(sender, "TOTAL_S", 0.2)
    with Receiver(HANG) as receiver:
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
    assert telling.delivery(job_id).tries[-1].trouble is Trouble.TIMEOUT


async def test_of_an_answer_only_the_status_counts(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body without end, and one that never comes, cost their connection and no more."""
    monkeypatch.setattr(sender, "BODY_S", 0.2)
    endless = answer(200, body=b"x" * 10_000_000)
    silent = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    with Receiver(endless, silent) as receiver:
        ids = [telling.ended(receiver.url) for _ in range(2)]
        courier = telling.courier()
        await delivered(courier)
    assert [telling.delivery(job_id).state for job_id in ids] == [DeliveryState.DELIVERED] * 2


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["fe80::1%1"]],
)
async def test_a_name_that_leads_to_a_private_address_gets_nothing(telling: Telling, found: list[str]) -> None:
    """One such address among several is enough; it is given up at once, and a human sees why."""

    def lookup(_host: str, _port: int) -> list[Found]:
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in found]

    with Receiver() as receiver:
        job_id = telling.ended(f"http://hooks.example.com:{receiver.port}/x")
        await delivered(telling.courier(lookup, webhook_allow_private=False))
        assert receiver.peers == 0
    delivery = telling.delivery(job_id)
    assert (delivery.state, delivery.tries[-1].trouble) == (DeliveryState.GIVEN_UP, Trouble.ADDRESS_REFUSED)


async def test_the_look_up_and_the_socket_are_checked_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One private answer among public ones refuses the name; a socket to a private address is not even made."""
    found: list[Found] = [(socket.AF_INET, "1.1.1.1"), (socket.AF_INET, "10.0.0.1")]
    resolver = sender.CheckedResolver(lambda *_: found, allow_private=False)
    with pytest.raises(sender.AddressRefused):
        await resolver.resolve("hooks.example.com", 80)
    found.pop()
    assert [one["host"] for one in await resolver.resolve("hooks.example.com", 80)] == ["1.1.1.1"]
    await resolver.close()
    with Receiver() as receiver:
        sending = sender.Sender(lookup=lambda *_: [(socket.AF_INET, "127.0.0.1")])
        monkeypatch.setattr(sender.CheckedResolver, "resolve", _unchecked)
        outcome = await sending.post(f"http://hooks.example.com:{receiver.port}/", b"{}", {})
        await sending.close()
        assert (outcome.trouble, receiver.peers) == (Trouble.ADDRESS_REFUSED, 0)


async def _unchecked(_self: object, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    del family
    return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "localhost"])
async def test_an_address_that_was_accepted_before_is_checked_again(telling: Telling, host: str) -> None:
    """As when the setting was on; whatever its form, nothing is connected to."""
    with Receiver() as receiver:
        job_id = telling.ended(f"http://{host}:{receiver.port}/x")
        await delivered(telling.courier(webhook_allow_private=False))
        assert receiver.peers == 0
    assert telling.delivery(job_id).tries[-1].trouble is Trouble.ADDRESS_REFUSED


async def test_a_name_is_looked_up_once_and_that_address_is_used(telling: Telling) -> None:
    """One that answers otherwise at a second look gains nothing; Host is the name."""
    asked: list[str] = []

    def lookup(host: str, _port: int) -> list[Found]:
        asked.append(host)
        return [(socket.AF_INET, "127.0.0.1" if len(asked) == 1 else "127.0.0.2")]

    with Receiver() as receiver:
        job_id = telling.ended(f"http://hooks.example.com:{receiver.port}/x")
        await delivered(telling.courier(lookup))
        assert telling.delivery(job_id).state is DeliveryState.DELIVERED
        assert asked == ["hooks.example.com"]
        assert receiver.got[0].headers["host"] == f"hooks.example.com:{receiver.port}"


async def test_a_name_without_an_address_is_tried_again(telling: Telling) -> None:
    """A name server may be away."""

    def lookup(_host: str, _port: int) -> list[Found]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    job_id = telling.ended("http://hooks.example.com/x")
    await delivered(telling.courier(lookup))
    assert telling.delivery(job_id).tries[-1].trouble is Trouble.DNS
    refused = telling.ended("http://127.0.0.1:1/x".replace(":1/", f":{unused()}/"))
    await delivered(telling.courier())
    assert telling.delivery(refused).tries[-1].trouble is Trouble.CONNECTION


def unused() -> int:
    """Find a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_proxy_of_the_environment_is_not_used(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect to whatever it likes."""
    with Receiver() as receiver, Receiver() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
        assert proxy.peers == 0
    assert telling.delivery(job_id).state is DeliveryState.DELIVERED


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
async def test_a_certificate_that_nobody_vouches_for_is_refused(telling: Telling, tmp_path: Path) -> None:
    """Nothing is sent to who cannot prove the name."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*made, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)  # noqa: ASYNC221  nothing else runs yet
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    with Receiver(tls=tls) as receiver:
        job_id = telling.ended(receiver.url)
        await delivered(telling.courier())
        assert receiver.got == []
    assert telling.delivery(job_id).tries[-1].trouble is Trouble.TLS


async def test_several_sweepers_deliver_each_webhook_once(telling: Telling) -> None:
    """Each is leased to one of them."""
    with Receiver() as receiver:
        ids = [telling.ended(receiver.url) for _ in range(40)]
        couriers = [telling.courier() for _ in range(3)]

        async def all_came() -> bool:
            await asyncio.gather(*(courier.tick() for courier in couriers))
            return not telling.world.client.exists(telling.world.keys.webhooks)

        await wait_until_async(all_came)
    assert sorted(got.id for got in receiver.got) == sorted(f"msg_{job_id}" for job_id in ids)


async def test_after_a_rotation_old_and_new_secret_verify(telling: Telling) -> None:
    """A receiver changes over when it likes, within the overlap."""
    old, new = telling.secret, store.new_secret()
    telling.world.run(store.rotate(telling.world.keys, "t", new, HOUR_MS))
    with Receiver() as receiver:
        telling.ended(receiver.url)
        await delivered(telling.courier())
    (got,) = receiver.got
    assert got.verified(new) == got.verified(old)


async def test_without_a_usable_secret_nothing_is_sent_and_nothing_lost(telling: Telling, tmp_path: Path) -> None:
    """It is sent once the file is readable."""
    file, secret = tmp_path / "secret", store.new_secret()
    with Receiver() as receiver:
        job_id = telling.ended(receiver.url)
        courier = telling.courier(webhook_secret_file=file)
        await delivered(courier)
        assert (receiver.got, telling.delivery(job_id).attempts) == ([], 0)
        file.write_text(secret)
        telling.pass_time()
        await delivered(courier)
        assert receiver.got[0].verified(secret)["data"]["id"] == job_id
