"""What `vessel doctor` tells: findings, and those about this machine: settings, versions, keys, disk, faces."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from vessel.cli import check_services as services
from vessel.cli.check_steps import accepted
from vessel.settings.values import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vessel.cli.check_cures import Cures
    from vessel.settings import Settings

TESTED = {"celery": "5.7.0", "kombu": "5.7.0"}
"""The versions whose faults are known and mended (workers.shim)."""
OLDEST = {"celery": (5, 6), "kombu": (5, 4), "redis": (4, 5, 4), "flower": (1, 2)}
"""Below them jobs are lost or passwords shown (reliability facts: versions to stay above)."""
DISK_LOW, DISK_EMPTY = 1 << 30, 100 << 20
SPOOL_OLD_S = 600.0


class Severity(StrEnum):
    """How bad it is: an error loses or stops work, a warning may, a note is to be known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: what, why that matters, and what to do, with a command."""

    severity: Severity
    code: str
    what: str
    why: str
    cure: str


def error(code: str, what: str, why: str, cure: str) -> Finding:
    """Tell what loses or stops work."""
    return Finding(Severity.ERROR, code, what, why, cure)


def warning(code: str, what: str, why: str, cure: str) -> Finding:
    """Tell what may lose or stop work."""
    return Finding(Severity.WARNING, code, what, why, cure)


def note(code: str, what: str, why: str, cure: str) -> Finding:
    """Tell what is to be known."""
    return Finding(Severity.NOTE, code, what, why, cure)


def installed() -> dict[str, str]:
    """Name the versions of what Vessel stands on; a part that is not installed is left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("celery", "kombu", "redis", "flower"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def of_versions(found: dict[str, str], cures: Cures) -> Iterator[Finding]:
    """Look at versions that are known to lose work, and at those that were not tested."""
    for name, oldest in OLDEST.items():
        if name in found and _numbers(found[name]) < oldest:
            yield error(
                "version_too_old",
                f"{name} {found[name]} is installed",
                "it has known faults that lose work",
                cures.versions(f"{name}>={'.'.join(map(str, oldest))}"),
            )
    for name, tested in TESTED.items():
        if name in found and found[name] != tested:
            yield warning(
                "version_not_tested",
                f"{name} {found[name]} is installed, Vessel was tested with {tested}",
                "a correction that it needs may be missing, e.g. for outages of Redis",
                cures.versions(f"{name}=={tested}"),
            )


def of_key(settings: Settings, simulator: str | None, cures: Cures) -> Iterator[Finding]:
    """Look at the file of the key, and whether Groq takes what is in it."""
    file = settings.groq_api_key_file
    if file is not None and simulator is None:
        yield from _of_secret_file("key_file", file, "Groq keys", "GROQ_API_KEY_FILE", cures)
    for name, given in (
        ("api_key_file", settings.api_key_file),
        ("flower_auth_file", settings.flower_auth_file),
        ("webhook_secret_file", settings.webhook_secret_file),
    ):
        if given is not None:
            yield from _of_secret_file(name, given, "a secret", f"VESSEL_{name.upper()}", cures)
    for step in accepted(settings, simulator, cures):
        if step.ok is False:
            yield error(
                step.code or step.name,
                f"{step.title}: {step.text}",
                "no job is served: all wait until it is mended, without using an attempt",
                step.cure,
            )
        elif "keys are accepted" in step.text:
            yield warning(
                "key_of_several_refused",
                f"{step.title}: {step.text}",
                "the others serve in its place, until they are refused as well",
                f"take it out of {file}",
            )


def _of_secret_file(code: str, file: Path, what: str, name: str, cures: Cures) -> Iterator[Finding]:
    try:
        found = file.stat()
    except OSError as fault:
        yield error(
            f"{code}_unreadable",
            f"{name} names {file}: {fault.strerror}",
            f"it holds {what}",
            f"`ls -l {file}`; correct {name}",
        )
        return
    if not stat.S_ISREG(found.st_mode):
        yield error(
            f"{code}_unreadable", f"{name} names {file}, which is no file", f"it is to hold {what}", f"correct {name}"
        )
    elif not os.access(file, os.R_OK):
        yield error(
            f"{code}_unreadable",
            f"{file} is not readable by this user",
            f"it holds {what}",
            cures.secret_file(file),
        )
    elif found.st_mode & 0o077:
        yield warning(
            f"{code}_open",
            f"{file} is open to others ({stat.filemode(found.st_mode)})",
            f"it holds {what}: any user of this machine can use them",
            f"`chmod 600 {file}`",
        )


def of_disk(settings: Settings, cures: Cures, *, user: str = "") -> Iterator[Finding]:
    """Look at the data directory: room, whether it can be written, and answers that wait there for Redis.

    `user`: who has to write there, where that is not who asks.
    """
    folder = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    usage = shutil.disk_usage(folder)
    if usage.free < DISK_EMPTY:
        yield error(
            "disk_full",
            f"{_size(usage.free)} are free below {folder}",
            "paid answers that Redis does not take could not be kept, and its files not be written",
            f"`du -xsh {folder}/* | sort -h`",
        )
    elif usage.free < DISK_LOW:
        yield warning(
            "disk_low",
            f"{_size(usage.free)} are free below {folder}",
            "spool, usage log and an embedded Redis grow there",
            f"`du -xsh {folder}/* | sort -h`",
        )
    spool = settings.data_dir / "spool"
    closed = [path for path in (folder, spool) if path.exists() and not _is_writable(path, user)]
    if closed:
        yield error(
            "data_dir_read_only",
            f"{closed[0]} cannot be written by {user or 'this user'}",
            "answers that Redis does not take would be lost, so no worker starts, and there is no usage log",
            cures.data_dir(folder),
        )
    yield from _of_spool(spool, cures)


def _is_writable(folder: Path, user: str) -> bool:
    """Tell whether a user may make files there, by owners and modes, since root may itself in any case."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return os.access(folder, os.W_OK | os.X_OK)
    groups = os.getgrouplist(user, account.pw_gid)
    return account.pw_uid == 0 or all(
        _allows(path.stat(), 0o3 if path == folder else 0o1, account.pw_uid, groups)
        for path in (folder, *folder.resolve().parents)
    )


def _allows(found: os.stat_result, wanted: int, uid: int, groups: Sequence[int]) -> bool:
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return (found.st_mode >> shift) & wanted == wanted


def _of_spool(folder: Path, cures: Cures) -> Iterator[Finding]:
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return
    waiting, broken = sorted(folder.glob("*.json")), sorted(folder.glob("*.broken"))
    if waiting:
        age = max(0.0, time.time() - min(path.stat().st_mtime for path in waiting))
        tell = error if age > SPOOL_OLD_S else warning
        yield tell(
            "spool_waits",
            f"{len(waiting)} paid answers wait in {folder} for Redis, the oldest for {age:.0f} s",
            "their jobs are not told of them, and may be called again",
            f"see that Redis takes writes; workers and the scheduler book them then: {cures.scheduler()}",
        )
    if broken:
        yield error(
            "spool_broken",
            f"{len(broken)} files in {folder} could not be given to Redis",
            "each holds an answer that was paid for",
            f"`ls -l {folder}/*.broken`; keep them and report it",
        )


def of_faces(settings: Settings, cures: Cures) -> Iterator[Finding]:
    """Look at faces that hang, and at what listens off loopback: without a login, or without TLS."""
    for service in services.of(settings):
        host = settings.flower_host if service.name == "flower" else settings.api_host
        answer = services.ask(service, settings)
        if not (answer.ok or answer.refused or answer.status):
            yield error(
                f"{service.name}_hangs",
                f"{service.title} at {answer.url} takes connections and does not answer",
                "whoever calls it waits in vain",
                cures.stuck(service),
            )
        if host in LOOPBACK:
            continue
        if service.name != "api" and answer.status == services.OK:
            yield error(
                f"{service.name}_open",
                f"{service.title} on {host} answers without a login",
                "whoever reaches it can look at jobs or use your quota",
                f"bind it to 127.0.0.1, or give it a login (VESSEL_FLOWER_AUTH_FILE, `{cures.program} keys create`)",
            )
        if settings.api_tls_cert is None and (answer.ok or answer.status):
            yield warning(
                f"{service.name}_clear_text",
                f"{service.title} listens on {host} without TLS",
                "keys and prompts cross the network in clear text",
                "set VESSEL_API_TLS_CERT and VESSEL_API_TLS_KEY, or put it behind a proxy with TLS",
            )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
