"""Our own kernels say what torch says, and where there are none, torch serves."""

import math
import os

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from nmt import native
from nmt.info import describe_machine
from nmt.native import LSTMWeight, NoKernelsError, Weight, training
from nmt.search import Candidates, best

compiled = pytest.mark.skipif(native.library() is None, reason="they need a C compiler, and AVX-512 VNNI")


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def levels_of(rows, columns, seed=2):
    """Levels of a weight, and what one of each row is worth."""
    draw = torch.Generator().manual_seed(seed)
    levels = torch.randint(-127, 128, (rows, columns), generator=draw).to(torch.int8)
    return levels, torch.rand(rows, generator=draw) / 100


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def rounded(x):
    """Inputs (n, E) at the nearest of 127 levels either side of 0, of the largest of their row."""
    step = x.abs().amax(dim=1, keepdim=True) / 127
    return (x / step).round() * step


# ---- products ----


@compiled
def test_a_product_by_hand():
    weight = Weight(
        torch.tensor([[1, 2, 0], [3, -4, 127]], dtype=torch.int8), torch.tensor([1.0, 0.5]), torch.tensor([0, 10.0])
    )
    x = torch.tensor([[127.0, -63, 1], [0, 0, 0], [-254, 2, 0]])  # a level is 1, nothing, 2
    expected = [[127 - 126, (3 * 127 + 4 * 63 + 127) / 2 + 10], [0, 10], [-254 + 4, (-3 * 254 - 4 * 2) / 2 + 10]]
    assert weight.multiply([x]).tolist() == expected
    assert_close(weight.multiply([x], "squashed"), torch.tensor(expected).tanh())


@compiled
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 25])  # rows that fill tiles, and that do not
@pytest.mark.parametrize(("rows", "columns"), [(64, 4), (37, 50), (130, 67), (1, 1)])
def test_products_of_any_shape(n, rows, columns):
    (levels, scales), x, bias = levels_of(rows, columns), drawn(n, columns), drawn(rows)
    expected = rounded(x) @ (levels * scales[:, None]).t() + bias
    weight = Weight(levels, scales, bias)
    assert_close(weight.multiply([x]), expected, rtol=1e-5, atol=1e-4)
    if rows % 64 == 0:
        assert weight.multiply([x], "halved").equal(weight.multiply([x]).half())


@compiled
def test_sums_do_not_overflow_and_rows_are_their_own():
    weight = Weight(torch.full((80, 1024), 127, dtype=torch.int8), torch.ones(80))
    x = torch.tensor([1.0, -1, 1e-3])[:, None].expand(3, 1024).contiguous()
    expected = torch.tensor([1024 * 127.0, -1024 * 127, 1.024 * 127])[:, None].expand(3, 80)
    assert_close(weight.multiply([x]), expected)
    some = drawn(13, 1024)
    assert weight.multiply([some]).equal(torch.cat([weight.multiply([row[None]]) for row in some]))


@compiled
def test_nothing_is_written_beside_and_strided_inputs_are_read_where_they_lie(monkeypatch):
    (levels, scales), x = levels_of(37, 50), drawn(5, 60)
    room = torch.full((7, 37), 9.0)
    expected = rounded(x[:, :50]) @ (levels * scales[:, None]).t()
    weight = Weight(levels, scales)
    monkeypatch.setattr("torch.empty", lambda *shape, dtype: room[1:6])
    assert_close(weight.multiply([x[:, :50]]), expected, rtol=1e-5, atol=1e-4)
    assert room[0].eq(9).all()
    assert room[6].eq(9).all()


@compiled
def test_nan_among_the_inputs_makes_its_row_nan():
    x = drawn(3, 40)
    x[1, 2] = math.nan
    x[2, 39] = math.nan
    assert Weight(*levels_of(5, 40)).multiply([x]).isnan().tolist() == [[False] * 5, [True] * 5, [True] * 5]


