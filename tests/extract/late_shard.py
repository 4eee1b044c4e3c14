"""The child process of several devices, on stand-ins of which one may die: ``python late_shard.py DEVICE FATE``."""

from __future__ import annotations

import os
import signal
import sys

from late import Late

from extract.__main__ import app
from extract.engines import DEVICES
from features_store import console

DYING, FATE = sys.argv[1:]


class Dying(Late):
    """The device that was named dies at its third pass, or its process is killed about there."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.fate = FATE if f"cuda:{index}" == DYING else ""
        self.dies_at = 3 if self.fate == "dies" else None

    def start(self, function, batch):
        if self.fate == "killed" and self.passes >= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().start(function, batch)


DEVICES["cuda"] = Dying
sys.argv = ["extract", "shard"]
console.main(app)
