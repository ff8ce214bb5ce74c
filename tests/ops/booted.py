"""A Debian with systemd as its first process: a debootstrap tree booted by systemd-nspawn."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.ops.composed import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

PACKAGES = "systemd,systemd-sysv,dbus,redis-server,python3,python3-venv,ca-certificates,procps,iproute2"
PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter")
BOOT_S = 120.0
WORKERS = ("fast", "power", "compound")
FIRST, SECOND = "gsk_sim_first_key_0001", "gsk_sim_second_key_002"
"""Keys that the simulator takes; the first is installed."""
KEY_FILE = "/etc/vessel/credentials/groq_api_key"
LATENCY_MS = 400
HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
IN_GROUPS = """
for group; do [ "$group" = -- ] && break; mkdir -p "$group" && echo $$ >"$group/cgroup.procs"; shift; done
shift
exec "$@"
"""
SIMULATOR = """[Service]
ExecStart=/opt/vessel/venv/bin/vessel simulate --latency-ms {latency} {keys}
[Install]
WantedBy=multi-user.target
"""


def missing() -> str:
    """Say what this machine has not; empty when it can boot a tree."""
    if os.geteuid() != 0:
        return "needs root"
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(gone)}: apt-get install debootstrap systemd-container util-linux" if gone else ""


def debootstrap(folder: Path) -> Path:
    """Make a fresh tree: a copy of TEST_ROOTFS, or one that debootstrap makes from this machine's mirror."""
    tree = folder / "tree"
    given = os.environ.get("TEST_ROOTFS", "")
    if given:
        copy(Path(given), tree)
    else:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", _suite(), str(tree), *_mirror()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for file in _network_files():
        with suppress(OSError):
            (tree / file.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tree / file.relative_to("/"))
    return tree


def copy(tree: Path, to: Path) -> None:
    """Copy a tree with its owners, rights and links."""
    subprocess.run(["cp", "-a", tree, to], check=True)


def _suite() -> str:
    return str(re.findall(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)[0])


def _mirror() -> list[str]:
    """Find where this machine's apt gets its packages; its name goes into no file of ours."""
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        text = file.read_text() if file.exists() else ""
        found = re.findall(r"^URIs:\s*(\S+)|^deb\s+(?:\[[^]]*\]\s+)?(\S+)", text, re.MULTILINE)
        if found:
            return [found[0][0] or found[0][1]]
    return []