@compiled
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 99, 100, 170, 229])  # in blocks of 64 and behind them, in either input
def test_what_is_not_finite_makes_its_row_nan(value, place):
    x = drawn(3, 230)
    x[1, place] = value
    weight = Weight(*levels_of(5, 230), widths=[100, 130])
    assert weight.multiply([x[:, :100], x[:, 100:]]).isnan().all(1).tolist() == [False, True, False]


@compiled
def test_in_fp16_what_is_larger_is_cut_off():
    bias = torch.tensor([1e6, -1e6, math.nan, 65504, 2.0] * 13)[:64]
    found = Weight(*levels_of(64, 4), bias).multiply([torch.zeros(1, 4)], "halved")[0]
    assert_close(found, bias.clamp(-65504, 65504).half(), rtol=0, atol=0, equal_nan=True)


@compiled
@pytest.mark.usefixtures("two_threads")
def test_threads_change_nothing():
    """Of weights and steps so large that they are divided among them."""
    (levels, scales), x = levels_of(4 * 512, 512), drawn(20, 512)
    weight, sums, memory = Weight(levels, scales), drawn(20, 4 * 512), drawn(20, 512)
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        gates, after, output = torch.empty(20, 5 * 512), torch.empty(20, 512), torch.empty(20, 512)
        training.lstm_forward(sums, memory, gates, after, output)
        errors, d_memory = torch.empty(20, 4 * 512), after.clone()
        training.lstm_backward(gates, memory, output, output[:7], d_memory, errors)
        found.append([weight.multiply([x]), gates, after, output, errors, d_memory])
    for one, other in zip(*found, strict=True):
        assert one.equal(other)


# ---- LSTMs ----


def stepped(weight, bias, inputs, memory, told):
    """An LSTM's step, gates i, f, o, g, in float64."""
    gates = rounded(torch.cat(inputs, dim=1)).double() @ weight.double().t() + bias + told
    i, f, o, g = gates.chunk(4, dim=1)
    after = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return (o.sigmoid() * after.tanh()).float(), after.float()


def blocked(told, size):
    """What gates are told (N, 4H), as steps take it."""
    return native.in_blocks(told.t(), size).t().half().contiguous()


@compiled
@pytest.mark.parametrize("n", [1, 5, 6, 13])
@pytest.mark.parametrize("size", [7, 16, 50])  # cells that fill panels, and that do not
@pytest.mark.parametrize("others", [[], [9], [4, 3]])  # inputs beside the output before
def test_an_lstms_step(n, size, others):
    widths = [*others, size]
    levels, scales = levels_of(4 * size, sum(widths))
    inputs, memory = [drawn(n, width, seed=width) for width in widths], drawn(n, size)
    bias, told = drawn(4 * size), drawn(30, 4 * size).half().float()
    which = torch.arange(n) * 2
    expected = stepped(levels * scales[:, None], bias, inputs, memory, told[which])
    told = blocked(told, size)
    weight = LSTMWeight(levels, scales, bias, widths)
    assert_close(weight.step(inputs, memory, told, which), expected, rtol=1e-5, atol=1e-5)
    every_second = torch.arange(2 * n)[::2]  # not contiguous
    assert_close(weight.step(inputs, memory, told, every_second), expected, rtol=1e-5, atol=1e-5)
    assert_close(weight.step(inputs, memory, told[which]), expected, rtol=1e-5, atol=1e-5)
    untold = stepped(levels * scales[:, None], bias, inputs, memory, 0)
    assert_close(weight.step(inputs, memory), untold, rtol=1e-5, atol=1e-5)
    rows = torch.arange(2 * n)[::2] // 3  # the last input and the memory have rows of their own
    picked = weight.step([*inputs[:-1], inputs[-1][rows]], memory[rows], told, which)
    for one, other in zip(weight.step(inputs, memory, told, which, rows), picked, strict=True):
        assert one.equal(other)


