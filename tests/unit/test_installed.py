"""What systemd tells of an installation, and what that makes of the boot verification's cures and expectations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from vessel.cli import check, installed
from vessel.cli.check_cures import Cures, UnitCures
from vessel.cli.check_faces import units
from vessel.cli.check_seen import Plan, Seen, failed, passed
from vessel.cli.check_services import of
from vessel.cli.faults import BadUse
from vessel.cli.main import app
from vessel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from vessel.cli.check_seen import Step

KEY = Path("/run/credentials/vessel-worker@power.service/groq_api_key")
TARGET = (
    "LoadState=loaded\nActiveState={}\nWants=vessel-api.service vessel-check.service vessel-worker@power.service {}\n"
)
UNIT = "Id={}\nLoadState={}\nActiveState={}\nSubState={}\nResult={}\nExecMainStatus={}\nNRestarts={}\n"


def _unit(name: str, state: str = "active", sub: str = "running", *, load: str = "loaded", why: str = "success",
          status: int = 0, restarts: int = 0) -> str:  # fmt: skip
    return UNIT.format(name, load, state, sub, why, status, restarts)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a systemctl on PATH that says what a test wants, and files of an installation."""
    (tmp_path / "etc" / "workers").mkdir(parents=True)
    (tmp_path / "etc" / "workers" / "power.env").write_text('CONCURRENCY=200\nTIERS="balanced, power"\n')
    monkeypatch.setattr(installed, "ETC", tmp_path / "etc")
    monkeypatch.setattr(installed, "_RUNNING", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def tell(*shown: str, target: str = "active", more: str = "", fault: str = "") -> None:
        (tmp_path / "target").write_text(TARGET.format(target, more))
        (tmp_path / "units").write_text("\n".join(shown))
        script = f'case "$*" in *vessel.target) cat {tmp_path}/target ;; *) cat {tmp_path}/units ;; esac'
        (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{f'echo {fault} >&2; exit 1' if fault else script}\n")
        (tmp_path / "systemctl").chmod(0o755)

    return tell


def _found() -> installed.Installation:
    found = installed.find()
    assert found is not None
    return found


def test_units_are_those_of_the_target(systemd: Callable[..., None]) -> None:
    """But the check itself, and what somebody has masked; each says how it is."""
    systemd(
        _unit("vessel-api.service"),
        _unit("vessel-worker@power.service", "activating", "auto-restart", why="exit-code", status=3, restarts=4),
        _unit("vessel-mcp.service", "activating", "auto-restart", why="signal", status=9),
        _unit("vessel-scheduler.service", "failed", "failed", why="exit-code", status=2),
        _unit("vessel-redis.service", "activating", "start"),
        _unit("vessel-credentials.path", "inactive", "dead"),
        _unit("vessel-flower.service", "inactive", "dead", load="masked"),
        _unit("vessel-other.service", "inactive", "dead", load="bad-setting"),
    )
    found = _found()
    assert [unit.text for unit in found.units] == [
        "vessel-api is active",
        "vessel-worker@power keeps ending (exit code 3; started again 4 times)",
        "vessel-mcp has ended (signal 9) and will be started again",
        "vessel-scheduler has failed (exit code 2)",
        "vessel-redis is still starting",
        "vessel-credentials.path is stopped",
        "vessel-other cannot be loaded (bad-setting)",
    ]
    assert [unit.name for unit in found.units if unit.gave_up] == ["vessel-scheduler", "vessel-other"]
    assert found.serving(["power", "compound"]) == ["vessel-worker@power"]
    assert found.serving(["compound"]) == []


def test_where_there_is_no_installation_nothing_is_expected_of_it(
    systemd: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No systemd, or none of our units: the units cannot be asked for, and a boot expects the API alone."""
    systemd(_unit("vessel-api.service"))
    (tmp_path / "target").write_text("LoadState=not-found\nActiveState=inactive\nWants=\n")
    assert installed.find() is None
    monkeypatch.setattr(installed, "_RUNNING", tmp_path / "none")
    assert installed.find() is None
    assert check._expected(None, boot=True) == (frozenset({"api"}), False)
    with pytest.raises(BadUse, match="systemd has no units of Vessel here"):
        check._expected("units", boot=False)


def test_a_boot_expects_what_the_target_starts(systemd: Callable[..., None]) -> None:
    """A face whose unit is masked is not missed; what is named besides is; nothing is asked of units unless at boot."""
    systemd(_unit("vessel-api.service"), _unit("vessel-mcp.service"), _unit("vessel-flower.service", load="masked"))
    assert check._expected(None, boot=True) == (frozenset({"api", "mcp"}), True)
    assert check._expected("units,flower", boot=False) == (frozenset({"api", "mcp", "flower"}), True)
    assert check._expected("mcp", boot=True) == (frozenset({"mcp"}), False)
    assert check._expected(None, boot=False) == (frozenset({"api"}), False)


def test_a_systemd_that_does_not_tell_is_no_failure(systemd: Callable[..., None]) -> None:
    """The step says why it does not know, and every face has to answer instead."""
    systemd(fault="no bus")
    seen = Seen(installation=_found())
    (step,) = units(Plan(Settings(), (), frozenset(), inference=False, inference_s=1), seen)
    assert (step.ok, step.text) == (None, "not known, as systemd does not tell (no bus)")
    assert check._expected("units", boot=False) == (frozenset({"api", "mcp", "flower"}), True)


@pytest.mark.parametrize(
    ("shown", "target", "cure"),
    [
        (_unit("vessel-worker@power.service", "inactive", "dead"), "active",
         "`systemctl start vessel-worker@power`; `journalctl -u vessel-worker@power -n 30` says why it ended"),
        (_unit("vessel-worker@power.service", "failed", "failed"), "active",
         "`journalctl -u vessel-worker@power -n 30` says why; then `systemctl restart vessel-worker@power`"),
        (_unit("vessel-worker@power.service"), "active",
         ("by systemd it runs; `journalctl -u vessel-worker@power -n 30` says what it does, "
          "`systemctl restart vessel-worker@power` starts it anew")),
        (_unit("vessel-worker@power.service", "inactive", "dead"), "inactive",
         "all of it is stopped: `systemctl start vessel.target`"),
    ],
)  # fmt: skip
def test_the_cure_fits_how_the_unit_is(systemd: Callable[..., None], shown: str, target: str, cure: str) -> None:
    """What is stopped is started; what fails or runs has something to say first."""
    systemd(shown, target=target)
    assert UnitCures(_found()).workers(["power"]) == cure


def test_a_tier_without_a_unit_gets_one(systemd: Callable[..., None]) -> None:
    """Starting what there is would not help."""
    systemd(_unit("vessel-worker@power.service"))
    assert "no unit is for them: add them to TIERS=" in UnitCures(_found()).workers(["compound"])


def test_a_redis_elsewhere_is_not_started_here(systemd: Callable[..., None], tmp_path: Path) -> None:
    """Its unit is not there, and nothing says that it should be."""
    (tmp_path / "etc" / "external-redis").write_text("redis://@redis.example.org:6379/0\n")
    systemd(_unit("vessel-api.service"), _unit("vessel-redis.service", "inactive", "dead", load="not-found"))
    found = _found()
    assert [unit.name for unit in found.units] == ["vessel-api"]
    cures = UnitCures(found)
    assert "external-redis" in cures.redis()
    assert "systemctl" not in cures.redis() + cures.redis_user() + cures.redis_setting("appendonly", "yes")


def test_a_handed_credential_is_told_by_the_file_that_people_write() -> None:
    """The copy that systemd hands to a service cannot be written, and is gone when it ends."""
    written = "/etc/vessel/credentials/groq_api_key"
    assert str(installed.credential_source(KEY)) == written
    assert installed.credential_source(Path("/home/me/key")) == Path("/home/me/key")
    for cures in (Cures(), UnitCures(installed.Installation())):
        assert written in cures.key(KEY)
        assert written in cures.new_key(KEY)
    assert written in UnitCures(installed.Installation()).key(None)


@pytest.mark.parametrize("cures", [Cures(), UnitCures(installed.Installation())], ids=["commands", "units"])
def test_what_is_advised_exists(cures: Cures) -> None:
    """Each command of ours in a cure is one of the command line's."""
    told = (cures.maintenance(), cures.inference("job_1"), cures.redis_setting("appendonly", "yes"),
            cures.unwell(of(Settings())[0]))  # fmt: skip
    commands = re.findall(rf"`{cures.program} ([a-z]+)", " ".join(told))
    assert {"maintenance", "job", "limits", "doctor"} <= set(commands)
    group: Any = get_command(app)
    assert set(commands) <= set(group.commands)


def test_units_that_fail_for_a_told_reason_do_not_repeat_the_cure(systemd: Callable[..., None]) -> None:
    """One thing to do is said once; a unit that systemd has given up is not waited for."""
    systemd(_unit("vessel-api.service", "failed", "failed", why="exit-code", status=2))
    seen = Seen(installation=_found())
    seen.cures = UnitCures(_found())
    plan = Plan(Settings(), (), frozenset(), inference=False, inference_s=1)
    (first,) = units(plan, seen)
    assert (first.code, first.waits) == ("service_inactive", False)
    seen.steps.append(failed("api", "REST API", "away", "api_down", seen.cures.face(of(plan.settings)[0])))
    (second,) = units(plan, seen)
    assert (first.cure, second.cure) == (seen.cures.face(of(plan.settings)[0]), "as above")


def test_a_boot_waits_for_a_slow_face_without_paying_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test call comes once, when all else is well; the last look makes it whatever else is missing."""
    away = failed("flower", "Flower", "nothing listens there", "flower_down", "start it")
    looks: list[tuple[bool, bool]] = []

    def look(_plan: Plan, told: Callable[[Step], None], *, last: bool) -> Seen:
        slow = len(looks) < 9
        called = last or not slow
        looks.append((last, called))
        seen = Seen(steps=[away] if slow else [], last=last)
        if called:
            seen.steps.append(passed("inference", "Test call", "answered"))
        for step in seen.steps:
            told(step)
        return seen

    monkeypatch.setattr(check, "look", look)
    monkeypatch.setattr(check, "AGAIN_S", 0.0)
    plan = Plan(Settings(), (), frozenset(), inference=True, inference_s=1)
    shown: list[Step] = []
    assert not check._until_ready(plan, 60, shown.append).failed
    assert [called for _, called in looks] == [False] * 9 + [True]
    looks.clear()
    assert check._until_ready(plan, 0, shown.append).failed == [away]
    assert looks == [(True, True)]
