"""Assigns entries to the slots of product keys, so that a slot's key is near its entry.

Rows are clusters of equal size of the entries' first halves. Within a row, entries are matched with columns, which are
clusters of the second halves.

Shapes: E entries in a knowledge space of K dimensions; S rows and S columns, S^2 >= E.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.seeds import derive_seed

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

NUM_ROUNDS = 5
"""Rounds in which clusters are moved to the means of their members."""
NUM_LARGE_ROUNDS = 1
"""As many for the columns of a grid with more than ``LARGE_SIDE`` of them: matching a row costs about S^3 operations,
and each round matches every row."""
LARGE_SIDE = 256
_BLOCK = 2**16


def assign_slots(embeddings: Floats, side: int, seed: int) -> tuple[Indices, Floats, Floats]:
    """Slots of the entries, and the product keys.

    Args:
        embeddings: [E, K]. Both halves are normalized in place: a copy of a large bank takes gigabytes.
        side: S.

    Returns:
        slots [E], all different; rows [S, K/2] and columns [S, K/2], the means of their entries' halves.
    """
    first, second = np.split(embeddings, 2, axis=1)
    first /= _lengths(first)
    second /= _lengths(second)
    rows, row_keys = balanced_clusters(first, side, side, seed)
    _, column_keys = balanced_clusters(second, side, side, seed + 1)
    columns = _matched_columns(second, rows, column_keys)
    for _ in range(NUM_ROUNDS if side <= LARGE_SIDE else NUM_LARGE_ROUNDS):
        column_keys = _means(second, columns, column_keys)
        columns = _matched_columns(second, rows, column_keys)
    return rows * side + columns, row_keys, _means(second, columns, column_keys)


def balanced_clusters(points: Floats, num_clusters: int, capacity: int, seed: int) -> tuple[Indices, Floats]:
    """K-means with at most ``capacity`` points in a cluster: labels [E] and centres.

    Args:
        points: [E, D] of length 1.
    """
    generator = np.random.default_rng(derive_seed(seed, "clusters"))
    chosen = generator.choice(len(points), num_clusters, replace=len(points) < num_clusters)
    centres = points[chosen]
    labels = np.zeros(len(points), np.int64)
    for _ in range(NUM_ROUNDS):
        labels = _with_room(points, centres, capacity)
        centres = _means(points, labels, centres)
    return labels, centres


def _with_room(points: Floats, centres: Floats, capacity: int) -> Indices:
    """The most similar centre of each point that has room. In every round each centre takes the most similar of the
    points that ask for it, and the others ask for another."""
    labels, room = np.full(len(points), -1), np.full(len(centres), capacity)
    left = np.arange(len(points))
    while len(left):
        choice, similarity = _nearest(points[left], np.where(room[:, None] > 0, centres, np.nan))
        order = np.lexsort((-similarity, choice))
        ranks = np.arange(len(left)) - np.searchsorted(choice[order], choice[order])
        taken = order[ranks < room[choice[order]]]
        labels[left[taken]] = choice[taken]
        room -= np.bincount(choice[taken], minlength=len(centres))
        left = np.delete(left, taken)
    return labels


def _nearest(points: Floats, centres: Floats) -> tuple[Indices, Floats]:
    """The most similar centre of each point, and the similarity. Centres that are NaN are full."""
    is_full = np.isnan(centres[:, 0])
    known = np.nan_to_num(centres)
    choices, similarities = [], []
    for start in range(0, len(points), _BLOCK):
        products = points[start : start + _BLOCK] @ known.T
        products[:, is_full] = -np.inf
        choices.append(products.argmax(axis=1))
        similarities.append(products.max(axis=1))
    return np.concatenate(choices), np.concatenate(similarities)


def _matched_columns(points: Floats, rows: Indices, column_keys: Floats) -> Indices:
    """Within each row, the assignment of its entries to different columns with the highest sum of similarities."""
    from scipy.optimize import linear_sum_assignment

    columns = np.full(len(points), -1)
    order = np.argsort(rows, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
        own, matched = linear_sum_assignment(points[members] @ column_keys.T, maximize=True)
        columns[members[own]] = matched
    return columns


def _means(points: Floats, labels: Indices, before: Floats) -> Floats:
    """Normalized mean of each cluster's points; an empty cluster stays where it was."""
    from scipy.sparse import csr_array

    members = csr_array(
        (np.ones(len(points), np.float32), (labels, np.arange(len(points)))), (len(before), len(points))
    )
    counts = np.bincount(labels, minlength=len(before))
    sums = members @ points
    return np.where(counts[:, None] > 0, sums / _lengths(sums), before)


def _lengths(points: Floats) -> Floats:
    """[..., 1], above 0, without a second array of the points' size."""
    squares = np.einsum("ij,ij->i", points, points)[:, None]
    return np.asarray(np.maximum(np.sqrt(squares), 1e-12), np.float32)
