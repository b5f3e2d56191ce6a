"""Numbers of problems that are asked for."""

from pipeline.questions.quotas import Cell, even_quotas, next_tasks

A, B = Cell("new", "algebra", "1"), Cell("new", "algebra", "2")


def rows(cell: Cell, num_kept: int, num_rejected: int) -> list[dict]:
    values = cell._asdict()
    return [values | {"is_kept": index < num_kept} for index in range(num_kept + num_rejected)]


def test_problems_are_shared_evenly():
    assert even_quotas([A, B], 7) == {A: 4, B: 3} and even_quotas([A, B], 1) == {A: 1, B: 0}


def test_at_first_half_of_what_is_written_should_be_kept():
    assert next_tasks({A: 4, B: 2}, [], num_samples=2, max_written=99) == [A, B, A, B, A, A]


def test_a_cell_is_asked_for_what_it_lacks_by_the_share_it_kept():
    """A keeps 3 of 10, taken as 4 / 12, and lacks 1: it needs 3 more. B has all it needs."""
    written = rows(A, 3, 7) + rows(B, 2, 0)
    assert next_tasks({A: 4, B: 2}, written, num_samples=1, max_written=99) == [A, A, A]
    assert next_tasks({A: 4, B: 2}, written, num_samples=2, max_written=99) == [A, A]


def test_it_ends_when_all_is_there_or_nothing_more_may_be_written():
    assert next_tasks({A: 3, B: 2}, rows(A, 3, 9) + rows(B, 2, 0), num_samples=1, max_written=99) == []
    assert next_tasks({A: 9}, rows(A, 0, 8), num_samples=2, max_written=12) == [A, A]
    assert next_tasks({A: 9}, rows(A, 0, 12), num_samples=2, max_written=13) == []
    assert len(next_tasks({A: 9}, rows(A, 0, 5000), num_samples=1, max_written=5600)) == 600