def _network_files() -> Iterator[Path]:
    """Name what pip needs here to reach its index."""
    yield from (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs/ca-certificates.crt"))
    yield from (Path("/etc/pip.conf"), *Path("/etc/xdg/pip").glob("*"), Path.home() / ".config/pip/pip.conf")


def package_folders() -> list[Path]:
    """Name the local folders of packages that this machine's pip is told of."""
    said = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    folders = {Path(found) for found in re.findall(r"(?:file://|[=' ])(/[^\s']+)", said)}
    return sorted(folder.parent if folder.name == "simple" else folder for folder in folders if folder.is_dir())


class Booted:
    """The tree, installed into by ops/install.sh and booted with the simulator in place of Groq."""

    def __init__(self, debian: Path, folder: Path, *, program: Path | None = None) -> None:
        """Copy the tree and install into it; or put a `program` there, an /opt/vessel, and install nothing."""
        self.folder, self.tree = folder, folder / "machine"
        copy(debian, self.tree)
        self.process: subprocess.Popen[bytes] | None = None
        # Control groups of its own: two machines in the same ones would kill each other's processes.
        roots = [Path(root) for root in HIERARCHIES if Path(root, "cgroup.procs").exists()]
        self.groups = [root / f"vessel-test-{os.getpid()}-{folder.name}" for root in roots]
        (self.tree / "srv" / "key").write_text(FIRST)
        if program is None:
            self.install("--key-file", "/srv/key", "--no-start")
        else:
            copy(program, self.tree / "opt" / "vessel")
        units = self.tree / "etc/systemd/system"
        taken = f"--key {FIRST} --key {SECOND}"
        (units / "sim.service").write_text(SIMULATOR.format(latency=LATENCY_MS, keys=taken))
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants" / "sim.service").symlink_to("../sim.service")
        if program is None:
            self.name_simulator()

    def name_simulator(self) -> None:
        """Have the services call the simulator."""
        with (self.tree / "etc/vessel/vessel.env").open("a") as settings:
            settings.write("GROQ_BASE_URL=http://127.0.0.1:8090\n")

    def await_check(self) -> None:
        """Wait until the boot check has found all well."""
        wait_until(lambda: self.show("vessel-check", "SubState") == "exited", BOOT_S)

    def install(self, *options: str) -> str:
        """Run the installer in the tree, not booted but with this machine's network, and give what it said."""
        seen = (f"--bind-ro={folder}" for folder in package_folders())
        done = subprocess.run(
            [*self._nspawn(), "--pipe", *seen, "/src/ops/install.sh", *options],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def __enter__(self) -> Self:
        """Boot."""
        self.boot()
        return self

    def boot(self, early: Callable[[], object] | None = None) -> None:
        """Boot, without this machine's network, and wait until systemd has done what it can; `early` is done first."""
        with (self.folder / "boot.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self._nspawn(), "--private-network", "--boot"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self.run("systemctl", "is-system-running", check=False), BOOT_S)
        if early is not None:
            early()
        wait_until(lambda: self.run("systemctl", "is-system-running", check=False) in {"running", "degraded"}, BOOT_S)

    def __exit__(self, *_: object) -> None:
        """Power off and take the tree away."""
        self.power_off()
        for group in self.groups:
            for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
                with suppress(OSError):
                    folder.rmdir()
        shutil.rmtree(self.tree, ignore_errors=True)

    def power_off(self) -> None:
        """End it as a power button does, by force where that does not help."""
        if self.process is not None and self.process.poll() is None:
            self.run("systemctl", "poweroff", check=False)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def plug(self, cable: str, address: str) -> None:
        """Take one end of a cable, a network device of this machine, into the booted one."""
        subprocess.run(["ip", "link", "set", cable, "netns", str(self._leader())], check=True)
        self.run("ip", "addr", "add", address, "dev", cable)
        self.run("ip", "link", "set", cable, "up")

    def pids(self, *units: str) -> dict[str, str]:
        """Read the main processes of units."""
        return {unit: self.show(unit, "MainPID") for unit in units}

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside and give how it ended and what it wrote."""
        leader = self._leader()
        assert leader is not None, "it has not booted"
        return subprocess.run(
            ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-r", "--", *command],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside and give what it wrote."""
        if not check and self._leader() is None:
            return ""
        done = self.attempt(*command)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def sh(self, script: str) -> str:
        """Run a line of shell inside and give what it wrote."""
        return self.run("sh", "-c", script)

    def vessel(self, *arguments: str) -> Any:
        """Run a command of the command line with the operator's rights and read its JSON."""
        return [json.loads(line) for line in self.run("vessel-service", *arguments, "--json").splitlines()]

    def submit(self, number: int, tier: str = "power") -> list[str]:
        """Submit jobs and give their ids."""
        self.sh(f"for n in $(seq {number}); do echo '{{\"prompt\": \"say '$n'\"}}'; done > /srv/jobs.jsonl")
        return [one["id"] for one in self.vessel("submit", "--file", "/srv/jobs.jsonl", "--tier", tier)]

    def ended(self, jobs: list[str], seconds: float = 120) -> list[dict[str, Any]]:
        """Wait for jobs and give how they ended."""
        return [dict(one) for one in self.vessel("wait", *jobs, "--timeout", f"{seconds:g}")]

    def show(self, unit: str, field: str) -> str:
        """Read one property of a unit."""
        return self.run("systemctl", "show", "-p", field, "--value", unit)

    def kill(self, unit: str, number: signal.Signals) -> None:
        """Send the main process of a unit a signal."""
        self.run("systemctl", "kill", "--kill-who=main", f"--signal={number.name}", unit)

    def simulator(self, path: str, body: object = None, *, method: str = "GET") -> Any:
        """Ask the simulator's own side, or with a key what Groq would be asked."""
        program = (
            "import sys, urllib.request as u; url, method, body, key = sys.argv[1:]; "
            "headers = {'content-type': 'application/json', 'authorization': 'Bearer ' + key}; "
            "print(u.urlopen(u.Request(url, body.encode() or None, headers, method=method)).read().decode())"
        )
        sent = "" if body is None else json.dumps(body)
        said = self.run("python3", "-c", program, f"http://127.0.0.1:8090{path}", method, sent, FIRST)
        return json.loads(said)

    def stats(self) -> Any:
        """Read the simulator's count."""
        return self.simulator("/_sim/stats")

    def _leader(self) -> int | None:
        if self.process is None:
            return None
        assert self.process.poll() is None, (self.folder / "boot.log").read_text(errors="replace")[-3000:]
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _nspawn(self) -> list[str]:
        # Version 2 of control groups, and bpf, as on a real machine, so that systemd can filter addresses.
        unified = "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"
        options = ("--register=no", "--keep-unit", "--system-call-filter=bpf", f"--bind-ro={ROOT}:/src")
        nspawn = ("systemd-nspawn", "-q", *options, "-D", str(self.tree))
        return ["env", unified, "sh", "-c", IN_GROUPS, "sh", *map(str, self.groups), "--", *nspawn]
