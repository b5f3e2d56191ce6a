import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.memory.slots import assign_slots, balanced_clusters
from tests.support.properties import examples


def normalized(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def embeddings(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def planted(side: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One entry in each cell of a grid, shuffled: its first half is near its row's direction, its second half near its
    column's. Also rows and columns."""
    generator = np.random.default_rng(seed)
    cells = generator.permutation(side**2)
    rows, columns = cells // side, cells % side
    directions = np.linalg.qr(generator.standard_normal((2 * side, 2 * side)))[0]
    halves = np.concatenate([directions[rows], directions[columns]], axis=1)
    return (halves + noise * generator.standard_normal(halves.shape)).astype(np.float32), rows, columns


def similarity(points: np.ndarray, slots: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """Mean score of the entries' own slots: at most 2."""
    half, side = points.shape[1] // 2, len(rows)
    first = (normalized(points[:, :half]) * rows[slots // side]).sum(axis=1)
    second = (normalized(points[:, half:]) * columns[slots % side]).sum(axis=1)
    return float((first + second).mean())


@examples(30)
@given(st.integers(2, 7), st.data())
def test_every_entry_has_a_slot_of_its_own(side, data):
    count = data.draw(st.integers(1, side**2))
    points = embeddings(count, seed=data.draw(st.integers(0, 2**20)))
    if data.draw(st.booleans()):
        points[:] = points[0]  # duplicates
    slots, rows, columns = assign_slots(points, side, seed=1)
    assert len(set(slots.tolist())) == count
    assert slots.min() >= 0 and slots.max() < side**2
    assert rows.shape == columns.shape == (side, 4)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([rows, columns]), axis=1), 1, rtol=1e-5)


def test_the_same_seed_gives_the_same_slots():
    first, again, other = (assign_slots(embeddings(49), 7, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[part], again[part]) for part in range(3))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(("side", "seed"), [(2, 0), (3, 1), (6, 2), (12, 3)])
def test_entries_that_were_planted_in_a_grid_get_their_grid(side, seed):
    points, rows, columns = planted(side, noise=0.01, seed=seed)
    slots, row_keys, column_keys = assign_slots(points, side, seed)
    for planted_labels, found in ((rows, slots // side), (columns, slots % side)):
        assert len({*zip(planted_labels.tolist(), found.tolist(), strict=True)}) == side
    assert similarity(points, slots, row_keys, column_keys) > 1.99


def test_slots_are_nearer_than_random_ones():
    points = embeddings(400, dim=16)
    slots, rows, columns = assign_slots(points, 20, seed=0)
    shuffled = np.random.default_rng(0).permutation(slots)
    assert similarity(points, slots, rows, columns) > 0.9 > 0.2 > similarity(points, shuffled, rows, columns)


@pytest.mark.parametrize(("count", "clusters", "capacity"), [(12, 3, 4), (5, 3, 4), (7, 8, 1), (9, 3, 9)])
def test_no_cluster_is_over_its_capacity(count, clusters, capacity):
    labels, centres = balanced_clusters(normalized(embeddings(count)), clusters, capacity, seed=0)
    counts = np.bincount(labels, minlength=clusters)
    assert counts.sum() == count and counts.max() <= capacity
    assert centres.shape == (clusters, 8)


def test_clusters_with_room_are_those_of_k_means():
    """Two bundles of directions."""
    angles = np.array([0.0, 0.1, -0.1, 3.0, 3.1, 3.2])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels, centres = balanced_clusters(points, 2, 6, seed=0)
    assert len(set(labels[:3])) == len(set(labels[3:])) == 1 and labels[0] != labels[3]
    means = [normalized(points[part].mean(axis=0)) for part in (slice(3), slice(3, 6))]
    np.testing.assert_allclose(centres[[labels[0], labels[3]]], means, atol=1e-6)
