"""The spool keeps what Redis did not take, whole and private, and no bad file stands before the others."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import World, success
from vessel.errors import RedisUnreachable, SpoolUnwritable
from vessel.execute.persist import Spool, persist
from vessel.keyspace.connect import FLUSHES_AT_ONCE, PIPELINE_SIZE, AsyncRunner
from vessel.keyspace.script import command, word
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import RedisServer
    from vessel.keyspace.script import Call

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Give an empty spool."""
    return Spool(tmp_path / "spool")


async def test_a_kept_answer_is_delivered_once_and_byte_for_byte(
    world: World, runner: AsyncRunner, spool: Spool
) -> None:
    """Any bytes survive the disk; a delivered file is gone."""
    held, answer = world.started(), b'{"text":"\xff\x00 \\u0000 gr\xc3\xbc\xc3\x9fe"}'
    spool.keep(world.store.finish(held, *success(answer=answer)), f"{held.job.id}/1")

    assert await spool.replay(runner) == 1
    assert await spool.replay(runner) == 0
    job = world.job(held.job.id)
    assert (job.state, job.response) == (JobState.SUCCEEDED, answer)


async def test_only_its_owner_may_read_the_spool(world: World, spool: Spool) -> None:
    """Its files hold answers."""
    spool.keep(world.store.finish(world.started(), *success()), "a")

    assert [path.stat().st_mode & 0o077 for path in (spool.folder, *spool.waiting())] == [0, 0]


async def test_the_script_of_the_version_that_kept_it_is_replayed(
    world: World, runner: AsyncRunner, tmp_path: Path
) -> None:
    """After an update the arguments may stand in another order, so the script travels with them, signed."""
    spool, held = Spool(tmp_path, "redis://worker:secret@127.0.0.1/0"), world.started()
    spool.keep(_of_another_version(world.store.finish(held, *success())), "a")

    await spool.replay(runner)

    assert world.client.getdel("old:version") == held.job.id.encode()
    assert world.job(held.job.id).state is JobState.RUNNING
    world.finish(held, success())


async def test_a_script_that_nobody_vouches_for_is_not_run(world: World, runner: AsyncRunner, tmp_path: Path) -> None:
    """Who may write here, but does not have the password, lends nobody's rights to a script of his own."""
    spool, held = Spool(tmp_path, "redis://worker:secret@127.0.0.1/0"), world.started()
    foreign = _of_another_version(world.store.finish(held, *success()))
    Spool(tmp_path, "redis://flower:other@127.0.0.1/0").keep(foreign, "guessed")
    Spool(tmp_path).keep(foreign, "unsigned")
    spool.keep(foreign, "changed")
    kept = json.loads((tmp_path / "changed.json").read_text("utf-8"))
    (tmp_path / "changed.json").write_text(json.dumps(kept | {"text": kept["text"] + " "}), "utf-8")
    (tmp_path / "old.json").write_text(json.dumps({k: v for k, v in kept.items() if k != "signed"}), "utf-8")
    # Of this version's scripts any may be: a password that was replaced meanwhile loses no answer.
    Spool(tmp_path, "redis://worker:before@127.0.0.1/0").keep(world.store.finish(held, *success()), "ours")

    assert await spool.replay(runner) == 1
    assert _names(tmp_path) == ["changed.broken", "guessed.broken", "old.broken", "unsigned.broken"]
    assert world.client.get("old:version") is None
    assert world.job(held.job.id).state is JobState.SUCCEEDED


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _of_another_version(call: Call[Any]) -> Call[Any]:
    assert call.script is not None
    return replace(call, script=replace(call.script, text="return redis.call('SET', 'old:version', ARGV[1])"))


