"""The real worker app with the fake executor behind it: `celery -A fake_worker_app`."""

from __future__ import annotations

from workers import boot

boot.EXECUTOR = "fake_executor:FakeExecutor"

from workers.app import app  # noqa: E402  the executor's name must stand first

__all__ = ["app"]


@app.task(name="test.plain")  # type: ignore[untyped-decorator]
def plain(text: str) -> str:
    """Stand for somebody's own plain Celery task."""
    return text.upper()
