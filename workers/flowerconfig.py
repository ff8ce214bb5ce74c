"""Flower's configuration, which `vessel flower` runs: `celery -A workers.app flower --conf=.../flowerconfig.py`.

Each name is an option of Flower 2.2. The login stands in a file, so that no process list and no environment shows it.
"""

import os as _os

from vessel.observe.logins import read_logins as _read_logins
from vessel.observe.logs import configure_logs as _configure_logs
from vessel.settings import load_settings as _load_settings
from workers import flower as _flower

_settings = _load_settings()
_folder = _settings.data_dir.absolute() / "flower"
_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
_os.umask(0o077)
_flower.install()
_configure_logs(_settings.log_format, _settings.log_level)

__all__ = [
    "address",
    "auto_refresh",
    "basic_auth",
    "db",
    "enable_events",
    "format_task",
    "logging",
    "max_tasks",
    "max_workers",
    "persistent",
    "port",
    "purge_offline_workers",
    "read_only",
    "state_save_interval",
    "tasks_columns",
]

address = _settings.flower_host
port = _settings.flower_port
basic_auth = _read_logins(_settings.flower_auth_file)
read_only = True

logging = "none"
"""tornado's own; Vessel's have been set up above."""
persistent = True
db = str(_folder / "tasks")
state_save_interval = 60_000
"""Milliseconds; it is also saved at the end, but not when Flower is killed."""
max_tasks = 10_000
max_workers = 500
purge_offline_workers = 3600
"""Seconds: names of workers that are gone would fill pages and metrics for ever."""

enable_events = False
"""Vessel's workers send events by themselves."""
auto_refresh = True
tasks_columns = "name,args,state,result,runtime,retries,received,started,worker,uuid"
format_task = _flower.shown_task
