"""Batches by hand, the properties of the sampler, and a corpus encoded to disk."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from nmt import batches as module
from nmt.batches import BatchLoader, EncodedCorpus, TokenBatches, collate, collate_sources, encode_corpus
from nmt.corpus import DataOptions
from nmt.tokenizer import TokenizerOptions, train_tokenizer

# ---- collate ----


def test_a_batch_by_hand():
    batch = collate([([11, 12, 13], [21]), ([14], [22, 23])])
    assert batch.source.tolist() == [[11, 12, 13, 3], [14, 3, 0, 0]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.target_in.tolist() == [[2, 21, 0], [2, 22, 23]]
    assert batch.target_out.tolist() == [[21, 3, 0], [22, 23, 3]]
    assert batch.words.tolist() == [0, 1, 3, 4, 5]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_lengths_are_rounded_up_to_a_multiple_and_filled_with_pad():
    batch = collate([([11, 12, 13, 14], [21, 22, 23])], multiple=4)
    assert batch.source.tolist() == [[11, 12, 13, 14, 3, 0, 0, 0]]
    assert batch.source_lengths.tolist() == [5]
    assert batch.target_in.tolist() == [[2, 21, 22, 23]]
    assert batch.target_out.tolist() == [[21, 22, 23, 3]]


def test_an_id_equal_to_a_special_one_is_kept_in_place():
    # what the decoder reads follows from lengths, not from looking for EOS
    assert collate([([1], [3, 5]), ([1], [5])]).target_in.tolist() == [[2, 3, 5], [2, 5, 0]]


def test_blank_sentences_are_just_their_end():
    batch = collate([([], [])])
    assert [tensor.tolist() for tensor in batch] == [[[3]], [1], [[2]], [[3]], [0]]


def test_sources_alone_are_padded_alike():
    source, lengths = collate_sources([[11], np.array([12, 13], np.int32)], multiple=2)
    assert source.tolist() == [[11, 3, 0, 0], [12, 13, 3, 0]]
    assert lengths.tolist() == [2, 3]


# ---- the sampler ----

lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


def sampler(pairs, tokens=60, seed=1, **options) -> TokenBatches:
    source, target = np.array(pairs, np.int32).T
    return TokenBatches(source, target, tokens, seed, **options)


def cost(pairs, batch, multiple=1) -> int:
    """B * max(S, T), S and T rounded up."""
    longest = max(max(pairs[index]) for index in batch)
    return len(batch) * -(-longest // multiple) * multiple


@given(lengths, st.integers(0, 5), st.booleans())
def test_one_rank_sees_every_pair_exactly_once(pairs, epoch, shuffle):
    batches = sampler(pairs, shuffle=shuffle)
    found = batches.epoch(epoch)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(pairs)))
    assert len(found) == len(batches)


@given(lengths, st.integers(1, 8), st.one_of(st.none(), st.integers(1, 5)))
def test_a_batch_keeps_the_budget_or_is_one_sentence(pairs, multiple, most):
    for batch in sampler(pairs, max_sentences=most, multiple=multiple).epoch(0):
        assert len(batch) <= (most or len(pairs))
        assert cost(pairs, batch, multiple) <= 60 or len(batch) == 1


@given(lengths)
def test_no_batch_could_have_taken_the_next_pair_too(pairs):
    batches = sampler(pairs, shuffle=False).epoch(0)
    for batch, following in pairwise(batches):
        assert cost(pairs, [*batch, following[0]]) > 60


@given(lengths, st.integers(0, 9))
def test_seed_and_epoch_decide_everything(pairs, epoch):
    one, two = sampler(pairs).epoch(epoch), sampler(pairs).epoch(epoch)
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in two]


@given(lengths, st.integers(1, 5))
def test_ranks_have_equally_many_batches_and_miss_no_pair(pairs, world):
    ranks = [sampler(pairs, rank=rank, world=world).epoch(3) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {len(sampler(pairs, world=world))}
    together = [batch for batches in ranks for batch in batches]
    assert set(np.concatenate(together).tolist()) == set(range(len(pairs)))
    alone = {tuple(batch.tolist()) for batch in sampler(pairs).epoch(3)}
    assert {tuple(batch.tolist()) for batch in together} == alone
    assert len(together) - len(alone) < world  # no more repeated than it takes to fill the last step


def test_each_step_is_like_work_for_all_ranks():
    # ten sentences of 1 to 10 pieces, each its own batch, on four ranks: the last step takes the longest four
    pairs = [(length, length) for length in range(1, 11)]
    ranks = [sampler(pairs, tokens=1, rank=rank, world=4).epoch(0) for rank in range(4)]
    steps = [[pairs[index][0] for (index,) in step] for step in zip(*ranks, strict=True)]
    assert sorted(steps) == [[1, 2, 3, 4], [5, 6, 7, 8], [7, 8, 9, 10]]
    assert steps != sorted(steps)


def test_epochs_differ_in_order_and_in_company():
    batches = sampler([(5, 5)] * 60)  # 12 to a batch: 60 / 5
    first, second = batches.epoch(0), batches.epoch(1)
    assert [len(batch) for batch in first] == [12] * 5
    assert {frozenset(batch.tolist()) for batch in first}.isdisjoint(frozenset(batch.tolist()) for batch in second)
    assert {frozenset(batch.tolist()) for batch in first}.isdisjoint(
        frozenset(batch.tolist()) for batch in sampler([(5, 5)] * 60, seed=2).epoch(0)
    )


def test_batches_group_by_both_lengths():
    # by hand: targets of 2 with sources of 2 before those of 9, then, falling, targets of 3 with 9 before 2
    pairs = [(9, 2), (2, 3), (2, 2), (9, 3)]
    batches = sampler(pairs, tokens=9, shuffle=False).epoch(0)
    assert [batch.tolist() for batch in batches] == [[2], [0], [3], [1]]


def test_little_is_padded():
    random = np.random.default_rng(0)
    source = random.poisson(25, 200_000) + 1
    target = np.maximum(1, source + random.integers(-5, 6, 200_000))
    batches = TokenBatches(source, target, 4096, 1).epoch(0)
    padded = sum(len(batch) * (source[batch].max() + target[batch].max()) for batch in batches)
    assert (source.sum() + target.sum()) / padded > 0.99


# ---- the encoded corpus ----

SOURCES = [f"A {noun} {verb} ." for verb in ("sinks", "sleeps", "waits") for noun in ("boat", "cat", "house", "river")]
TARGETS = [f"{noun} {verb} ." for verb in ("sinkt", "schläft", "wartet") for noun in ("Boot", "Katze", "Haus", "Fluss")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spm")
    return train_tokenizer(SOURCES + TARGETS, TokenizerOptions(vocab_size=34), folder / "spm.model")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train.en").write_bytes("\n".join(SOURCES).encode())
    (tmp_path / "train.de").write_bytes("\n".join(TARGETS).encode())
    return DataOptions(train=str(tmp_path / "train"), cache=str(tmp_path / "cache"))


def cached(data: DataOptions) -> list[Path]:
    return sorted(Path(data.cache).glob("*.arrow"))


def test_rows_are_what_the_tokenizer_says(data, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5)  # 12 pairs in chunks of 5, 5 and 2
    table, report = encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    expected = list(zip(tokenizer.encode(SOURCES), tokenizer.encode(TARGETS), strict=True))
    order = [11, 0, 4, 5, 9, 10, 4]
    assert [(s.tolist(), t.tolist()) for s, t in table.rows(order)] == [expected[index] for index in order]
    assert len(table) == report.kept == 12
    assert table.source_lengths.tolist() == [len(source) + 1 for source, _ in expected]
    assert table.target_lengths.tolist() == [len(target) + 1 for _, target in expected]


def test_rows_are_views_of_the_file(data, tokenizer):
    table, _ = encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    source, _ = table.rows([3])[0]
    assert np.shares_memory(source, table.chunks[0][0][1])
    assert not source.flags.writeable


def test_a_second_call_reads_no_text(data, tokenizer, monkeypatch):
    first, report = encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    monkeypatch.setattr("nmt.corpus.read_pairs", None)
    second, again = encode_corpus([data.train], "train", data, tokenizer, tokenizer)
    assert again == report
    assert second.rows([7])[0][0].tolist() == first.rows([7])[0][0].tolist()
    assert len(cached(data)) == 1


def test_what_shapes_the_table_names_it(data, tokenizer, tmp_path):
    def encode(split="train", **options):
        changed = DataOptions(**{"train": data.train, "cache": data.cache, **options})
        encode_corpus(changed.train, split, changed, tokenizer, tokenizer)
        return len(cached(data))

    assert encode() == 1
    assert encode(max_length=100) == 2
    assert encode(source_language="de", target_language="en") == 3
    assert encode(train=[data.train, data.train]) == 4
    assert encode(workers=2) == 4
    (tmp_path / "train.en").write_bytes("\n".join(SOURCES).replace("boat", "oats").encode())
    assert encode() == 5


def test_a_table_cut_short_is_made_anew(data, tokenizer):
    encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    [path] = cached(data)
    whole = path.read_bytes()
    for damaged in (whole[:-20], b""):
        path.write_bytes(damaged)
        table, _ = encode_corpus(data.train, "train", data, tokenizer, tokenizer)
        assert len(table) == 12
        assert path.read_bytes() == whole


def test_a_report_cut_short_is_made_anew(data, tokenizer):
    _, report = encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    [path] = Path(data.cache).glob("*.json")
    path.write_text('{"read": ')
    assert encode_corpus(data.train, "train", data, tokenizer, tokenizer)[1] == report


def test_threads_change_nothing(data, tokenizer, tmp_path):
    written = []
    for workers in (1, 4):
        options = DataOptions(train=data.train, cache=str(tmp_path / str(workers)), workers=workers)
        encode_corpus(options.train, "train", options, tokenizer, tokenizer)
        written.append(cached(options)[0].read_bytes())
    assert written[0] == written[1]


def test_blank_and_long_pairs_are_dropped_and_counted(data, tokenizer, tmp_path):
    long = "A boat sinks . " * 9
    (tmp_path / "train.en").write_text("\n".join(["A boat .", "", long, "A cat ."]))
    (tmp_path / "train.de").write_text("\n".join(["Boot .", "Haus", "Boot .", long]))
    options = DataOptions(train=data.train, cache=data.cache, max_length=20)
    table, report = encode_corpus(options.train, "train", options, tokenizer, tokenizer)
    assert (report.read, report.blank, report.too_long, report.kept) == (4, 1, 2, 1)
    assert [tokenizer.decode(row)[0] for row in zip(*table.rows([0]), strict=True)] == ["A boat .", "Boot ."]


def test_a_failing_run_leaves_no_file(data, tokenizer, tmp_path):
    (tmp_path / "train.en").write_bytes("\n".join(SOURCES[:-1]).encode())
    with pytest.raises(ValueError, match=r"not parallel: \S+train\.en ends after line 11, but \S+train\.de:12 reads"):
        encode_corpus(data.train, "train", data, tokenizer, tokenizer)
    assert cached(data) == []


def test_pairs_all_too_long_are_refused(data, tokenizer):
    options = DataOptions(train=data.train, cache=data.cache, max_length=1)
    with pytest.raises(ValueError, match=r"each of its 12 has a side of more than data\.max_length = 1 pieces"):
        encode_corpus(options.train, "train", options, tokenizer, tokenizer)
    assert cached(data) == []


def test_no_source_is_refused(data, tokenizer):
    with pytest.raises(ValueError, match=r"data\.validation names no corpus"):
        encode_corpus(data.validation, "validation", data, tokenizer, tokenizer)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder(DataOptions()) == tmp_path / "nmt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert module.cache_folder(DataOptions()) == Path.home() / ".cache" / "nmt"
    assert module.cache_folder(DataOptions(cache="~/x")) == Path.home() / "x"


# ---- the loader ----


@pytest.fixture
def table(data, tokenizer) -> EncodedCorpus:
    return encode_corpus(data.train, "train", data, tokenizer, tokenizer)[0]


def loader(table: EncodedCorpus, **options) -> BatchLoader:
    """Twelve pairs in four batches."""
    return BatchLoader(
        table, TokenBatches(table.source_lengths, table.target_lengths, 999, 1, max_sentences=3, **options)
    )


def read(loader: BatchLoader, count: int) -> list:
    """So many batches, epoch after epoch, asking for none beyond as a loop does that knows the length."""
    found, iterator, left = [], iter(loader), len(loader) - loader.state_dict()["position"]
    for _ in range(count):
        if not left:
            iterator, left = iter(loader), len(loader)
        found.append(next(iterator))
        left -= 1
    return found


def test_a_batch_holds_the_pairs_that_the_sampler_chose(table):
    batches = loader(table, multiple=4)
    for indices, batch in zip(batches.batches.epoch(0), batches, strict=True):
        assert_close(tuple(batch), tuple(collate(table.rows(indices), multiple=4)))


@pytest.mark.parametrize("before", range(10))
def test_resumed_is_uninterrupted_at_every_batch(table, before):
    assert len(loader(table)) == 4
    straight = read(loader(table), 13)
    first = loader(table)
    head = read(first, before)
    second = loader(table)
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == {"epoch": before // 4, "position": before % 4}
    assert_close([tuple(batch) for batch in head + read(second, 13 - before)], [tuple(batch) for batch in straight])


def test_the_state_survives_until_the_first_batch_is_asked_for(table):
    batches = loader(table)
    batches.load_state_dict({"epoch": 2, "position": 1})
    iter(batches)
    assert batches.state_dict() == {"epoch": 2, "position": 1}
    assert len(list(batches)) == 3
    assert batches.state_dict() == {"epoch": 3, "position": 0}


def test_an_iteration_cut_short_is_not_taken_up_again(table):
    # as in a sanity check of two validation batches, after which the whole is wanted
    batches = loader(table)
    assert next(iter(batches))
    assert len(list(batches)) == 4
    assert batches.state_dict() == {"epoch": 2, "position": 0}


def test_an_epoch_may_be_chosen(table):
    batches = loader(table)
    batches.set_epoch(5)
    expected = [tuple(collate(table.rows(indices))) for indices in batches.batches.epoch(5)]
    assert_close([tuple(batch) for batch in batches], expected)
    batches.load_state_dict({"epoch": 7, "position": 2})
    batches.set_epoch(7)
    assert batches.state_dict() == {"epoch": 7, "position": 2}
    batches.set_epoch(8)
    assert batches.state_dict() == {"epoch": 8, "position": 0}