@compiled
def test_gates_are_as_exact_as_float32_allows():
    """Of sums from -50 to 50, and tiny ones; and NaN stays NaN."""
    sums = torch.cat([torch.linspace(-50, 50, 1601), torch.linspace(-1e-3, 1e-3, 1599)]).view(-1, 16)
    weight = LSTMWeight(torch.zeros(64, 16, dtype=torch.int8), torch.ones(64))
    sums = sums.half().float()
    told, nothing = sums.repeat(1, 4).half(), torch.zeros_like(sums)  # 16 cells, so in blocks
    output, memory = weight.step([nothing], nothing, told)
    exact = sums.double().sigmoid() * sums.double().tanh()
    assert_close(memory, exact.float(), rtol=1e-6, atol=1e-12)
    assert_close(output, (sums.double().sigmoid() * exact.tanh()).float(), rtol=1e-6, atol=1e-12)
    told[0, 3] = math.nan
    output, memory = weight.step([nothing], nothing, told)
    assert output.isnan().nonzero().tolist() == memory.isnan().nonzero().tolist() == [[0, 3]]


@compiled
@pytest.mark.parametrize(
    ("directions", "threads", "size"), [(1, 1, 20), (2, 1, 20), (2, 2, 20), (1, 2, 20), (2, 2, 384)]
)
def test_a_layer_is_its_steps(directions, threads, size):
    """Of weights that threads do not share and, of 384 cells, that they do."""
    steps, sentences = 4, 3
    weights = [LSTMWeight(*levels_of(4 * size, size, seed)) for seed in range(directions)]
    said = blocked(drawn(50, 4 * size), size)
    draw = torch.Generator().manual_seed(1)
    order = torch.randint(0, 50, (steps, directions * sentences), generator=draw)
    to = torch.randperm(order.numel(), generator=draw).view(order.shape)
    torch.set_num_threads(threads)
    try:
        outputs, memories = native.lstm_layer(weights, said, order, to)
    finally:
        torch.set_num_threads(1)
    outputs = outputs[to].view(steps, directions, sentences, size)
    memories = memories.view(steps + 1, directions, sentences, size)
    for direction, weight in enumerate(weights):
        output = memory = torch.zeros(sentences, size)
        for step, which in enumerate(order.view(steps, directions, sentences)[:, direction], 1):
            output, memory = weight.step([output], memory, said, which)
            assert outputs[step - 1, direction].equal(output)
            assert memories[step, direction].equal(memory)


# ---- words ----


@compiled
@pytest.mark.parametrize("size", [1, 15, 64, 1003])
def test_log_probabilities(size):
    logits = 30 * drawn(9, size)
    logits[1] += 1e4
    logits[2, 0] = -math.inf if size > 1 else 0
    expected = logits.double().log_softmax(1).float()
    found = native.log_softmax_(logits)
    assert found is logits
    assert_close(found, expected, rtol=1e-6, atol=2e-5)
    many = torch.full((1, 100_000), -20.0)
    many[0, 0] = 0.0
    assert_close(native.log_softmax_(many)[0, 0].item(), -math.log1p(99_999 * math.exp(-20)), rtol=0, atol=5e-6)


@compiled
@pytest.mark.parametrize("size", [6, 63, 64, 1003])
@pytest.mark.parametrize("count", [1, 6])
def test_the_largest_and_of_equals_the_first(size, count):
    x = drawn(4, 5, size).mul(3).round()  # many are equal
    x[0, 0, 1:] = -math.inf
    x[1, 1] = -math.inf
    values, places = native.largest(x, count)
    order = x.argsort(dim=2, descending=True, stable=True)[:, :, :count]
    assert places.equal(order)
    assert values.equal(x.gather(2, order))


@compiled
def test_more_than_64_are_found_too():
    x = drawn(1, 2, 500)
    for one, other in zip(native.largest(x, 100), x.topk(100), strict=True):
        assert one.equal(other)