def _full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_cannot_be_written_is_told_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tried is what `keep` does, and leaves nothing; the text names the folder, the reason and what to do."""
    Spool(tmp_path / "spool").probe()
    assert _names(tmp_path / "spool") == []
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", _full)
        with pytest.raises(SpoolUnwritable, match="ENOSPC"):
            Spool(tmp_path / "spool").probe()
    assert _names(tmp_path / "spool") == []
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnwritable, match=r"EEXIST.*set VESSEL_DATA_DIR") as refused:
        Spool(tmp_path / "file").probe()
    assert refused.value.exit_code == 3


async def test_a_broken_file_is_set_aside(world: World, runner: AsyncRunner, spool: Spool) -> None:
    """The files behind it are delivered, and it stays for whoever looks for it."""
    held = world.started()
    spool.keep(world.store.finish(held, *success()), "b")
    (spool.folder / "a.json").write_text('{"script": "fin', "utf-8")

    assert await spool.replay(runner) == 1
    assert [path.name for path in spool.folder.iterdir()] == ["a.broken"]


async def test_what_is_not_taken_stays(world: World, spool: Spool) -> None:
    """A Redis that is still away costs nothing but another try."""

    class Away:
        async def run(self, _call: object) -> None:
            raise RedisUnreachable

    spool.keep(world.store.finish(world.started(), *success()), "a")
    with pytest.raises(RedisUnreachable):
        await spool.replay(Away())  # type: ignore[arg-type]  # a runner without a server

    assert len(list(spool.waiting())) == 1


async def test_patience_ends(runner: AsyncRunner) -> None:
    """A call is repeated through an outage and given up when its patience is over."""
    tries: list[int] = []

    class Flaky:
        async def run(self, call: object) -> object:
            tries.append(1)
            if len(tries) < 2:
                raise RedisUnreachable
            return await runner.run(call)  # type: ignore[arg-type]  # what persist was given

    echo = command("ECHO", "heard", parse=word)
    assert await persist(Flaky(), echo) == "heard"  # type: ignore[arg-type]  # a runner with an outage
    tries.clear()
    with pytest.raises(RedisUnreachable):
        await persist(Flaky(), echo, patience_s=0)  # type: ignore[arg-type]  # a runner with an outage
    assert len(tries) == 1


def test_a_plain_command_cannot_be_kept(spool: Spool) -> None:
    """Only scripts are safe to repeat."""
    with pytest.raises(TypeError):
        spool.keep(command("INCR", "x", parse=word), "a")


async def test_a_call_that_cannot_be_sent_fails_and_hangs_nobody(runner: AsyncRunner) -> None:
    """Text that has no bytes is an error for whoever waits for that round trip, and the next one works."""
    with pytest.raises(UnicodeEncodeError):
        await runner.run(command("ECHO", "\ud800", parse=word))

    assert await runner.run(command("ECHO", "heard", parse=word)) == "heard"


async def test_closing_lets_every_call_end(redis_server: RedisServer) -> None:
    """More calls than all round trips at once can carry are answered before the client closes."""
    runner = AsyncRunner(redis_server.async_client())
    count = 2 * PIPELINE_SIZE * FLUSHES_AT_ONCE
    calls = [asyncio.ensure_future(runner.run(command("ECHO", n, parse=int))) for n in range(count)]
    await asyncio.sleep(0)
    await runner.close()

    assert [call.result() for call in calls if call.done()] == list(range(count))


async def test_a_call_that_leads_is_in_the_round_trip_of_the_next_one(
    runner: AsyncRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they stand at the end of a full round trip too: another connection could be faster."""
    trips: list[list[object]] = []
    send = runner._send

    async def seen(calls: Sequence[Call[Any]]) -> list[Any]:
        trips.append([call.command[-1] for call in calls])
        return await send(calls)

    monkeypatch.setattr(runner, "_send", seen)
    sent = [
        runner.post(command("ECHO", number, parse=word), leads=number % PIPELINE_SIZE in {PIPELINE_SIZE - 1, 0})
        for number in range(2 * PIPELINE_SIZE + 1)
    ]
    await asyncio.gather(*sent)
    assert [[trip[0], trip[-1]] for trip in trips] == [[0, PIPELINE_SIZE + 1], [PIPELINE_SIZE + 2, 2 * PIPELINE_SIZE]]
