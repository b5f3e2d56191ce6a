import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.attention import PackedGroup
from pipeline.training.batching import TokenSequence, micro_batches, padding_frac
from tests.support.sequences import CPU, SEQUENCES, sequence

# Layout ------------------------------------------------------------------------------------------


def test_a_micro_batch_holds_the_targets_from_the_first_completion_on():
    (batch,) = micro_batches([TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))], 100, CPU)
    assert batch.rows == (1, 0)  # the longest first
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 4, 0]]
    assert batch.positions.tolist() == [1, 2, 3]  # 1 predicts 2, where the earlier completion starts
    assert batch.targets.tolist() == [[7, 8, 9], [3, 4, 0]]
    assert batch.completion_mask.tolist() == [[True, True, True], [False, True, False]]


def test_scatter_lays_values_of_the_original_rows_over_the_targets():
    (batch,) = micro_batches([TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))], 100, CPU)
    assert batch.scatter([(-0.25,), (-1.0, -2.0, -3.0)]).tolist() == [[-1.0, -2.0, -3.0], [0.0, -0.25, 0.0]]


def test_the_split_by_hand():
    # Lengths 7, 10, 14, 2, 12, 11. Longest first: 14 + 12 as 2 x 14 = 28; 11 + 10 as 22, a third would be 33; 7 + 2.
    assert [batch.rows for batch in micro_batches(SEQUENCES, 30, CPU)] == [(2, 4), (5, 1), (0, 3)]


def test_the_split_depends_on_lengths_alone():
    others = [sequence(len(s.prompt), len(s.completion), seed=1) for s in SEQUENCES]
    assert [b.rows for b in micro_batches(SEQUENCES, 30, CPU)] == [b.rows for b in micro_batches(others, 30, CPU)]
    same_length = [sequence(2, 3, seed) for seed in range(5)]
    assert [b.rows for b in micro_batches(same_length, 10, CPU)] == [(0, 1), (2, 3), (4,)]  # ties stay in order


def test_no_sequences_make_no_micro_batch():
    assert micro_batches([], 100, CPU) == []


# Packed ------------------------------------------------------------------------------------------


def test_a_packed_row_by_hand():
    sequences = [TokenSequence((1, 2, 3), (4,)), TokenSequence((5, 6), (7, 8, 9))]
    (batch,) = micro_batches(sequences, 100, CPU, packing=True, pad_to_multiple_of=6)
    assert batch.rows == (1, 0)  # the longest first
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4, 0, 0, 0]]
    assert batch.groups == (PackedGroup(5), PackedGroup(4), PackedGroup(3))  # the last is padding
    assert batch.positions.tolist() == [1, 2, 3, 7, 0, 0]
    assert batch.targets.tolist() == [[7, 8, 9, 4, 0, 0]]
    assert batch.completion_mask.tolist() == [[True, True, True, True, False, False]]
    assert batch.owners.tolist() == [[1, 1, 1, 0, 1, 1]]
    assert batch.scatter([(-0.25,), (-1.0, -2.0, -3.0)]).tolist() == [[-1.0, -2.0, -3.0, -0.25, 0.0, 0.0]]
    assert padding_frac([batch], 9) == 0.25


def test_packs_leave_the_least_room():
    # Lengths 7, 10, 14, 2, 12, 11, longest first into rows of 24: 14 | 12 | 11 to the 12, which leaves 1 | 10 to the
    # 14, which leaves 0 | 7 alone | 2 to the 7.
    batches = micro_batches(SEQUENCES, 24, CPU, packing=True)
    assert [batch.rows for batch in batches] == [(2, 1), (4, 5), (0, 3)]


# Shared prompts ----------------------------------------------------------------------------------

GROUPS = [TokenSequence((1, 2), (3, 4)), TokenSequence((9,), (8, 7)), TokenSequence((1, 2), (5, 6, 7))]


def test_a_row_with_a_shared_prompt_by_hand():
    (batch,) = micro_batches(GROUPS, 100, CPU, share_prompts=True, pad_to_multiple_of=4)
    assert batch.rows == (2, 0, 1)  # the longest completion first
    assert batch.input_ids.tolist() == [[1, 2, 5, 6, 3, 9, 8, 0]]  # last tokens predict nothing
    assert batch.groups == (PackedGroup(2, (2, 1)), PackedGroup(2), PackedGroup(1))  # the last is padding
    assert batch.positions.tolist() == [1, 2, 3, 1, 4, 5, 6, 0]  # 2 predicts the first token of both completions
    assert batch.targets.tolist() == [[5, 6, 7, 3, 4, 8, 7, 0]]
    assert batch.completion_mask.tolist() == [[True] * 7 + [False]]
    assert batch.owners.tolist() == [[2, 2, 2, 0, 0, 1, 1, 2]]


