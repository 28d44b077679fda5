"""Translating on many cores: several processes, each with the model for itself, take turns at a stream's windows."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from nmt.answers import Translation
from nmt.translator import Request, Translator

WINDOW = 1024  # lines that a process is given at a time

_translator: Translator | Exception  # of a process of the pool, which has nothing else to keep it in


def translate(
    load: Callable[[], Translator],
    lines: Iterable[str | Request],
    workers: int,
    *,
    with_alignment: bool = False,
    window: int = WINDOW,
) -> Iterator[Translation]:
    """As `Translator.translate`, by so many processes, each with a translator that `load` makes and its share of cores.

    `load` must be picklable. Two windows a process are held, so the input may be endless. Raises what a translator
    does.
    """
    threads = max(1, torch.get_num_threads() // workers)
    source, start, waiting = iter(lines), 1, deque[Future[list[Translation]]]()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (load, threads))
    try:
        while held := list(islice(source, window)):
            waiting.append(pool.submit(_answer, held, start, with_alignment))
            start += len(held)
            if len(waiting) == 2 * workers:
                yield from _by_value(waiting.popleft().result(), torch.from_numpy)
        while waiting:
            yield from _by_value(waiting.popleft().result(), torch.from_numpy)
    except BaseException:  # a fault, or nobody wants the rest: what is being translated is of no use
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(load: Callable[[], Translator], threads: int) -> None:
    global _translator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gave the work
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _translator = load()
    except Exception as error:  # told with the first answer: what fails here is only said to have been terminated
        _translator = error


def _answer(lines: list[str | Request], start: int, with_alignment: bool) -> list[Translation]:
    if isinstance(_translator, Exception):
        raise _translator
    return _by_value(_translator.window(lines, start, with_alignment), Tensor.numpy)


def _by_value(answers: list[Translation], change: Callable[[Any], Any]) -> list[Translation]:
    """The same with each alignment changed, to numpy's array and back: a tensor would travel as an open file."""
    return [
        answer._replace(
            candidates=tuple(
                one if one.alignment is None else one._replace(alignment=change(one.alignment))
                for one in answer.candidates
            )
        )
        for answer in answers
    ]


def _end_with_parent() -> None:
    """End this process when the one that gave the work has ended, in whatever way."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
