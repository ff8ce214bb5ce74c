"""Writing what must not be lost: through a Redis outage first, then to a spool on disk that sweeps replay."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import json
import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from vessel.durable import sync_folder
from vessel.errors import SpoolUnwritable, Unreachable
from vessel.keyspace.script import Call, Script, load, script_names
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner

T = TypeVar("T")
PATIENCE_S = 60.0
"""How long a finished call's result is offered to an unreachable Redis before it goes to disk (celery-facts 5)."""

PROBE_BYTES = 4096
"""A whole block: a file without content can be made on a disk that is full."""

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
    """Calls that Redis did not take in time, one file each, readable by this user only (they hold answers).

    Each is signed with Redis' password of who kept it: a replay lends its own rights to what it finds, so it runs the
    scripts of this version, and others only where they come from somebody who had those rights already.
    """

    def __init__(self, folder: Path, redis_url: str = "") -> None:
        """Name the folder, which is made when first needed, and the Redis whose password signs."""
        self.folder = folder
        parts = urlsplit(redis_url)
        password = parts.password or "".join(parse_qs(parts.query).get("password", ()))
        self._secret = f"vessel spool {password}".encode()

    def probe(self) -> None:
        """Make sure that answers can be kept, by writing as `keep` does. Raises SpoolUnwritable."""
        file = self.folder / f".probe-{os.getpid()}"
        try:
            self._write(file, "\n" * PROBE_BYTES)
            file.unlink()
        except OSError as error:
            raise SpoolUnwritable(
                f"{self.folder} cannot be written ({reason_of(error)}), so nothing was started: an answer that Redis "
                "does not take is kept there, else it is lost and paid for twice. Give it to who runs Vessel, "
                "make room on its disk, or set VESSEL_DATA_DIR."
            ) from None

    def keep(self, call: Call[Any], name: str) -> None:
        """Write a script call to disk durably, whole or not at all. Blocks; raises OSError."""
        if call.script is None:
            raise TypeError("only script calls can be replayed")
        parts = [base64.b64encode(p if isinstance(p, bytes) else str(p).encode()).decode() for p in call.command[2:]]
        # With its script's text: the version that replays it may give the same arguments another order.
        kept = {"script": call.script.name, "text": call.script.text, "parts": parts}
        target = self.folder / f"{name.replace('/', '-')}.json"
        partial = target.with_suffix(".partial")
        self._write(partial, json.dumps(kept | {"signed": self._signature(kept)}))
        partial.replace(target)
        sync_folder(self.folder)

    def _write(self, path: Path, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise

    def _signature(self, kept: Mapping[str, Any]) -> str:
        signed = json.dumps([kept["script"], kept["text"], kept["parts"]]).encode()
        return hmac.new(self._secret, signed, hashlib.sha256).hexdigest()

    def waiting(self) -> Iterator[Path]:
        """Name the files that wait for Redis."""
        return iter(sorted(self.folder.glob("*.json")) if self.folder.is_dir() else [])

    async def replay(self, runner: AsyncRunner) -> int:
        """Offer every kept call to Redis again; taken ones are deleted. Returns how many were taken.

        A file that cannot be used is set aside as `.broken`, so that it does not stand before the others; so is one
        whose script is neither ours nor signed. Raises RedisUnreachable or RedisRefused; what was not taken stays.
        """
        taken = 0
        for path in self.waiting():
            try:
                call = await asyncio.to_thread(self._read, path)
            except FileNotFoundError:  # another process of this folder was faster
                continue
            except OSError as error:
                log.error("spool.unreadable", file=path.name, reason=reason_of(error))  # noqa: TRY400  no texts
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

    def _read(self, path: Path) -> Call[object]:
        """Read a kept call. Raises OSError, and ValueError, LookupError or TypeError for one that cannot be used."""
        kept = json.loads(path.read_text("utf-8"))
        name, text = str(kept["script"]), str(kept["text"])
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        ours = name in script_names() and sha == load(name).sha
        if not ours and not hmac.compare_digest(str(kept.get("signed", "")), self._signature(kept)):
            raise ValueError("neither its script nor its signature is known")
        parts = [base64.b64decode(p) for p in kept["parts"]]
        script = Script(name, (), (), open_keys=True, open_args=True, text=text, sha=sha)
        return Call(("EVALSHA", sha, *parts), lambda raw: raw, script)


def reason_of(error: OSError) -> str:
    """Say why a file could not be used: the system's code and words, without the file's name."""
    return f"{errno.errorcode.get(error.errno or 0, type(error).__name__)}, {error.strerror or 'no reason given'}"
