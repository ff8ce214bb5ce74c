"""Running jobs: one worker process' executor, and one attempt as a sentence."""

from vessel.execute.process import Executor

__all__ = ["Executor"]
