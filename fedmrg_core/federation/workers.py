"""Hospitals side by side: worker processes of one machine that train, validate and write at the same time.

Workers are forked from a process that holds the model, so the frozen part of it lies in memory once. Each computes with
the run's number of threads, one by default, and keeps nothing between two jobs but what it has read: what a hospital
remembers lies on its disk. So the same bytes come out with any number of workers, and after any kill.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from tqdm.auto import tqdm

from fedmrg_core.errors import InputError

Job = Callable[[Connection, Any], None]  # does what it is told and sends the outcome through the connection


def worker_count(workers: int, threads: int, jobs: int | None = None) -> int:
    """How many workers to use.

    Args:
        workers: as asked for; 0: one for each core, or one where there is a GPU.
        threads: CPU threads of each.
        jobs: how many things there are to do at the same time; None: more than enough.

    Raises:
        InputError: more than one worker is asked for where the system cannot fork or with several threads each.
    """
    if workers < 0:
        raise InputError(f"workers is {workers}; expected a number from 1, or 0 for one a core.")
    forkable = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    if workers == 0:
        alone = torch.cuda.is_available() or threads > 1 or not forkable
        workers = 1 if alone else cores()
    if workers > 1 and threads > 1:
        # OpenMP's threads do not survive a fork, and a child that waits for them waits forever.
        raise InputError(f"workers is {workers} and threads is {threads}; with several workers each has one thread.")
    if workers > 1 and not forkable:
        raise InputError(f"workers is {workers}, and this system cannot fork; expected 1.")
    return max(1, workers if jobs is None else min(workers, jobs))


def cores() -> int:
    """Cores that this process may use; OMP_NUM_THREADS, which Snakemake sets for its jobs, can say fewer."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(said)) if said.isdecimal() and int(said) else there


class Workers:
    """A few forked processes that each do one job after another.

    Args:
        job: what a worker does with what it is given. It runs in the worker, with all that this process had in memory
            when the first job came.
        count: how many workers.
    """

    def __init__(self, job: Job, count: int) -> None:
        self._job, self._count = job, count
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(at_once=kind is not None)

    def end(self, at_once: bool = False) -> None:
        """Let the workers go; at once, whatever they do, when something has gone wrong."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if at_once:
                process.terminate()
            process.join()
        self._connections, self._processes = [], []

    def do(self, tasks: Iterable[Any], receive: Callable[[Connection], Any]) -> Iterator[tuple[int, Any]]:
        """Have all tasks done, the first ones first.

        Args:
            tasks: what the job is given, each made when a worker is free for it; they are pickled.
            receive: takes one outcome from a connection.

        Yields:
            Index of a task and its outcome, as they come.

        Raises:
            RuntimeError: a worker has ended, killed for want of memory, say.
        """
        if not self._processes:
            self._start()
        waiting = iter(enumerate(tasks))
        busy: dict[Connection, int] = {}
        for connection, (index, task) in zip(self._connections, waiting, strict=False):
            connection.send(task)
            busy[connection] = index
        while busy:
            for ready in wait(list(busy)):
                index = busy.pop(ready)
                try:
                    outcome = receive(ready)
                except EOFError:
                    raise RuntimeError("a worker process has ended; was there too little memory?") from None
                following = next(waiting, None)
                if following is not None:
                    ready.send(following[1])
                    busy[ready] = following[0]
                yield index, outcome

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else what waits in a buffer is written by every worker
        for _ in range(self._count):
            here, there = context.Pipe()
            self._connections.append(here)
            process = context.Process(target=self._serve, args=(there, os.getpid()), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)

    def _serve(self, connection: Connection, parent: int) -> None:
        """A worker's life."""
        for other in self._connections:
            other.close()  # else nobody notices when the parent has closed its end
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends its workers
        tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # bars of several would overwrite another
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            self._job(connection, task)


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any], workers: int, description: str) -> list[Any]:
    """A function of each item, in their order, computed by worker processes under one bar.

    Args:
        function: of one item; what it returns is pickled, what it raises is raised here.
        items: known to the workers when they start, so they need not be picklable.
        workers: see `worker_count`; 1: computed in this process.
        description: beside the bar.
    """
    if workers == 1 or len(items) < 2:
        return [function(item) for item in tqdm(items, desc=description)]

    def job(connection: Connection, index: int) -> None:
        try:
            connection.send((function(items[index]), None))
        except Exception as error:
            connection.send((None, error))

    outcomes: dict[int, Any] = {}
    with Workers(job, min(workers, len(items))) as pool, tqdm(total=len(items), desc=description) as bar:
        for index, (outcome, error) in pool.do(range(len(items)), lambda connection: connection.recv()):
            if error is not None:
                raise error
            outcomes[index] = outcome
            bar.update()
    return [outcomes[index] for index in range(len(items))]


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed run must not go on writing."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
