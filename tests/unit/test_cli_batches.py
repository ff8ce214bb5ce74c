"""What `vessel batch` tells when its user leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vessel.cli import batches
from vessel.cli.faults import conclude, interruptible

if TYPE_CHECKING:
    import pytest


def test_who_stops_watching_is_told_that_the_batch_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupt ends the watching only; both commands that matter next are named."""

    def stopped(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "_followed", stopped)
    assert conclude(interruptible(lambda: batches.watch("batch_1", as_json=False)), as_json=False) == 130
    told = capsys.readouterr().err
    assert all(word in told for word in ("goes on", "vessel batch watch batch_1", "batch cancel", "Interrupted."))
