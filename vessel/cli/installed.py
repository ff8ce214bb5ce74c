"""What ops/install.sh has put on this machine: the systemd units of Vessel, and how each of them is."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePath

ETC = Path("/etc/vessel")
CREDENTIALS = ETC / "credentials"
_HANDED = PurePath("/run/credentials")
_RUNNING = Path("/run/systemd/system")
_TARGET = "vessel.target"
_CHECK = "vessel-check.service"
_FIELDS = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,User"
ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd sees it; `name` is without `.service`."""

    name: str
    load: str
    active: str
    sub: str
    result: str
    status: int
    restarts: int
    user: str = ""

    @property
    def well(self) -> bool:
        """Tell whether it runs."""
        return self.load == "loaded" and self.active == "active"

    @property
    def gave_up(self) -> bool:
        """Tell whether systemd will not start it again by itself."""
        return self.load != "loaded" or self.active == "failed"

    @property
    def text(self) -> str:
        """Say how it is, for people."""
        how = {"exit-code": f"exit code {self.status}", "signal": f"signal {self.status}"}
        ended = how.get(self.result, self.result)
        if self.load != "loaded":
            return f"{self.name} cannot be loaded ({self.load})"
        if self.sub == "auto-restart" and self.restarts > 1:
            return f"{self.name} keeps ending ({ended}; started again {self.restarts} times)"
        if self.sub == "auto-restart":
            return f"{self.name} has ended ({ended}) and will be started again"
        return {
            "active": f"{self.name} is active",
            "activating": f"{self.name} is still starting",
            "failed": f"{self.name} has failed ({ended})",
        }.get(self.active, f"{self.name} is stopped")


@dataclass(frozen=True, slots=True)
class Installation:
    """The units that the target starts. `fault`: why systemd does not tell how they are."""

    units: tuple[Unit, ...] = ()
    stopped: bool = False
    """Whether the target itself is not active, and so all of it."""
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    """The tiers of each worker unit, as its file in /etc/vessel/workers names them."""
    fault: str = ""

    def get(self, name: str) -> Unit | None:
        """Return the unit of this name."""
        return next((unit for unit in self.units if unit.name == name), None)

    @property
    def user(self) -> str:
        """Name the user that workers and the scheduler run as; empty where there is none of them."""
        keeping = ("vessel-worker@", "vessel-scheduler")
        return next((unit.user for unit in self.units if unit.user and unit.name.startswith(keeping)), "")

    def serving(self, tiers: tuple[str, ...] | list[str]) -> list[str]:
        """Name the worker units that are for these tiers."""
        return sorted(unit for unit, served in self.groups.items() if served.intersection(tiers))


def find() -> Installation | None:
    """Ask systemd for what the target starts; None where no systemd runs, or has no units of Vessel."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not _RUNNING.is_dir():
        return None
    try:
        target = _show(systemctl, "LoadState,ActiveState,Wants", _TARGET)[0]
        if target["LoadState"] == "not-found":
            return None
        names = [name for name in sorted(target["Wants"].split()) if name.startswith("vessel-") and name != _CHECK]
        shown = _show(systemctl, _FIELDS, *names) if names else []
    except (OSError, subprocess.SubprocessError, LookupError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else type(error).__name__
        return Installation(groups=_groups(), fault=said or "systemctl failed")
    units = tuple(unit for unit in map(_unit, shown) if _counts(unit))
    return Installation(units, target["ActiveState"] != "active", _groups())


def of(data_dir: Path) -> Installation | None:
    """Return the installation whose services keep their files there; None where it is another vessel's folder."""
    try:
        lines = (ETC / "vessel.env").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    named = [line.partition("=")[2].strip("\"'") for line in lines if line.startswith("VESSEL_DATA_DIR=")]
    return find() if named and Path(named[-1]) == data_dir else None


def credential_source(file: Path) -> Path:
    """Name the file that root writes, for the copy of it that systemd has handed to a service."""
    return CREDENTIALS / file.name if file.parent.parent == _HANDED else file


def _show(systemctl: str, fields: str, *units: str) -> list[dict[str, str]]:
    done = subprocess.run(  # noqa: S603  our own arguments
        [systemctl, "show", "--no-pager", "-p", fields, "--", *units],
        capture_output=True, text=True, check=True, timeout=ASK_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    blocks = done.stdout.strip().split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def _unit(shown: dict[str, str]) -> Unit:
    status, restarts = shown.get("ExecMainStatus", ""), shown.get("NRestarts", "")
    return Unit(
        shown["Id"].removesuffix(".service"), shown["LoadState"], shown["ActiveState"], shown["SubState"],
        shown.get("Result", ""), int(status or 0), int(restarts or 0), shown.get("User", ""),
    )  # fmt: skip


def _counts(unit: Unit) -> bool:
    """Leave out what somebody has masked, and the Redis of our own where another one is used."""
    elsewhere = unit.name == "vessel-redis" and unit.load == "not-found" and (ETC / "external-redis").exists()
    return unit.load != "masked" and not elsewhere


def _groups() -> dict[str, frozenset[str]]:
    found = {}
    try:
        for file in (ETC / "workers").glob("*.env"):
            lines = [line for line in file.read_text("utf-8").splitlines() if line.startswith("TIERS=")]
            tiers = lines[-1].removeprefix("TIERS=").strip("\"'") if lines else ""
            found[f"vessel-worker@{file.stem}"] = frozenset(tier.strip() for tier in tiers.split(",") if tier.strip())
    except (OSError, UnicodeDecodeError):
        return {}
    return found
