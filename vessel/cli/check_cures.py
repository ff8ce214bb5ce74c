"""What to do next about what a boot verification finds: by commands, or on an installed machine by its units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vessel.cli.installed import CREDENTIALS, ETC, credential_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.cli.check_services import Service
    from vessel.cli.installed import Installation, Unit

OPS = Path("/opt/vessel/ops")
SOCKET = Path("/run/vessel-redis/redis.sock")
NEW_KEY = "make a new key at https://console.groq.com/keys and write it "


class Cures:
    """For processes that somebody started as commands."""

    program = "vessel"

    def key(self, file: Path | None) -> str:
        """Mend a missing key."""
        if file is None:
            return "set GROQ_API_KEY, or GROQ_API_KEY_FILE to a file that holds it"
        return f"write the key into {credential_source(file)}, alone"

    def new_key(self, file: Path | None) -> str:
        """Mend a key that Groq refuses."""
        return NEW_KEY + (f"into {credential_source(file)}" if file else "where the old one is")

    def redis(self) -> str:
        """Mend a Redis that is not reached."""
        return "start it (`systemctl start redis-server`, or `vessel up`) and check VESSEL_REDIS_URL"

    def redis_user(self) -> str:
        """Mend a Redis that refuses its user."""
        return "correct the user and the password in VESSEL_REDIS_URL, or give that user its rights: ops/users.acl"

    def redis_setting(self, name: str, value: str) -> str:
        """Mend Redis' configuration."""
        return f"`redis-cli CONFIG SET {name} {value}`, and the same in redis.conf"

    def redis_cli(self, command: str) -> str:
        """Look at Redis, or have it write, by hand."""
        return f"`redis-cli {command}`"

    def redis_scripts(self) -> str:
        """Mend a Redis that is full of another program's scripts."""
        return "`redis-cli SCRIPT FLUSH` is safe: each process sends its own again"

    def data_dir(self, folder: Path) -> str:
        """Mend a data directory that cannot be written."""
        return f"`sudo chown -R $(id -un) {folder}`, or set VESSEL_DATA_DIR"

    def secret_file(self, file: Path) -> str:
        """Mend a file of secrets that cannot be read."""
        return f"`sudo chown $(id -un) {file}`"

    def versions(self, what: str) -> str:
        """Mend a package of another version."""
        return f"`pip install '{what}'`"

    def deploy(self) -> str:
        """Mend workers of several releases."""
        return "restart the older ones, one after another: docs/operate.md, Deploy a new version"

    def stuck(self, service: Service) -> str:
        """Mend a face that takes connections and does not answer."""
        return f"end it and start it again: `{service.command}`, or its unit; its jobs go on meanwhile"

    def workers(self, tiers: Sequence[str]) -> str:
        """Mend tiers that nobody serves."""
        return f"start them: `vessel worker --tiers {','.join(tiers)}`, or their unit; then look into its log"

    def scheduler(self) -> str:
        """Mend sweeps that nobody runs."""
        return "start the scheduler: `vessel scheduler`, or its unit; workers sweep as well"

    def face(self, service: Service) -> str:
        """Mend a face that does not answer."""
        return f"start it: `{service.command}`, or its unit; then look into its log"

    def unwell(self, _service: Service) -> str:
        """Mend a face that answers that it is not well, where nothing else that was found explains that."""
        return f"it runs; look into its log, and into `{self.program} doctor`"

    def foreign(self, service: Service) -> str:
        """Mend an address where something else listens."""
        name = f"VESSEL_{service.name.upper()}_PORT"
        return f"another program has this port: `ss -ltnp` names it; end it, or set {name}"

    def maintenance(self) -> str:
        """Mend a maintenance that somebody has switched on."""
        return (
            f"`{self.program} maintenance status` says why and until when; `{self.program} maintenance off` ends it, "
            "and what waits goes on"
        )

    def inference(self, job_id: str | None) -> str:
        """Mend a test call that fails while all else is well."""
        calls = f"`{self.program} job {job_id}` shows its calls, " if job_id else ""
        return f"{calls}`{self.program} limits` what holds calls back, `{self.program} doctor` what else is wrong"

    def services(self, units: Sequence[Unit]) -> str:
        """Mend units that are not active."""
        return _start([unit.name for unit in units])


