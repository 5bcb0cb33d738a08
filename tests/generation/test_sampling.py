"""Tokens that would repeat a run of ids, against a loop over all earlier runs."""

import torch

from strawberry.generation.sampling import Sampling, without_repeats

VOCABULARY = 5


def repeats(row, length):
    """The ids that would make the last `length` ids a run that was there before."""
    tail = row[len(row) - length + 1 :]
    starts = range(len(row) - length + 1)
    return {row[s + length - 1] for s in starts if row[s : s + length - 1] == tail}


def test_runs_are_not_repeated():
    """Exactly the ids that would repeat a run are left out, unless that leaves none."""
    torch.manual_seed(0)
    found = 0
    for length in (2, 3, 4):
        ids = torch.randint(VOCABULARY, (40, 30))
        logits = torch.randn(40, VOCABULARY)
        for row, before, after in zip(
            ids.tolist(), logits, without_repeats(logits, ids, length), strict=True
        ):
            banned = repeats(row, length)
            if len(banned) == VOCABULARY:
                banned = set()
            found += len(banned)
            assert {i for i in range(VOCABULARY) if after[i] == float("-inf")} == banned
            kept = [i for i in range(VOCABULARY) if i not in banned]
            assert torch.equal(after[kept], before[kept])

    assert found > 40


def test_ids_that_are_never_sampled_may_stand_in_the_text():
    """A run may end in an id that has no logit; shorter texts than a run have no repeats."""
    ids = torch.tensor([[1, 9, 1, 2, 1]])
    logits = torch.zeros(1, 4)
    assert without_repeats(logits, ids, 2).isinf().tolist() == [[False, False, True, False]]
    assert without_repeats(logits, ids, 6) is logits


def test_sampling_keeps_out_of_a_loop():
    """A model that wants one token alone gives it twice and then another; as it likes, if cold."""
    logits = torch.tensor([[0.0, 50.0, 0.0]])
    generators = [torch.Generator().manual_seed(0)]
    ids = torch.tensor([[1, 1]])
    sampling = Sampling(no_repeat=2)

    assert sampling.choose(logits, generators, ids).item() != 1
    assert Sampling().choose(logits, generators, ids).item() == 1
    assert Sampling(temperature=0, no_repeat=2).choose(logits, generators, ids).item() == 1
