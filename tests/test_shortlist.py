"""What may be said of a sentence: IBM Model 1 with a pencil, candidates by hand, and the file."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from nmt import shortlist as module
from nmt.checkpoint import Tokenizers, save_tensors
from nmt.shortlist import Shortlist, expected_counts, learn, likeliest, links, load_shortlist, model_1, sampled

# Each source ends in EOS, 3, which is linked like a word.
PAIRS = [([4, 5], [6, 7]), ([4], [6]), ([5], [8])]
TYPES = [(3, 6), (3, 7), (3, 8), (4, 6), (4, 7), (5, 6), (5, 7), (5, 8)]  # that come together in some pair


class Corpus(NamedTuple):
    """What `learn` reads of an `EncodedCorpus`."""

    pairs: list

    @property
    def source_lengths(self):
        return np.array([len(source) + 1 for source, _ in self.pairs], np.int32)

    @property
    def target_lengths(self):
        return np.array([len(target) + 1 for _, target in self.pairs], np.int32)

    def __len__(self):
        return len(self.pairs)

    def rows(self, indices):
        return [tuple(np.array(side, np.int32) for side in self.pairs[index]) for index in indices]


def drawn(pairs, seed=1, size=30):
    random = np.random.default_rng(seed)
    return [tuple(random.integers(4, size, random.integers(1, 9)).tolist() for _ in range(2)) for _ in range(pairs)]


# ---- IBM Model 1 ----


def test_an_iteration_of_model_1_by_hand():
    pairs, probabilities = model_1([links(PAIRS, 9)], 9, 1)
    assert [divmod(pair, 9) for pair in pairs.tolist()] == TYPES
    # 6 and 7 of the first pair are shared out in thirds among 4, 5 and 3, 6 and 8 of the others in halves:
    # counts of 3: 1/3 + 1/2, 1/3, 1/2; of 4: 1/3 + 1/2, 1/3; of 5: 1/3, 1/3, 1/2. Over their sums, 5/3, 7/6 and 7/6:
    assert_allclose(probabilities, [1 / 2, 1 / 5, 3 / 10, 5 / 7, 2 / 7, 2 / 7, 2 / 7, 3 / 7])


def test_the_next_expectation_shares_out_by_what_was_learnt():
    block = links(PAIRS[2:], 9)
    counts = expected_counts(block, np.array([3 / 10, 3 / 7]))  # t(8 | 3) and t(8 | 5)
    assert_allclose(counts, [7 / 17, 10 / 17])  # 3/10 : 3/7 = 7 : 10


def test_no_iteration_makes_the_text_less_probable():
    pairs = drawn(40)
    block = links(pairs, 30)
    found = []
    for iterations in range(1, 6):
        _, probabilities = model_1([block], 30, iterations)
        found.append(np.log(np.add.reduceat(probabilities[block.which], block.starts)).sum())
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_learnt_in_blocks_as_at_once():
    pairs = drawn(20)
    together, parted = (
        model_1([links(part, 30) for part in parts], 30, 3) for parts in ([pairs], (pairs[:7], pairs[7:]))
    )
    assert together[0].tolist() == parted[0].tolist()
    assert_allclose(together[1], parted[1])


def test_a_sentence_without_pieces_links_nothing():
    alone, beside = links(PAIRS[:1], 9), links([([], []), PAIRS[0], ([4], [])], 9)
    assert [part.tolist() for part in alone] == [part.tolist() for part in beside]


# ---- what is kept ----


def test_the_likeliest_are_kept_best_first():
    pairs = np.array([source * 9 + target for source, target in TYPES])
    probabilities = np.array([0.2, 0.5, 0.3, 0.1, 0.9, 0.4, 0.2, 0.4])
    found = likeliest(pairs, probabilities, (7, 9), best=2)
    assert found.tolist() == [[0, 0], [0, 0], [0, 0], [7, 8], [7, 6], [6, 8], [0, 0]]
    assert likeliest(pairs, probabilities, (7, 9), best=3)[3:5].tolist() == [[7, 8, 6], [7, 6, 0]]


def test_a_corpus_translated_word_for_word_is_learnt():
    sources = [source for source, _ in drawn(300)]
    found = learn(Corpus([(source, [word + 100 for word in source]) for source in sources]), (30, 130), 1, 3)
    assert found.best[4:, 0].tolist() == list(range(104, 130))
    often = np.bincount(np.concatenate(sources)).argsort(kind="stable")[::-1][:3]
    assert found.common.nonzero()[:, 0].tolist() == [0, 1, 2, 3, *sorted(often + 100)]


@pytest.mark.parametrize(("most", "rows"), [(12, [0, 1, 2, 3, 4, 5]), (11, [0, 2, 4]), (4, [0, 3]), (1, [0])])
def test_of_too_much_text_every_nth_pair_is_read(monkeypatch, most, rows):
    corpus = Corpus([([number], []) for number in range(6)])  # of two links each, EOS counted on both sides
    monkeypatch.setattr(module, "LINKS", most)
    for block in (1, 5, 100):
        monkeypatch.setattr(module, "BLOCK", block)
        assert [pair[0].tolist() for pairs in sampled(corpus) for pair in pairs] == [[number] for number in rows]


# ---- candidates ----

BEST = torch.tensor([[0, 0], [0, 0], [0, 0], [9, 0], [5, 6], [6, 8]], dtype=torch.int32)
COMMON = torch.tensor([1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.bool)


def test_candidates_by_hand():
    ids, allowed = Shortlist(BEST, COMMON).candidates(torch.tensor([[4, 3, 0], [5, 4, 3], [3, 0, 0]]))
    assert ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [ids[row].tolist() for row in allowed] == [
        [0, 1, 2, 3, 5, 6, 7, 9],
        [0, 1, 2, 3, 5, 6, 7, 8, 9],
        [0, 1, 2, 3, 7, 9],
    ]


def test_two_shortlists_allow_what_either_does():
    other = Shortlist(torch.tensor([[0], [0], [0], [0], [10], [0]], dtype=torch.int32), COMMON.roll(1))
    ids, _ = Shortlist(BEST, COMMON).plus(other).candidates(torch.tensor([[4, 3]]))
    assert ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


# ---- the file ----


def test_it_is_read_back_and_what_is_wrong_with_it_is_said(tmp_path, trained):
    tokenizers = Tokenizers.load(trained)
    path = tmp_path / module.FILE
    with pytest.raises(
        FileNotFoundError, match=r"has no shortlist\.safetensors: run the command that trained it again"
    ):
        load_shortlist(tmp_path, tokenizers)
    size = tokenizers.target.size
    written = Shortlist(torch.arange(2 * size, dtype=torch.int32).view(size, 2), torch.arange(size) % 3 == 0)
    save_tensors(written._asdict(), path)
    for left, right in zip(load_shortlist(tmp_path, tokenizers), written, strict=True):
        assert torch.equal(left, right)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"shortlist\.safetensors is damaged: remove it, and run the command"):
        load_shortlist(tmp_path, tokenizers)
    save_tensors(Shortlist(BEST, COMMON)._asdict(), path)
    with pytest.raises(ValueError, match=r"shortlist\.safetensors is of another vocabulary: remove it"):
        load_shortlist(tmp_path, tokenizers)
