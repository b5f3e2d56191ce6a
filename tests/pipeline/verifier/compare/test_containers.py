import operator

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.verifier.compare.containers import same_items, same_matrix
from pipeline.verifier.reading.tree import Node, number

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
ITEMS = st.lists(st.integers(0, 5).map(number), min_size=2, max_size=6)
SHUFFLED = ITEMS.flatmap(lambda items: st.tuples(st.just(items), st.permutations(items)))


def group(brackets: str, items: list[Node]) -> Node:
    return Node("group", (*brackets, *items))


def bare(items: list[Node]) -> Node:
    return Node("list", ((",",) * (len(items) - 1), *items))


def same(answer: Node, gold: Node) -> bool:
    return same_items(answer, gold, operator.eq, is_repeat=operator.eq)


@given(SHUFFLED)
@LAWS
def test_sets_and_bare_lists_have_no_order_and_tuples_have_one(pair):
    items, shuffled = pair
    assert same(bare(items), bare(shuffled))
    assert same(group("{}", items), group("{}", shuffled))
    assert same(group("()", items), group("()", shuffled)) == (items == shuffled)
    assert same(bare(items), group("()", shuffled)) == (items == shuffled)
    assert not same(group("{}", items), group("()", items))


@given(ITEMS, ITEMS)
@LAWS
def test_sets_are_equal_when_they_have_the_same_elements(left, right):
    assert same(group("{}", left), group("{}", right)) == (set(left) == set(right))
    assert same(group("{}", left + left), group("{}", left))
    assert same(bare(left), bare(right)) == (sorted(left) == sorted(right))


@given(ITEMS)
@LAWS
def test_a_bare_list_lacks_no_item(items):
    assert not same(bare(items[1:] if len(items) > 2 else [*items, *items]), bare(items))


def test_an_open_interval_is_not_a_closed_one():
    ends = [number(2), number(5)]
    assert not same(group("()", ends), group("[]", ends))
    assert same(group("()", [*ends, number(7)]), group("[]", [*ends, number(7)]))


def test_matrices_are_compared_by_rows():
    one, two = number(1), number(2)
    matrix = Node("matrix", ((one, two), (two, one)))
    rows = group("[]", [group("[]", [one, two]), group("[]", [two, one])])
    assert same_matrix(matrix, rows, operator.eq)
    assert same_matrix(Node("matrix", ((one,), (two,))), group("()", [one, two]), operator.eq)
    assert not same_matrix(Node("matrix", ((one, two),)), group("()", [one, two]), operator.eq)
    assert not same_matrix(matrix, Node("matrix", ((one, two),)), operator.eq)
