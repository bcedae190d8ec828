"""A prepared data set of 400,000 studies: how long it takes to write, open and deal it, and in how much memory.

    python benchmarks/large_data.py --studies 400000
    python benchmarks/large_data.py --studies 4000

The studies are made up: a few noise images as PNG at the size of a profile, and reports of a few sentences that
differ from study to study. They are written as a loader's are, row by row. Memory is what the process holds of its own
beyond what it held before (pages of mapped files, which the system takes back at need, do not count).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy
import psutil
from PIL import Image

from fedmrg_core.data.images import png_bytes
from fedmrg_core.data.prepared import load_prepared
from fedmrg_core.data.prepared_folder import scratch_beside, write_prepared
from fedmrg_core.data.row_files import dataset_of_rows, rows_written_below
from fedmrg_core.data.study import STUDY_FEATURES, LoadedStudies
from fedmrg_core.data.tensors import ClientTensors

SITES = ("north", "east", "south", "west", "centre", "out")
SPLITS = ("train", "train", "train", "validation", "test")
SENTENCES = ("The heart is enlarged.", "Lungs are clear.", "No pleural effusion.", "A pacemaker is in place.")
MIB = 1024**2


@dataclasses.dataclass
class Cost:
    """Seconds, and MiB at the highest moment beyond those at the beginning."""

    seconds: float = 0.0
    memory: float = 0.0


def own_memory() -> int:
    """Bytes of the process that are no pages of a file."""
    info = psutil.Process().memory_info()
    return info.rss - info.shared


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """The cost of a block, its memory looked at every ten milliseconds."""
    cost, done, before, started = Cost(), threading.Event(), own_memory(), time.perf_counter()

    def watch() -> None:
        while not done.wait(0.01):
            cost.memory = max(cost.memory, (own_memory() - before) / MIB)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield cost
    finally:
        done.set()
        thread.join()
        cost.seconds = time.perf_counter() - started


def rows(studies: int, image_size: int) -> Iterator[dict[str, Any]]:
    """One study after the other, two of a patient."""
    generator = numpy.random.default_rng(0)
    noise = generator.integers(96, 160, (16, image_size, image_size), dtype=numpy.uint8)
    images = [png_bytes(Image.fromarray(pixels)) for pixels in noise]
    for number in range(studies):
        patient = number // 2
        chosen = generator.integers(0, len(SENTENCES), 3)
        yield {
            "study_id": f"study-{number:07}",
            "patient_id": f"patient-{patient:07}",
            "site": SITES[patient % len(SITES)],
            "split": SPLITS[patient // len(SITES) % len(SPLITS)],
            "view": "frontal",
            "image": {"bytes": images[number % len(images)], "path": None},
            "findings": " ".join([*(SENTENCES[place] for place in chosen), f"Film {number}."]),
            "impression": "",
            "states": generator.integers(0, 4, 14).tolist(),
        }


def main() -> None:
    """Write, open, deal and read one data set, and print what each step cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400_000)
    parser.add_argument("--image-size", type=int, default=128, help="pixels")
    parser.add_argument("--partitions", nargs="*", default=["site", "random", "dirichlet"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as place:
        folder = pathlib.Path(place) / "prepared"
        with measured() as cost, scratch_beside(folder) as scratch, rows_written_below(scratch):
            loaded = LoadedStudies(dataset_of_rows(rows(given.studies, given.image_size), STUDY_FEATURES), [])
            write_prepared(folder, loaded, {"unseen_sites": ["out"]}, scratch)
            del loaded
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{given.studies} studies, {size / MIB:.0f} MiB on disk")
        show("write", cost)
        with measured() as cost:
            prepared = load_prepared(folder)
        show("open", cost)
        for partition in given.partitions:
            with measured() as cost:
                dealt = prepared.deal(partition, None, 0)
            show(f"deal {partition}", cost)
        largest = max((client.train for client in dealt.clients.values()), key=len)
        with measured() as cost:
            tensors = ClientTensors(largest)
            for start in range(0, 32 * 16, 16):
                tensors.images(range(start, start + 16))
        show(f"32 batches of a client of {len(tensors)}", cost)


def show(step: str, cost: Cost) -> None:
    """One line."""
    print(f"{step:40} {cost.seconds:8.1f} s {cost.memory:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
