"""Kernels in C for CPUs with AVX-512 VNNI, compiled on this machine when they are first wanted, and then kept.

They do what torch does in many calls and passes over memory: a product in int8 and what follows it, a whole step of an
LSTM, a layer of an encoder, attention, the log-probabilities of words, the best of them and which of those end; and in
training (nmt/native/training.py) an LSTM's steps there and back and the loss. Where there is no C compiler, or the CPU
lacks the instructions, `library` is None and torch does it; tests hold each of them to torch.

The compiler is $CC, gcc or cc. What it makes lies in $XDG_CACHE_HOME/nmt, or ~/.cache/nmt. NMT_NATIVE=0 leaves
it out. `nmt info` says whether it serves.

Tensors are on the CPU, contiguous (inputs of products and steps row by row) and float32 where nothing else is said.

Shapes: **n** rows, **M** and **E** rows and columns of a weight, **H** hidden size, **B** sentences, **K** hypotheses
of each, **S** source length, **C** context, **G** sums of a reader, **V** vocabulary, **T** words, **D** directions.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CPU_INFO = Path("/proc/cpuinfo")  # what Linux knows of the CPU
NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma")
SOURCES = [Path(__file__).with_name(name) for name in ("products.c", "words.c", "steps.c", "loss.c")]
FLAGS = ["-O2", "-std=gnu11", "-shared", "-fPIC", *(f"-m{name.replace('_', '')}" for name in NEEDED)]

Result = Literal["plain", "squashed", "halved"]
RESULTS = {"plain": 0, "squashed": 1, "halved": 2}  # as in products.c
MANY = 64  # from so many on, looking for the largest takes longer than torch's sort
PANEL = 64  # rows of a weight that lie together, as in products.h
NUMBER, ARRAY, FLAG = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
SIGNATURES = {
    "pack": [NUMBER] * 2 + [ARRAY] * 3,
    "multiply": [ARRAY, NUMBER, NUMBER, ARRAY, ARRAY, FLAG],
    "lstm_step": [ARRAY, NUMBER, NUMBER, NUMBER, *[ARRAY] * 7],
    "lstm_layer": [ARRAY, *[NUMBER] * 4, *[ARRAY] * 5],
    "lstm_forward": [FLAG, NUMBER, NUMBER, *[ARRAY] * 5],
    "lstm_backward": [FLAG, NUMBER, NUMBER, *[ARRAY] * 3, NUMBER, *[ARRAY] * 3],
    "cross_entropy": [FLAG, NUMBER, NUMBER, ARRAY, ARRAY, ctypes.c_float, ARRAY, ARRAY],
    "log_softmax": [NUMBER, NUMBER, ARRAY],
    "largest": [NUMBER] * 3 + [ARRAY] * 3,
    "offer": [ARRAY, NUMBER, ARRAY, *[NUMBER] * 3, *[ARRAY] * 3],
    "best": [NUMBER] * 5 + [ARRAY] * 6,
    "parted": [NUMBER] * 6 + [ARRAY] * 8,
    "weigh": [NUMBER] * 4 + [ARRAY] * 4,
    "attend": [FLAG] + [NUMBER] * 4 + [ARRAY] * 4 + [NUMBER] + [ARRAY] * 2,
}
ANSWERING = ("parted", "cross_entropy")  # with a number


class NoKernelsError(RuntimeError):
    """Why there are none."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None where there are none."""
    try:
        return load()
    except NoKernelsError:
        return None


def load() -> ctypes.CDLL:
    """The kernels; compiled, if they are not yet. NoKernelsError says why there are none."""
    if os.environ.get("NMT_NATIVE") == "0":
        raise NoKernelsError("NMT_NATIVE=0 leaves them out")
    if missing := sorted(set(NEEDED) - flags()):
        raise NoKernelsError(f"the CPU has no {', '.join(missing)}")
    try:
        found = ctypes.CDLL(str(compiled()))
    except (OSError, RuntimeError, ValueError) as error:  # no home is a RuntimeError, a bad $CC a ValueError
        raise NoKernelsError(str(error)) from None
    for function, arguments in SIGNATURES.items():
        getattr(found, function).argtypes = arguments
        getattr(found, function).restype = NUMBER if function in ANSWERING else None
    return found