@compiled
def test_nan_is_above_all():
    x = drawn(1, 2, 200)
    x[0, 0, 150] = math.nan
    x[0, 1] = math.nan
    values, places = native.largest(x, 3)
    assert values[0].isnan().tolist() == [[True, False, False], [True, True, True]]
    assert places[0, 0].tolist() == [150, *x[0, 0].nan_to_num(-math.inf).topk(2).indices.tolist()]
    assert native.log_softmax_(x[0].clone()).isnan().all()


@compiled
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("n", [1, 7, 200])  # rows in one block, and in two
@pytest.mark.parametrize("vocabulary", [10, 64, 700, 3000])  # less than a panel, one, and several parts
@pytest.mark.parametrize("count", [1, 5])
def test_offered_words_are_the_best_and_the_one_that_ends(n, vocabulary, count):
    silent, end = torch.tensor([0, 4, vocabulary - 1]), 3
    weight, x = Weight(*levels_of(vocabulary, 50), drawn(vocabulary)), drawn(n, 50)
    expected = weight.multiply([x]).log_softmax(1)
    ends = expected[:, end].clone()
    expected[:, [end, *silent]] = -math.inf
    values, places = expected.topk(count)
    log_probs, words = weight.offer(x, count, end, silent)
    assert_close(log_probs[:, 0], ends, rtol=1e-6, atol=2e-6)
    assert_close(log_probs[:, 1:], values, rtol=1e-6, atol=2e-6)
    assert words[:, 0].eq(end).all()
    assert words[:, 1:].equal(places)


@compiled
def test_as_many_as_there_are_may_be_offered_and_none_need_be_silent():
    weight, x = Weight(*levels_of(10, 50), drawn(10)), drawn(4, 50)
    log_probs = weight.multiply([x]).log_softmax(1)
    for silent in ([], [0, 9]):
        left = [word for word in range(10) if word not in (3, *silent)]
        found, words = weight.offer(x, len(left), 3, torch.tensor(silent, dtype=torch.long))
        assert words[:, 1:].sort(dim=1).values.eq(torch.tensor(left)).all()
        assert_close(found, log_probs.gather(1, words), rtol=1e-6, atol=2e-6)
        assert found[:, 1:].diff(dim=1).le(0).all()


@compiled
def test_what_a_row_is_offered_does_not_depend_on_the_others():
    weight, x = Weight(*levels_of(3000, 50), drawn(3000)), drawn(40, 50)
    together = weight.offer(x, 5, 3, torch.tensor([0]))
    alone = [weight.offer(row[None], 5, 3, torch.tensor([0])) for row in x]
    for one, others in zip(together, zip(*alone, strict=True), strict=True):
        assert one.equal(torch.cat(others))


@compiled
def test_of_equals_the_first_words_are_offered_and_nan_is_seen():
    levels = torch.ones(2000, 4, dtype=torch.int8)
    weight, x = Weight(levels, torch.ones(2000)), torch.tensor([[1.0, 0, 0, 0], [0, math.nan, 0, 0]])
    log_probs, words = weight.offer(x, 3, 1, torch.tensor([2]))
    assert words[0].tolist() == [1, 0, 3, 4]
    assert_close(log_probs[0], torch.full((4,), -math.log(2000)))
    assert log_probs[1].isnan().all()


@compiled
@pytest.mark.parametrize(("width", "size"), [(1, 1), (3, 3), (5, 5), (2, 5)])
def test_the_best_extensions(width, size):
    before, log_probs = drawn(4, width), drawn(4, width, 300)
    log_probs[0, 0] += 9  # more of one parent than may stay
    expected = best(before, log_probs, size, None)
    for one, other in zip(native.best(before, log_probs, size + 1, 2 * size), expected, strict=True):
        assert one.equal(other)


