"""Studies a second on one core, image with masks and report: run python benchmarks/phantom_speed.py."""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: one core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from fedmrg_core.data.phantom import CENTRES, draw_study  # noqa: E402

COUNT = 120
TARGET = 50  # studies a second and core at 128 pixels


def studies_per_second(image_size: int, count: int = COUNT) -> float:
    """Processor time, not wall time, so that other programs on the machine do not count."""
    draw_study(0, CENTRES[0], 0, image_size)  # fills the caches of blur matrices
    start = time.process_time()
    for number in range(count):
        draw_study(0, CENTRES[number % len(CENTRES)], number, image_size)
    return count / (time.process_time() - start)


if __name__ == "__main__":
    for size in (64, 128, 256):
        rate = studies_per_second(size)
        verdict = f", target {TARGET}: {'met' if rate >= TARGET else 'MISSED'}" if size == 128 else ""
        print(f"{size} pixels: {rate:.0f} studies a second and core{verdict}")