def flags() -> set[str]:
    """What the CPU can do, by Linux's names; nothing where the kernels would not run."""
    if platform.machine() != "x86_64" or not CPU_INFO.exists():
        return set()
    lines = CPU_INFO.read_text("utf-8", "replace").split("\n")
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nmt"


def compiled() -> Path:
    """The file of the kernels; made, if there is none yet. OSError where it cannot be written."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.[ch]")))
    name = hashlib.sha256(code + " ".join([*FLAGS, *threads()]).encode()).hexdigest()[:16]
    path = folder() / f"kernels-{name}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            made = Path(beside) / path.name
            compile_to(made)
            made.replace(path)
        logging.getLogger("nmt").info("kernels for this CPU, compiled once: %s", path)
    if path.stat().st_uid not in (0, os.getuid()):
        raise NoKernelsError(f"{path} belongs to another user")
    return path


def compile_to(path: Path) -> None:
    """Compile the kernels. NoKernelsError where there is no compiler, or one that cannot."""
    command = shlex.split(os.environ.get("CC", "")) or [name for name in ("gcc", "cc") if shutil.which(name)][:1]
    if not command or not shutil.which(command[0]):
        raise NoKernelsError("there is no C compiler ($CC, gcc or cc)")
    command += [*FLAGS, *threads()[:1], "-o", str(path), *map(str, SOURCES), *threads()[1:], "-lm", "-Wl,--as-needed"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise NoKernelsError(f"{command[0]} does not compile them: {done.stderr.strip().split(chr(10))[0]}")


def threads() -> list[str]:
    """What makes torch's OpenMP threads ours, lest two such libraries fight for the cores; nothing if it has none."""
    place = Path(torch.__file__).parent
    found = sorted([*place.glob("lib/libgomp*.so*"), *place.with_name("torch.libs").glob("libgomp*.so*")])
    return ["-fopenmp", str(found[0])] if found else []


class CWeight(ctypes.Structure):
    """`weight` in products.h."""

    _fields_ = [
        ("rows", NUMBER),
        ("columns", NUMBER),
        *((name, ARRAY) for name in ("levels", "offsets", "scales", "bias")),
    ]


INPUTS = [NUMBER * (4 * count) for count in range(4)]  # so many of `input` in products.h


class Weight:
    """A weight in int8 of one or several inputs side by side, laid out."""

    def __init__(self, levels: Tensor, scales: Tensor, bias: Tensor | None = None, widths: Sequence[int] = ()) -> None:
        """Of levels (M, E), int8, what one is worth in each row, scales (M), and a bias (M).

        The `widths` of the inputs sum to E; none for a single one.
        """
        self.library, self.rows, room = kernels(), levels.size(0), -levels.size(0) % PANEL
        parts = levels.split(list(widths or [levels.size(1)]), dim=1)
        levels = torch.cat([F.pad(part, (0, -part.size(1) % 4)) for part in parts], dim=1)
        self.levels = levels.new_empty(self.rows + room, levels.size(1))
        self.offsets = torch.zeros(self.rows + room, dtype=torch.int32)
        self.scales = F.pad(scales.float(), (0, room))
        self.bias = torch.zeros_like(self.scales) if bias is None else F.pad(bias.float(), (0, room))
        self.library.pack(*levels.shape, *map(Tensor.data_ptr, (levels, self.levels, self.offsets)))
        arrays = map(Tensor.data_ptr, (self.levels, self.offsets, self.scales, self.bias))
        self.described = CWeight(*levels.shape, *arrays)
        self.address = ctypes.addressof(self.described)

    def multiply(self, inputs: Sequence[Tensor], result: Result = "plain") -> Tensor:
        """The product of inputs (n, ..), and the bias, (n, M): as it is, tanh of it, or in fp16, for M in 64s."""
        assert result != "halved" or self.rows % PANEL == 0
        rows = inputs[0].size(0)
        out = torch.empty(rows, self.rows, dtype=torch.float16 if result == "halved" else torch.float32)
        described = len(inputs), _inputs(*inputs)
        self.library.multiply(self.address, rows, *described, out.data_ptr(), RESULTS[result])
        return out

    def offer(self, x: Tensor, count: int, end: int, silent: Tensor) -> tuple[Tensor, Tensor]:
        """The best words of logits, which are the product of x (n, E): log-probabilities and words, (n, 1 + count).

        First the word `end`, and then the `count` most probable others, but those that are silent (m).
        """
        rows = x.size(0)
        log_probs, words = torch.empty(rows, 1 + count), torch.empty(rows, 1 + count, dtype=torch.long)
        self.library.offer(
            *(self.address, rows, _inputs(x), count, end, silent.size(0)),
            *(silent.data_ptr(), log_probs.data_ptr(), words.data_ptr()),
        )
        return log_probs, words