@compiled
def test_the_best_extensions_by_words_that_have_names():
    before, log_probs = drawn(4, 2), drawn(4, 2, 7)
    names = torch.randint(100, (8, 7), generator=torch.Generator().manual_seed(5))
    scores, places, parents = native.best(before, log_probs, 3, 4)
    named = native.best(before, log_probs, 3, 4, names)
    expected = scores, names.view(4, -1).gather(1, parents * 7 + places), parents
    for one, other in zip(named, expected, strict=True):
        assert one.equal(other)


# Of ten words so many are EOS: none, few, so many that too few go on, all.
@compiled
@pytest.mark.parametrize("likely", [0, 1, 3, 10])
@pytest.mark.parametrize(("width", "size", "count"), [(1, 1, 2), (1, 3, 6), (3, 3, 6), (2, 5, 10), (1, 5, 3)])
def test_candidates_are_parted(likely, width, size, count):
    draw = torch.Generator().manual_seed(7)
    words = torch.randint(1, 11, (6, count), generator=draw)
    words = words.where(words > likely, 0)
    log_probs = drawn(6, count).sort(1, descending=True).values
    log_probs[1, 0] = math.nan
    parents = torch.randint(width, (6, count), generator=draw)
    opened, ends = Candidates(log_probs, words, parents).parted(width, size, 0)
    mine, my_ends = native.parted(log_probs, words, parents, width, size, 0)
    for one, other in zip(mine, opened, strict=True):
        assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    if not words[:, :size].eq(0).any():
        assert all(part.shape == (6, 0) for part in my_ends)
        return
    for one, other in zip(my_ends, ends, strict=True):
        assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@compiled
@pytest.mark.parametrize("each", [1, 5, 6, 8])
def test_what_values_say_is_weighed(each):
    weights, said = drawn(3, each, 7).softmax(2), drawn(3, 7, 128).half()
    plus, expected = drawn(3 * each, 128), (weights @ said.float()).flatten(0, 1)
    assert_close(native.weigh(weights, said), expected.half(), rtol=1e-3, atol=1e-3)
    found = native.weigh(weights, said, plus.clone())
    assert_close(found, (expected + plus).tanh(), rtol=1e-5, atol=1e-6)


@compiled
@pytest.mark.parametrize("size", [9, 64, 200])
def test_attention(size):
    """The softmax over words alone, and the mean of the values; 20 places, so that more than a vector is needed."""
    query, keys, values = drawn(3, 4, size), drawn(3, 20, size, seed=2), drawn(3, 20, 33, seed=3)
    mask = torch.arange(20) < torch.tensor([20, 17, 1])[:, None]
    keys[2, 5:] = 1e4  # padding may hold anything
    weights = (query @ keys.transpose(1, 2)).masked_fill(~mask[:, None], -math.inf).softmax(2)
    found, context = native.attend(query, keys, mask, values)
    assert_close(found, weights, rtol=1e-4, atol=1e-5)
    assert not found[2, :, 1:].any()
    assert_close(context, (weights @ values).flatten(0, 1), rtol=1e-4, atol=1e-4)
    alone, nothing = native.attend(query, keys, mask)
    assert alone.equal(found)
    assert nothing is None
    exactly = native.attend(query, keys.half().float(), mask, values.half().float())
    for one, other in zip(native.attend(query, keys.half(), mask, values.half()), exactly, strict=True):
        assert one.equal(other)


# ---- compiling ----


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A folder for compiled kernels that has none, and a CPU that could run them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {' '.join(native.NEEDED)}\n")
    return tmp_path


@pytest.fixture
def brief(fresh, monkeypatch):
    """Kernels that do nothing, and take no time to compile."""
    (fresh / "none.c").write_text("".join(f"void {name}(void) {{}}\n" for name in native.SIGNATURES))
    monkeypatch.setattr(native, "SOURCES", [fresh / "none.c"])


@compiled
@pytest.mark.usefixtures("brief")
def test_they_are_compiled_once_and_appear_whole():
    native.load()
    [made] = native.folder().iterdir()
    when = made.stat().st_mtime_ns
    native.load()
    assert [path.stat().st_mtime_ns for path in native.folder().iterdir()] == [when]


