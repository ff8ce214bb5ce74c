"""Work that goes on in a thread while a test does harm to what it works with."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Working(ABC):
    """Works for as long as the block lasts."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.work)

    @abstractmethod
    def work(self) -> None:
        """Work until `over` is set."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it come to its end."""
        self.over.set()
        self._thread.join()