class UnitCures(Cures):
    """For what ops/install.sh has installed."""

    program = "vessel-service"

    def __init__(self, installation: Installation) -> None:
        """Take how the units are."""
        self._installed = installation

    def key(self, file: Path | None) -> str:
        """Mend a missing key."""
        place = credential_source(file) if file else CREDENTIALS / "groq_api_key"
        return f"write the key into {place}, as root; nothing needs a restart, it is used within seconds"

    def new_key(self, file: Path | None) -> str:
        """Mend a key that Groq refuses."""
        place = credential_source(file) if file else CREDENTIALS / "groq_api_key"
        return f"{NEW_KEY}into {place}; nothing needs a restart, and what waits goes on"

    def redis(self) -> str:
        """Mend a Redis that is not reached."""
        if self._installed.get("vessel-redis") is None:
            return (
                f"look at that server; its address is in {ETC / 'external-redis'}, users and passwords in {CREDENTIALS}"
            )
        return self._revive(["vessel-redis"])

    def redis_user(self) -> str:
        """Mend a Redis that refuses its user."""
        if self._installed.get("vessel-redis") is None:
            return f"give that server the users of {CREDENTIALS / 'users.acl'}, or correct {CREDENTIALS}/redis_url_*"
        return "passwords in use are not those of the files: `systemctl restart vessel.target`"

    def redis_setting(self, name: str, value: str) -> str:
        """Mend Redis' configuration."""
        if self._installed.get("vessel-redis") is None:
            return super().redis_setting(name, value)
        mend = f"let {ETC / 'redis/redis.conf'} say `{name} {value}`, then `systemctl restart vessel-redis`"
        if name != "appendonly":
            return mend
        save = f"as its jobs are in memory alone, `{self.program} backup FILE` first"
        return f"{save}; {mend}; restore FILE if jobs are gone"

    def redis_cli(self, command: str) -> str:
        """Look at Redis, or have it write, as the operator; it asks for the password in redis_url_operator."""
        if self._installed.get("vessel-redis") is None:
            return super().redis_cli(command)
        return f"`redis-cli -s {SOCKET} --user operator --askpass {command}`"

    def redis_scripts(self) -> str:
        """Mend a Redis that is full of another program's scripts."""
        if self._installed.get("vessel-redis") is None:
            return super().redis_scripts()
        return "`systemctl restart vessel-redis` is safe: it keeps none, and each process sends its own again"

    def data_dir(self, folder: Path) -> str:
        """Mend a data directory that the services cannot write."""
        return f"`chown -R {self._installed.user}: {folder}`"

    def secret_file(self, file: Path) -> str:
        """Mend a file of secrets that cannot be read."""
        return f"`chown root: {file}`; systemd hands it on to the services"

    def versions(self, what: str) -> str:
        """Mend a package of another version."""
        return f"run ops/install.sh of the checkout again: it installs {what}"

    def deploy(self) -> str:
        """Mend workers of several releases."""
        groups = sorted(name.partition("@")[2] for name in self._installed.groups)
        return f"`{OPS / 'replace_worker.sh'} {' '.join(groups) or 'GROUP'}` replaces them one after another"

    def stuck(self, service: Service) -> str:
        """Mend a face that takes connections and does not answer."""
        return self.face(service)

    def workers(self, tiers: Sequence[str]) -> str:
        """Mend tiers that nobody serves."""
        units = self._installed.serving(list(tiers))
        if not units:
            files = ETC / "workers/GROUP.env"
            return f"no unit is for them: add them to TIERS= of a {files}, then `systemctl restart vessel-worker@GROUP`"
        return self._revive(units)

    def scheduler(self) -> str:
        """Mend sweeps that nobody runs."""
        return self._revive(["vessel-scheduler"])

    def face(self, service: Service) -> str:
        """Mend a face that does not answer."""
        return self._revive([f"vessel-{service.name}"])

    def unwell(self, service: Service) -> str:
        """Mend a face that answers that it is not well, where nothing else that was found explains that."""
        return f"it runs; `journalctl -u vessel-{service.name} -n 30`, then `{self.program} doctor`"

    def services(self, units: Sequence[Unit]) -> str:
        """Mend units that are not active."""
        return self._revive([unit.name for unit in units])

    def _revive(self, names: Sequence[str]) -> str:
        """Start what is stopped; what runs, or is started again and again, has told its log why."""
        if self._installed.stopped:
            return "all of it is stopped: `systemctl start vessel.target`"
        found = [unit for name in names if (unit := self._installed.get(name))]
        log = f"`journalctl {' '.join(f'-u {name}' for name in names)} -n 30`"
        if any(unit.sub == "auto-restart" or unit.active == "failed" for unit in found):
            return f"{log} says why; then `systemctl restart {' '.join(names)}`"
        if found and all(unit.well for unit in found):
            return f"by systemd it runs; {log} says what it does, `systemctl restart {' '.join(names)}` starts it anew"
        return f"{_start(names)}; {log} says why it ended"


def _start(names: Sequence[str]) -> str:
    return f"`systemctl start {' '.join(names)}`"
