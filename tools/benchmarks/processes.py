"""Memory of this process, and other programs watched from outside: their time, their memory, what they say."""

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

GB = 1e9


class BenchmarkError(Exception):
    """What cannot be measured, and why, in one line."""


# ---- memory

forgotten: list[float] = []  # the peaks before the last


def peak_memory() -> float:
    """The most memory (RSS) that this process has had since `forget_peak`, in GB."""
    status = Path("/proc/self/status")
    if status.exists():
        return _high_water(status)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB  # elsewhere in bytes


def whole_peak() -> float:
    """The most that it has had since it began."""
    return max([peak_memory(), *forgotten])


def forget_peak() -> None:
    """Begin a new peak where the system can (Linux)."""
    forgotten.append(peak_memory())
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _high_water(status: Path) -> float:
    """VmHWM of a /proc status file, in GB; 0 for a process that has gone."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024 * int(line.split()[1]) / GB for line in lines if line.startswith("VmHWM")), 0.0)


# ---- programs


class Watched(NamedTuple):
    """What a program did."""

    seconds: float
    peak: float  # GB
    lines: list[tuple[float, str]]  # of its output and its log, each with the seconds since the start

    @property
    def text(self) -> str:
        """All that it said."""
        return "\n".join(line for _, line in self.lines)


def watch(command: Sequence[str | Path], given: Iterable[str] = (), *, keep: int = 100_000, **options: Any) -> Watched:
    """Run a program to its end, feed it lines, and see how much memory it took. BenchmarkError if it failed.

    A process's own account of its peak begins with that of the process which started it, so it is looked at from
    outside, twenty times a second. `keep` lines of output are kept, the last ones.
    """
    start = time.perf_counter()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    pipes |= {"text": True, "encoding": "utf8", "errors": "replace"}
    peak, lines = [0.0], list[tuple[float, str]]()
    with subprocess.Popen([str(part) for part in command], **pipes, **options) as process:
        threads = [
            threading.Thread(target=_feed, args=(process.stdin, given), daemon=True),
            threading.Thread(target=_look, args=(process, peak), daemon=True),
        ]
        for thread in threads:
            thread.start()
        for line in process.stdout or ():
            lines.append((time.perf_counter() - start, line.rstrip("\n")))
            del lines[:-keep]
        code = process.wait()
        seconds = time.perf_counter() - start
        for thread in threads:
            thread.join()
    if code:
        last = [line for _, line in lines if line.strip()][-1:] or ["it said nothing"]
        raise BenchmarkError(f"{' '.join(map(str, command))[:200]} ended with code {code}: {last[0]}")
    return Watched(seconds, peak[0], lines)


def _feed(stream: Any, lines: Iterable[str]) -> None:
    with suppress(BrokenPipeError):  # where the program has ended, its code says why
        for line in lines:
            stream.write(line + "\n")
    with suppress(BrokenPipeError):
        stream.close()


def _look(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        peak[0] = max(peak[0], _high_water(status))
        time.sleep(0.05)


def nmt(*arguments: str | Path) -> list[str | Path]:
    """The command `nmt ...` of this very program, to be run in a process of its own."""
    return [sys.executable, "-m", "nmt", *arguments]
