"""Reports a second of the labeller, and how its time grows with the length of one text.

    python benchmarks/labeller_speed.py

The second table gives, for texts without an end of sentence, the time of 16 times the length over the time of the
length: 16 where the time grows with the length, 256 where it grows with its square.
"""

from __future__ import annotations

import itertools
import time

from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.phantom import CENTRES, draw_study

PIECES = ("no effusion ", "no effusion, ", "no effusion and edema ", "effusion is not seen ", "heart lungs ", "a-", "x")
SHORT, GROWTH = 12_500, 16  # characters, times


def seconds(texts: list[str]) -> float:
    """Processor time to read the texts."""
    begin = time.process_time()
    for text in texts:
        label_report(text)
    return time.process_time() - begin


def main() -> None:
    """Print both tables."""
    reports = [
        draw_study(5, centre, index, image_size=32).findings for centre, index in itertools.product(CENTRES, range(100))
    ]
    first, second = seconds(reports), seconds(reports)
    print(
        f"{len(reports)} phantom reports: {len(reports) / first:.0f} a second, read again {len(reports) / second:.0f}"
    )
    for piece in PIECES:
        short, long = (seconds([piece * (length // len(piece))]) for length in (SHORT, GROWTH * SHORT))
        print(f"{piece!r:26} {long / short:6.1f} times the time for {GROWTH} times the length, {long:.2f} s")


if __name__ == "__main__":
    main()
