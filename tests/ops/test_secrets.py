"""The scripts that make and renew secrets: no program is told one, and no failure leaves a way to one open."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.ops.composed import OPS

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = """#!/bin/sh
for word in "$0" "$@"; do printf '%s\\n' "$word"; done >>'{log}'
exec '{program}' "$@"
"""
ADDRESSES = (
    "unix://@/run/vessel-redis/redis.sock",
    "rediss://@redis.example.org:6379/0?ssl_ca_certs=/etc/a&b|c",
    "sentinel://@a:26379,b:26379,c:26379/vessel/0",
)
UNITS = ("vessel-scheduler.service", "vessel-worker@fast.service", "vessel-worker@power.service")


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """Give a folder with every program that the script may run, each writing down its arguments first."""
    folder = tmp_path / "watched"
    folder.mkdir()
    for name in ("basename", "cat", "chmod", "cmp", "cp", "cut", "dirname", "grep", "head", "mkdir", "mktemp", "mv",
                 "od", "rm", "sed", "sha256sum", "tr"):  # fmt: skip
        program = shutil.which(name)
        assert program, name
        (folder / name).write_text(SHOWN.format(log=tmp_path / "argv", program=program))
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_program_is_told_a_secret(watched: Path, tmp_path: Path, address: str) -> None:
    """What a program is called with stands in /proc for everybody: made, kept and replaced, no password is there."""
    secrets = tmp_path / "secrets"
    script = [str(OPS / "make_secrets.sh")]
    for options in ((), (), ("--replace", "worker")):
        subprocess.run([*script, *options, secrets, address], check=True, env={"PATH": str(watched)})
    argv = (tmp_path / "argv").read_text()
    assert "sha256sum" in argv
    scheme, _, rest = address.partition("://@")
    made = {file.name: file.read_text().strip() for file in secrets.iterdir()}
    passwords = []
    for user in ("api", "worker", "flower", "operator"):
        found = re.fullmatch(rf"{scheme}://{user}:([0-9a-f]{{64}})@{re.escape(rest)}", made[f"redis_url_{user}"])
        assert found, user
        passwords.append(found[1])
    passwords += [made[f"redis_password_{user}"] for user in ("metrics", "replica", "sentinel")]
    passwords += [made["api_key"].removeprefix("vsl_"), *re.findall(r"[0-9a-f]{64}", made["flower_auth"])]
    assert len(set(passwords)) == 10
    assert [secret[:8] for secret in passwords if secret in argv] == []


class Machine:
    """The script that renews credentials, on folders of its own, with stand-ins for what only root may do."""

    def __init__(self, folder: Path) -> None:
        """Make three services that hold an old key, on a mount that cannot be written but through another one."""
        self.folder, self.held, self.key, self.tmp = folder, folder / "held", folder / "key", folder / "tmp"
        self.tmp.mkdir()
        self.key.write_text("new")
        for unit in UNITS:
            (self.held / unit).mkdir(parents=True)
            (self.held / unit / "groq_api_key").write_text("old")
        text = (OPS / "refresh_credentials.sh").read_text("utf-8")
        for name, path in (("KEY", self.key), ("HELD", self.held), ("LOCK", folder / "lock")):
            text, count = re.subn(rf"^{name}=.*$", f"{name}={path}", text, flags=re.MULTILINE)
            assert count == 1, name
        (folder / "refresh").write_text(text)
        (folder / "refresh").chmod(0o755)
        (folder / "bin").mkdir()
        self.program("touch", "exit 1")
        self.program("mount", 'case "$1" in --bind) rmdir "$3" && ln -s "$2" "$3" ;; esac')
        self.program("umount", 'rm "$1" && mkdir "$1"')
        self.program("systemctl", "exit 1")

    def program(self, name: str, script: str) -> None:
        """Put a program before all others."""
        (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def refresh(self, unit: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        env = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(self.tmp)}
        return subprocess.run([self.folder / "refresh", unit], env=env, capture_output=True, text=True, check=False)

    def keys(self) -> list[str]:
        """Read what each service holds now, and see that nothing else is left anywhere."""
        assert list(self.tmp.iterdir()) == []
        assert {file.name for file in self.held.glob("*/*")} | {file.name for file in self.held.glob("*/.*")} == {
            "groq_api_key"
        }
        return [(self.held / unit / "groq_api_key").read_text() for unit in UNITS]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give one."""
    return Machine(tmp_path)


def test_a_new_key_comes_to_all_services(machine: Machine) -> None:
    """Each is told of once, and the second time nothing is done."""
    first, second = machine.refresh("--all"), machine.refresh("--all")
    assert (first.returncode, first.stdout.count("has the new key"), first.stderr) == (0, 3, "")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.keys() == ["new"] * 3


@pytest.mark.parametrize("broken", ["cp", "cat", "mv", "mount"])
def test_a_failure_at_one_service_leaves_no_mount_and_no_other_without_the_key(machine: Machine, broken: str) -> None:
    """It is named, the exit code says so, and doing it again mends it."""
    real = {"mount": 'case "$1" in --bind) rmdir "$3" && ln -s "$2" "$3" ;; esac'}
    once = f"[ -e {machine.folder}/failed ] || {{ : >{machine.folder}/failed; exit 1; }}"
    machine.program(broken, f'{once}\n{real.get(broken, f"""exec {shutil.which(broken)} "$@" """)}')
    done = machine.refresh("--all")
    assert done.returncode == 1
    assert f"keep the old key: {UNITS[0]}. Try again: systemctl reload {UNITS[0]}" in done.stderr
    assert machine.keys() == ["old", "new", "new"]
    assert machine.refresh(UNITS[0]).returncode == 0
    assert machine.keys() == ["new"] * 3


def test_two_at_once_take_turns(machine: Machine) -> None:
    """The path unit and a reload share the name of the half-written file: the second waits for the first."""
    machine.program("cp", f"echo $PPID >>{machine.folder}/inside; [ $(wc -l <{machine.folder}/inside) = 1 ] || exit 9\n"
                          f"exec {shutil.which('cp')} \"$@\"")  # fmt: skip
    env = {"PATH": f"{machine.folder / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(machine.tmp)}
    both = [subprocess.Popen([machine.folder / "refresh", UNITS[0]], env=env) for _ in range(2)]
    assert [one.wait(30) for one in both] == [0, 0]
    assert machine.keys()[0] == "new"