class LSTMWeight:
    """The weight of LSTMs' gates i, f, o, g, in int8, laid out: of their output before, and maybe of other inputs."""

    def __init__(self, levels: Tensor, scales: Tensor, bias: Tensor | None = None, widths: Sequence[int] = ()) -> None:
        """As `Weight`, of levels (4H, E)."""
        self.size = levels.size(0) // 4
        bias = torch.zeros_like(scales) if bias is None else bias
        levels, scales, bias = (in_blocks(part, self.size) for part in (levels, scales, bias))
        self.weight = Weight(levels, scales, bias, widths)

    def step(
        self,
        inputs: Sequence[Tensor],
        memory: Tensor,
        told: Tensor | None = None,
        which: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output and memory (n, H) after the memory before, from inputs (n, ..) and what else the gates are told.

        That is rows `which` (n) of what is told (.., G), or all of it, in fp16, its columns `in_blocks`. Of the last
        input, its own output before, and of the memory these `rows` (n) are read, or all.
        """
        assert told is None or told.dtype == torch.float16
        memory, count = memory.contiguous(), (memory if rows is None else rows).size(0)
        assert all(part.size(0) == count for part in (inputs if rows is None else inputs[:-1]))
        which, rows = (part if part is None else part.contiguous() for part in (which, rows))
        output, after = torch.empty(count, self.size), torch.empty(count, self.size)
        self.weight.library.lstm_step(
            *(self.weight.address, count, self.size, len(inputs), _inputs(*inputs, rows=rows), _at(told), _at(which)),
            *(memory.data_ptr(), _at(rows), after.data_ptr(), output.data_ptr()),
        )
        return output, after


def in_blocks(rows: Tensor, size: int) -> Tensor:
    """Rows (4H, ...) of four gates: those of the first 16 cells, of the next, and so on, filled up with zeros."""
    blocks, rest = -(-size // 16), rows.shape[1:]
    padded = rows.new_zeros(4, 16 * blocks, *rest)
    padded[:, :size] = rows.view(4, size, *rest)
    return padded.view(4, blocks, 16, *rest).transpose(0, 1).reshape(64 * blocks, *rest)


def lstm_layer(weights: list[LSTMWeight], said: Tensor, order: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs (T*D*B, H) and memories ((T+1)*D*B, H) of a layer, from zero on.

    Of what words say (N, G), in fp16, the gates `in_blocks`, `order` (T, D*B) names what is heard at each step, and
    `to` (T, D*B) the rows of the outputs that it makes: each of them once.
    """
    assert said.dtype == torch.float16
    steps, rows, size = *order.shape, weights[0].size
    memory, output = torch.empty((steps + 1) * rows, size), torch.empty(steps * rows, size)
    memory[:rows] = 0
    order, to = order.contiguous(), to.contiguous()
    addresses = (ARRAY * len(weights))(*(weight.weight.address for weight in weights))
    weights[0].weight.library.lstm_layer(
        *(addresses, len(weights), steps, rows // len(weights), size),
        *map(Tensor.data_ptr, (said, order, to, memory, output)),
    )
    return output, memory


def log_softmax_(logits: Tensor) -> Tensor:
    """Log-probabilities of logits (n, V), contiguous, in their place."""
    kernels().log_softmax(*logits.shape, logits.data_ptr())
    return logits


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of the last dimension of x (B, W, V), and their places (B, W, count): the first of equals."""
    sentences, width, size = x.shape
    values = torch.empty(sentences, width, count)
    places = torch.empty(sentences, width, count, dtype=torch.long)
    kernels().largest(sentences * width, size, count, x.data_ptr(), values.data_ptr(), places.data_ptr())
    return values, places


def best(
    before: Tensor, log_probs: Tensor, reach: int, count: int, named: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best extensions of hypotheses worth (B, W) by words worth (B, W, V), all or `named` (B*W, V).

    Their worth, words and hypotheses (B, C); of each hypothesis its `reach` best words compete.
    """
    assert named is None or (named.dtype == torch.long and named.is_contiguous() and named.numel() == log_probs.numel())
    sentences, width, size = log_probs.shape
    scores = torch.empty(sentences, count)
    words, parents = torch.empty(2, sentences, count, dtype=torch.long).unbind()
    before = before.contiguous()
    kernels().best(
        *(sentences, width, size, reach, count, before.data_ptr(), log_probs.data_ptr(), _at(named)),
        *(scores.data_ptr(), words.data_ptr(), parents.data_ptr()),
    )
    return scores, words, parents


def parted(
    log_probs: Tensor, words: Tensor, parents: Tensor, width: int, size: int, eos: int
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Of candidates (B, C), the best first, the first `size` that stay open, and those of the first `size` that end.

    Of each the log-probabilities (B, size), the words, and which rows they extend, parents of a sentence being `width`.
    What does not end has -inf there; where nothing does, ends are (B, 0).
    """
    sentences, count = words.shape
    opening, size = min(size, count - width), min(size, count)
    opened = torch.empty(sentences, opening), words.new_empty(sentences, opening), words.new_empty(sentences, opening)
    ended, rows = torch.empty(sentences, size), words.new_empty(sentences, size)
    arrays = map(Tensor.data_ptr, (log_probs, words, parents, *opened, ended, rows))
    some = kernels().parted(sentences, count, width, opening, size, eos, *arrays)
    last = size if some else 0
    return opened, (ended[:, :last], words[:, :last], rows[:, :last])


def weigh(weights: Tensor, said: Tensor, plus: Tensor | None = None) -> Tensor:
    """What values say (B, S, G), in fp16, G a multiple of 64, weighed by (B, K, S): (B*K, G), in fp16.

    With `plus` (B*K, G), tanh of the sum of both, in float32, which is written over it.
    """
    sentences, each, values = weights.shape
    size = said.size(2)
    out = torch.empty(sentences * each, size, dtype=torch.float16) if plus is None else plus
    results = (out.data_ptr(), None) if plus is None else (None, out.data_ptr())
    kernels().weigh(sentences, each, values, size, weights.data_ptr(), said.data_ptr(), *results)
    return out


def attend(query: Tensor, keys: Tensor, mask: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """How much queries (B, K, H) look at keys (B, S, H) where the mask (B, S) is true: (B, K, S).

    And the mean of values (B, S, C) so weighed, (B*K, C), if there are any. Keys and values may be in fp16.
    """
    (sentences, each, size), places, half = query.shape, keys.size(1), keys.dtype == torch.float16
    assert query.dtype == torch.float32
    assert half or keys.dtype == torch.float32
    assert values is None or values.dtype == keys.dtype
    weights = torch.empty(sentences, each, places)
    width = 0 if values is None else values.size(2)
    context = None if values is None else torch.empty(sentences * each, width)
    arrays = query.data_ptr(), keys.data_ptr(), mask.data_ptr(), weights.data_ptr()
    kernels().attend(half, sentences, each, places, size, *arrays, width, _at(values), _at(context))
    return weights, context


def serves(x: Tensor) -> bool:
    """Whether the kernels are there for such numbers: on the CPU, in float32, contiguous."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() and library() is not None


def kernels() -> ctypes.CDLL:
    """The library, where it is there."""
    found = library()
    assert found is not None, "it is asked first whether they serve"
    return found


def _at(part: Tensor | None) -> int | None:
    return None if part is None else part.data_ptr()


def _stride(x: Tensor) -> int:
    assert x.dtype == torch.float32 and x.stride(1) == 1  # noqa: PT018
    return x.stride(0)


def _inputs(*parts: Tensor, rows: Tensor | None = None) -> ctypes.Array[ctypes.c_int64]:
    """Inputs (n, ..), each row contiguous, side by side; of the last these rows (n), or all."""
    described = [number for part in parts for number in (part.data_ptr(), 0, _stride(part), part.size(1))]
    described[-3] = 0 if rows is None else rows.data_ptr()
    return INPUTS[len(parts)](*described)