@compiled
@pytest.mark.usefixtures("brief")
def test_what_another_user_has_compiled_is_not_run(monkeypatch):
    native.load()
    if os.getuid() == 0:  # whose files all may run
        os.chown(native.compiled(), 12345, -1)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(NoKernelsError, match=r"kernels-\w+\.so belongs to another user"):
        native.load()


def test_a_cpu_without_the_instructions_has_none(fresh):
    (fresh / "cpuinfo").write_text("flags : fpu avx512f avx512bw avx512vl avx512dq\n")
    with pytest.raises(NoKernelsError, match="the CPU has no avx512_vnni, fma"):
        native.load()
    (fresh / "cpuinfo").unlink()
    with pytest.raises(NoKernelsError, match="the CPU has no avx512_vnni, avx512bw, avx512dq, avx512f, avx512vl, fma"):
        native.load()


def test_without_a_compiler_there_are_none(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CC", raising=False)
    for compiler in ("", "nothing -O2"):
        monkeypatch.setenv("CC", compiler)
        with pytest.raises(NoKernelsError, match=r"there is no C compiler \(\$CC, gcc or cc\)"):
            native.load()
    monkeypatch.setenv("CC", "gcc '")
    with pytest.raises(NoKernelsError, match="No closing quotation"):
        native.load()


def test_a_compiler_that_cannot_says_so(fresh, monkeypatch):
    compiler = fresh / "mycc"
    compiler.write_text("#!/bin/sh\necho 'mycc: unknown flag -mfma' >&2\necho more >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(NoKernelsError, match=r"mycc does not compile them: mycc: unknown flag -mfma$"):
        native.load()
    assert not list(native.folder().iterdir())  # nothing half made


def test_without_a_home_there_are_none(fresh, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    with pytest.raises(NoKernelsError, match="Could not determine home directory"):
        native.load()


@pytest.mark.parametrize("place", ["torch/lib/libgomp.so.1", "torch.libs/libgomp-a34b3233.so.1"])
def test_threads_are_torchs(tmp_path, monkeypatch, place):
    monkeypatch.setattr("torch.__file__", str(tmp_path / "torch" / "__init__.py"))
    assert native.threads() == []
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert native.threads() == ["-fopenmp", str(tmp_path / place)]


def test_a_folder_that_cannot_be_written_leaves_them_out(fresh):
    (fresh / "cache").write_text("a file")
    with pytest.raises(NoKernelsError, match="cache"):
        native.load()


def test_they_can_be_left_out_and_info_says_so(monkeypatch):
    monkeypatch.setenv("NMT_NATIVE", "0")
    with pytest.raises(NoKernelsError, match="NMT_NATIVE=0 leaves them out"):
        native.load()
    assert describe_machine()["kernels"] == "torch's alone: NMT_NATIVE=0 leaves them out"
    monkeypatch.setattr(native, "load", object)
    assert describe_machine()["kernels"] == f"our own and torch's; compiled ones are in {native.folder()}"


def test_they_serve_float32_on_the_cpu(monkeypatch):
    x = torch.zeros(2, 4)
    monkeypatch.setattr(native, "library", lambda: None)
    assert not native.serves(x)
    monkeypatch.setattr(native, "library", object)
    assert native.serves(x)
    assert not native.serves(x.double())
    assert not native.serves(x.t())


def test_gates_of_cells_stand_together():
    rows = torch.arange(4 * 18)  # 18 cells: 16, and 2 with room for 14
    blocks = native.in_blocks(rows, 18).view(2, 4, 16)
    assert blocks[0].tolist() == [list(range(gate, gate + 16)) for gate in (0, 18, 36, 54)]
    assert blocks[1].tolist() == [F.pad(torch.arange(gate, gate + 2), (0, 14)).tolist() for gate in (16, 34, 52, 70)]
