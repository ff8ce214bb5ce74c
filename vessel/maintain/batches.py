"""Batches go on: validated, their lines given jobs a little ahead of the feeder, stopped when cancelled or over.

Every step is an atomic script that rechecks, so any number of processes may run it; a crash leaves nothing half-done.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vessel.batches.lines import BLOCK, Checker, parse_line, read_block, split_policy
from vessel.batches.model import Batch, BatchStatus, Fault, TooManyLines, line_job_id
from vessel.batches.store import Unfolded, stopping
from vessel.errors import InvalidRequest, Unreachable
from vessel.gate.tokens import SHORT
from vessel.keyspace.script import command, word
from vessel.keyspace.server import clock
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vessel.keyspace.connect import AsyncRunner
    from vessel.registry import Availability
    from vessel.submit import Door

SLICE = 16 << 10
"""Bytes that are checked before others get their turn: about three milliseconds."""

AHEAD = 256
"""Lines of a group that have a job beyond what all slots could run: some ticks' worth for the feeder."""

STEP = 64
MOST_AT_ONCE = 512
PLANNED_AT_ONCE = 16

log = get_logger(__name__)


class BatchKeeper:
    """Carries the batches of all tenants on; holds nothing between ticks."""

    def __init__(
        self, door: Door, runner: AsyncRunner, worker: str = "", prepare: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Take the shared handles; `prepare` is awaited before long texts are counted, and tells whether to."""
        self.door, self.runner = door, runner
        self.store, self.files = door.batches, door.files
        self.owner = f"{worker}/{secrets.token_hex(4)}"
        self._prepare = prepare

    async def tick(self) -> int:
        """Carry every open batch a step on; returns how many lines got their job."""
        made = 0
        batches = await self._open()
        now = await self.runner.run(clock()) if batches else 0
        for batch in batches:
            if await self._over(batch, now):
                continue
            match batch.status:
                case BatchStatus.IN_PROGRESS:
                    made += await self._unfold(batch)
                case BatchStatus.CANCELLING:
                    await self.stop_lines(batch.id)
                case _:
                    pass
        return made

    async def validate(self) -> int:
        """Validate the batches that wait for it; returns how many were."""
        done = 0
        for batch in await self._open():
            if batch.status is BatchStatus.VALIDATING:
                done += await self._validate(batch)
        return done

    async def _open(self) -> list[Batch]:
        ids = await self.runner.run(self.store.open_batches())
        found = await self.runner.run_all([self.store.batch(batch_id) for batch_id in ids])
        for batch_id, batch in zip(ids, found, strict=True):
            if batch is None:
                await self.runner.run(command("ZREM", self.door.keys.open_batches, batch_id, parse=word))
        return [batch for batch in found if batch is not None]

    async def _over(self, batch: Batch, now: int) -> bool:
        if batch.status not in {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS} or now < batch.expires_at:
            return False
        answer, status = await self.runner.run(self.store.expire(batch.id))
        log.info("batch.expired", batch_id=batch.id, state=status)
        return answer == "stopped"

    # --- validating ---------------------------------------------------------------------------------------------------

    async def _validate(self, batch: Batch) -> bool:
        """Check every line; the batch goes or has failed at the end, unless another process does it."""
        if not await self.runner.run(self.store.own(batch.id, self.owner)):
            return False
        availability = await self.runner.run(self.door.availability())
        checker = Checker(partial(self.door.plan, availability=availability))
        try:
            if not await self._check(batch, checker):
                return False
        except TooManyLines as fault:
            checker.faults.append(Fault(fault.code, None, fault.message))
        if checker.faults:
            log.info("batch.refused", batch_id=batch.id, faults=len(checker.faults))
            return await self.runner.run(self.store.refuse(batch.id, self.owner, checker.faults))
        models = checker.index.models
        only = models[0] if len(models) == 1 else ""
        log.info("batch.accepted", batch_id=batch.id, lines=checker.index.lines, models=len(models))
        return await self.runner.run(self.store.commit(batch.id, self.owner, checker.index.totals, only))

    async def _check(self, batch: Batch, checker: Checker) -> bool:
        file = await self.runner.run(self.files.file(batch.file))
        for number in range(file.chunks if file else 0):
            chunk = await self.runner.run(self.files.chunk(batch.file, number))
            if not chunk:
                file = None
                break
            if not await self._counts(chunk.split(b"\n")):
                return False
            for at in range(0, len(chunk), SLICE):
                checker.feed(chunk[at : at + SLICE])
                await asyncio.sleep(0)
            if not await self._write(batch, checker):
                return False
        if file is None:
            checker.faults.append(Fault("input_file_gone", None, "The input file was deleted before it was read."))
            return True
        checker.finish()
        if not checker.index.lines and not checker.faults:
            checker.faults.append(Fault("empty_file", None, "The file holds no requests."))
        return await self._write(batch, checker)

    async def _write(self, batch: Batch, checker: Checker) -> bool:
        blocks, checker.index.ready = checker.index.ready, []
        return await self.runner.run(self.store.own(batch.id, self.owner, blocks))

    # --- unfolding ----------------------------------------------------------------------------------------------------

    async def _unfold(self, batch: Batch) -> int:
        """Give lines their jobs, a little ahead of what workers can take."""
        todo = [group for group, (total, begun, _) in enumerate(batch.groups) if begun < total]
        if not todo:
            return 0
        calls: list[Any] = [self.door.availability(), self.door.slots()]
        availability, slots = await self.runner.run_all(calls)
        made = 0
        for group in todo:
            total, begun, ended = batch.groups[group]
            end = min(total, ended + slots + AHEAD, begun + MOST_AT_ONCE)
            for first in range(begun, end, STEP):
                some = await self._step(batch, group, range(first, min(end, first + STEP)), availability)
                made += some
                if some < min(end, first + STEP) - first:
                    break
        return made

    async def _step(self, batch: Batch, group: int, positions: range, availability: Availability) -> int:
        """Unfold some lines in their order; what another process did before, or nobody can serve now, is left."""
        rows = await self._rows(batch.id, group, positions)
        calls = [self.files.range(batch.file, offset, length) for _, offset, length, _ in rows]
        parts = iter(await self.runner.run_all([call for some in calls for call in some]))
        texts = [b"".join(next(parts) for _ in some) for some in calls]
        if not await self._counts(texts):
            return 0
        lines: list[tuple[Unfolded, str]] = []
        for position, row, text in zip(positions, rows, texts, strict=False):
            source = f"{batch.file} {row[1]} {row[2]}"
            line = Unfolded(batch.id, group, position, row[3], source, tenant=batch.tenant)
            try:
                lines.append(self._planned(line, text, availability))
            except Unreachable:
                break
            if len(lines) % PLANNED_AT_ONCE == 0:
                await asyncio.sleep(0)
        done = await self.runner.run_all([self.store.unfold(line, queue) for line, queue in lines])
        return sum(done)

    async def _counts(self, texts: Sequence[bytes]) -> bool:
        """Get ready to count these; false where that is another process' turn."""
        long = any(len(text) >= SHORT for text in texts)
        return not long or self._prepare is None or await self._prepare()

    def _planned(self, line: Unfolded, text: bytes, availability: Availability) -> tuple[Unfolded, str]:
        policy: dict[str, Any] | None = None
        try:
            body, policy = split_policy(parse_line(text).body)
            prepared = self.door.prepare(body, policy, availability=availability, tenant=line.tenant)
        except InvalidRequest as fault:
            return replace(line, broken=(fault.code, fault.message), webhook=self._webhook(policy)), ""
        job_id = line_job_id(line.batch, line.place)
        return replace(line, new=replace(prepared.new, id=job_id, body=b"")), prepared.queue

    def _webhook(self, policy: object) -> str:
        try:
            return self.door.webhook(policy.get("webhook") if isinstance(policy, dict) else None)
        except InvalidRequest:
            return ""

    async def _rows(self, batch_id: str, group: int, positions: range) -> list[tuple[int, int, int, str]]:
        blocks = range(positions[0] // BLOCK, positions[-1] // BLOCK + 1)
        raw = await self.runner.run_all([self.store.block(batch_id, f"{group}:{block}") for block in blocks])
        rows = [row for block in raw for row in read_block(block)]
        first = positions[0] - blocks[0] * BLOCK
        return rows[first : first + len(positions)]

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def stop_lines(self, batch_id: str) -> int:
        """Cancel the jobs of a batch's lines; returns how many had not ended. Lines that run are told, and cut."""
        open_lines = await self.runner.run(self.store.open_lines(batch_id))
        some = next(stopping(batch_id, open_lines), [])
        jobs = await self.runner.run_all([self.door.store.peek(job_id) for job_id in some])
        await self.runner.run_all([self.door.store.cancel(job) for job in jobs if job is not None])
        return len(open_lines)
