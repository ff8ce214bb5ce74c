"""Writing what must not be lost: through a Redis outage first, then to a spool on disk that sweeps replay."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
from typing import TYPE_CHECKING, Any, TypeVar

from vessel.durable import sync_folder
from vessel.errors import Unreachable
from vessel.keyspace.script import Call, Script
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner

T = TypeVar("T")
PATIENCE_S = 60.0
"""How long a finished call's result is offered to an unreachable Redis before it goes to disk (celery-facts 5)."""

log = get_logger(__name__)


async def persist(runner: AsyncRunner, call: Call[T], *, patience_s: float = PATIENCE_S) -> T:
    """Run a call through outages of Redis; raise Unreachable when patience ends. The call must be repeatable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    delay = 0.05
    while True:
        try:
            return await runner.run(call)
        except Unreachable:
            if loop.time() + delay > until:
                raise
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
            delay = min(2.0, delay * 2)


class Spool:
    """Calls that Redis did not take in time, one file each, readable by this user only (they hold answers)."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when first needed."""
        self.folder = folder

    def keep(self, call: Call[Any], name: str) -> None:
        """Write a script call to disk durably, whole or not at all."""
        if call.script is None:
            raise TypeError("only script calls can be replayed")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        parts = [base64.b64encode(p if isinstance(p, bytes) else str(p).encode()).decode() for p in call.command[2:]]
        # With its script's text: the version that replays it may give the same arguments another order.
        text = json.dumps({"script": call.script.name, "text": call.script.text, "parts": parts})
        target = self.folder / f"{name.replace('/', '-')}.json"
        partial = target.with_suffix(".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(self.folder)

    def waiting(self) -> Iterator[Path]:
        """Name the files that wait for Redis."""
        return iter(sorted(self.folder.glob("*.json")) if self.folder.is_dir() else [])

    async def replay(self, runner: AsyncRunner) -> int:
        """Offer every kept call to Redis again; taken ones are deleted. Returns how many were taken.

        A file that cannot be read is set aside as `.broken`, so that it does not stand before the others. Raises
        RedisUnreachable or RedisRefused; what was not taken stays.
        """
        taken = 0
        for path in self.waiting():
            try:
                call = _read(path)
            except FileNotFoundError:  # another process of this folder was faster
                continue
            except (ValueError, LookupError, TypeError):
                path.replace(path.with_suffix(".broken"))
                log.error("spool.broken", file=path.name)  # noqa: TRY400  a traceback could hold the answer
                continue
            try:
                await runner.run(call)
            except Unreachable:
                raise
            except Exception as error:  # noqa: BLE001  one file's trouble must not stand before the others
                path.replace(path.with_suffix(".broken"))
                log.error("spool.refused", file=path.name, error=type(error).__name__)  # noqa: TRY400  no texts
                continue
            path.unlink(missing_ok=True)
            taken += 1
            log.info("spool.replayed", file=path.name)
        return taken


def _read(path: Path) -> Call[object]:
    kept = json.loads(path.read_text("utf-8"))
    text = str(kept["text"])
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    parts = [base64.b64decode(p) for p in kept["parts"]]
    script = Script(str(kept["script"]), (), (), open_keys=True, open_args=True, text=text, sha=sha)
    return Call(("EVALSHA", sha, *parts), lambda raw: raw, script)