def test_a_group_that_does_not_fit_is_split_into_as_few_parts_as_its_lengths_allow():
    # A prompt of 4 tokens leaves 10 of 14. Of completions of 8, 7, 5, 4, 3 tokens 7, 6, 4, 3, 2 are computed:
    # 7 + 3 | 6 + 4 | 2.
    group = [TokenSequence((1, 2, 3, 4), range(length)) for length in (3, 4, 5, 7, 8)]
    batches = micro_batches(group, 14, CPU, share_prompts=True)
    assert [batch.rows for batch in batches] == [(4, 1), (3, 2), (0,)]
    assert [batch.input_ids.numel() for batch in batches] == [14, 14, 6]


def test_sequences_may_be_arrays():
    arrays = TokenSequence(np.array([1, 2], dtype=np.int32), np.array([3], dtype=np.int32))
    assert arrays == TokenSequence((1, 2), (3,))
    assert type(arrays.prompt[0]) is int


# Laws --------------------------------------------------------------------------------------------

LAWS = settings(max_examples=50, deadline=None, derandomize=True)
kinds = st.sampled_from([{}, {"packing": True}, {"share_prompts": True}])
layouts = st.builds(
    lambda max_tokens, multiple, kind: {"max_tokens": max_tokens, "pad_to_multiple_of": multiple, **kind},
    st.integers(1, 48),
    st.sampled_from([1, 3, 8]),
    kinds,
)


@st.composite
def sequence_lists(draw):
    lengths = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=12))
    prompts = [sequence(length, 0).prompt for length in range(4)]  # one of each length
    return [TokenSequence(prompts[p], sequence(0, c, seed).completion) for seed, (p, c) in enumerate(lengths)]


@LAWS
@given(sequence_lists(), layouts)
def test_every_sequence_is_in_one_micro_batch_and_none_is_over_budget_unless_alone(sequences, layout):
    batches = micro_batches(sequences, device=CPU, **layout)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(sequences)))
    assert all(batch.input_ids.numel() <= layout["max_tokens"] or len(batch.rows) == 1 for batch in batches)


@LAWS
@given(sequence_lists(), layouts)
def test_rows_are_padded_to_the_multiple_and_no_further(sequences, layout):
    multiple = layout["pad_to_multiple_of"]
    for batch in micro_batches(sequences, device=CPU, **layout):
        lengths = [len(sequences[row]) for row in batch.rows]
        needed = sum(lengths) if layout.get("packing") else max(lengths)
        if layout.get("share_prompts"):
            prompts = {sequences[row].prompt for row in batch.rows}
            needed = sum(map(len, prompts)) + sum(len(sequences[row].completion) - 1 for row in batch.rows)
        assert batch.input_ids.shape[1] == -(-needed // multiple) * multiple


@LAWS
@given(sequence_lists(), layouts)
def test_targets_are_the_completions_and_scatter_finds_them_whatever_the_layout(sequences, layout):
    values = [[100.0 * row + place + 1 for place in range(len(s.completion))] for row, s in enumerate(sequences)]
    for batch in micro_batches(sequences, device=CPU, **layout):
        scattered = batch.scatter(values)
        assert (scattered[~batch.completion_mask] == 0).all()
        for row in batch.rows:
            own = batch.completion_mask & (batch.owners == row)
            assert tuple(batch.targets[own].tolist()) == sequences[row].completion
            assert scattered[own].tolist() == values[row]


TURNS = TokenSequence((1, 2), (3, 4, 5, 6), (True, False, False, True))


def test_only_learned_tokens_of_a_completion_are_targets_that_count():
    plain = TokenSequence((7,), (8, 9))
    (padded,) = micro_batches([TURNS, plain], 100, CPU)
    assert padded.positions.tolist() == [0, 1, 2, 3, 4]
    assert padded.completion_mask.tolist() == [[False, True, False, False, True], [True, True, False, False, False]]
    (packed,) = micro_batches([TURNS, plain], 100, CPU, packing=True)
    assert packed.targets.tolist() == [[3, 4, 5, 6, 8, 9]]
    assert packed.completion_mask.tolist() == [[True, False, False, True, True, True]]
    assert TURNS.num_learned == 2 and plain.num_learned == 2


def test_a_sequence_is_cut_with_its_mask():
    assert TURNS.cut(4) == TokenSequence((1, 2), (3, 4), (True, False))
    assert TURNS.cut(9) == TURNS
    assert TURNS.cut(1) == TokenSequence((1, 2), (), ())
    assert TokenSequence((1, 2), (3, 4)).cut(3) == TokenSequence((1, 2), (3,))
