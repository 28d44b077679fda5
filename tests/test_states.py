import itertools

import pytest
import torch

from nmt.states import Picked, leaving, select


@pytest.mark.parametrize(
    "over", [list(over) for size in range(6) for over in itertools.product([False, True], repeat=size)]
)
def test_those_that_stay_keep_their_places_and_the_last_fill_the_gaps(over):
    gone = leaving(over, torch.device("cpu"))
    if not any(over):
        assert gone is None
        return
    assert gone is not None
    staying = [place for place, left in enumerate(over) if not left]
    assert sorted(gone.order) == staying
    in_place = [place for place, sentence in enumerate(gone.order) if place == sentence]
    assert in_place == [place for place in staying if place < len(staying)]
    assert len(gone.moved) == len(staying) - len(in_place) <= sum(over)
    part = torch.arange(2 * len(over)).view(-1, 2)
    closed = gone.close(part)
    assert closed[:, 0].tolist() == [2 * sentence for sentence in gone.order]
    assert not closed.numel() or closed.data_ptr() == part.data_ptr()


def test_two_views_of_one_memory_may_both_be_closed():
    gone = leaving([True, False, False, True, False], torch.device("cpu"))
    assert gone is not None
    memory = torch.arange(5)
    closed = select((memory, memory[:]), gone, None)
    assert [part.tolist() for part in closed] == [gone.order, gone.order]


def test_of_what_is_picked_only_the_numbers_are_taken():
    whole = torch.arange(5)
    once = select((Picked(whole), whole), torch.tensor([4, 1, 1]), None)
    twice = select(once, torch.tensor([2, 0]), None)
    assert [picked.rows.tolist() for picked, _ in (once, twice)] == [[4, 1, 1], [1, 4]]
    for picked, taken in (once, twice):
        assert picked.whole is whole
        assert picked.whole[picked.rows].equal(taken)
    assert select(Picked(whole), None, None).rows is None
