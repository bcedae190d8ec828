"""The linear task with hospitals that fail as a file in their run folder says: `fault-NAME-ROUND`, raises or hangs."""

from __future__ import annotations

import time

from linear_task import LinearHospital, LinearTask

from fedmrg_core.training.client_state import LocalUpdate

LONGEST = 600.0  # seconds that anybody hangs


class FaultyHospital(LinearHospital):
    def train(self, round_number: int, *given: object) -> LocalUpdate:
        fault = self.task.run_folder / f"fault-{self.client.name}-{round_number}"
        if fault.exists() and fault.read_text() == "raises":
            raise ValueError("the scanner is on fire")
        if fault.exists():
            (self.task.run_folder / "hanging").touch()
        deadline = time.monotonic() + LONGEST
        while fault.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return super().train(round_number, *given)


class FaultyTask(LinearTask):
    def make_hospital(self, *given: object) -> FaultyHospital:
        return FaultyHospital(self, *given)
