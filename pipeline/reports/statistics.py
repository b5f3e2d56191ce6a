"""pass@k, maj@k, intervals and paired comparisons. Pure functions; random draws are seeded."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 10_000
EXACT_FLIPS = 12
_BLOCK = 500


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that one of k completions, drawn without replacement, is correct: 1 - C(n-c, k) / C(n, k).

    Unbiased for k independent completions.

    Raises:
        ValueError: k is below 1 or above ``num_samples``.

    Source: Codex, arXiv:2107.03374, equation 1.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be from 1 to {num_samples}, got {k}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_is_correct(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> bool:
    """True if the most frequent answer to a problem is correct. In a tie the answer that came first wins.

    Correct completions vote together, however they write the answer; ``None`` (no answer) does not vote.

    Args:
        answers: one per completion; equal values count as the same answer.
        correct: the grader's verdict on each completion.
    """
    votes: Counter[Hashable] = Counter()
    for answer, is_correct in zip(answers, correct, strict=True):
        if is_correct:
            votes["correct", True] += 1
        elif answer is not None:
            votes["incorrect", answer] += 1
    return bool(votes) and votes.most_common(1)[0][0] == ("correct", True)


def ks_up_to(num_samples: int) -> list[int]:
    """Powers of two up to ``num_samples``, and ``num_samples`` itself."""
    powers = [2**power for power in range(num_samples.bit_length()) if 2**power <= num_samples]
    return sorted({*powers, num_samples})


def wilson_interval(frac: float, num_problems: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a share, by default at 95 %. Wilson, 1927."""
    if not num_problems:
        return 0.0, 1.0
    scale = 1 + z * z / num_problems
    center = (frac + z * z / (2 * num_problems)) / scale
    half = z / scale * math.sqrt(frac * (1 - frac) / num_problems + z * z / (4 * num_problems**2))
    return max(center - half, 0.0), min(center + half, 1.0)


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean share over problems: ``NUM_DRAWS`` draws with replacement.

    Two problems are added to the pool, one always solved and one never. Without them, thirty problems that no
    completion solves would give an interval of width zero; with them, coverage is 95 % for 10 to 150 skewed problems
    (tests).

    Args:
        values: [num_problems], shares in [0, 1].
    """
    return percentile_interval(_bootstrap_means([*values, 0.0, 1.0], seed), confidence) if len(values) else (0.0, 1.0)


def _bootstrap_means(values: Sequence[float], seed: int = 0) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    blocks = (array[random.integers(0, len(array), (_BLOCK, len(array)))] for _ in range(NUM_DRAWS // _BLOCK))
    return np.concatenate([block.mean(axis=1) for block in blocks])


def sign_flip_p(changes: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test: if both are equally good, the sign of every change is random.

    Exact for up to ``EXACT_FLIPS`` non-zero changes, otherwise estimated from ``NUM_DRAWS`` draws.

    Source: Fisher, 1935.
    """
    array = np.asarray([change for change in changes if change], dtype=np.float64)
    if not len(array):
        return 1.0
    observed = abs(float(array.sum())) - 1e-9
    if len(array) <= EXACT_FLIPS:
        signs = np.array(list(product((-1, 1), repeat=len(array)))).reshape(-1, len(array))
        return float(np.mean(abs(signs @ array) >= observed))
    random = np.random.default_rng(seed)
    blocks = (random.choice((-1.0, 1.0), (_BLOCK, len(array))) for _ in range(NUM_DRAWS // _BLOCK))
    num_as_far = sum(int(np.count_nonzero(abs(block @ array) >= observed)) for block in blocks)
    return (num_as_far + 1) / (NUM_DRAWS + 1)


def mcnemar_p(num_only_a: int, num_only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: are problems solved by only one of two models split evenly?

    Source: McNemar, 1947; exact form: a sign test on the discordant pairs.
    """
    total, fewer = num_only_a + num_only_b, min(num_only_a, num_only_b)
    p: float = 2 * sum(math.comb(total, i) for i in range(fewer + 1)) / 2**total
    return min(1.0, p)


def percentile_interval(replicates: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """B against A, on the problems that both answered."""

    a: str
    b: str
    num_problems: int
    accuracy_a: float
    accuracy_b: float
    interval: tuple[float, float]
    """Interval of the difference, B minus A, at ``confidence``. Paired bootstrap over problems."""
    test: str
    """``McNemar`` if both have one completion per problem, otherwise ``sign-flip``. It decides the verdict."""
    p: float
    num_only_a: float
    """Number of problems that A solves and B does not, by shares of completions."""
    num_only_b: float
    verdict: str
    """``better``, ``worse`` or ``cannot tell``."""
    confidence: float

    @property
    def difference(self) -> float:
        return self.accuracy_b - self.accuracy_a

    @property
    def sentence(self) -> str:
        low, high = self.interval
        figures = (
            f"{100 * self.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], {100 * self.confidence:.4g} % "
            f"interval, on {self.num_problems} shared problems; {self.test} test, p = {self.p:.2g}, decided at "
            f"{1 - self.confidence:.2g}"
        )
        if self.verdict == "cannot tell":
            return f"Cannot tell {self.b} from {self.a}: {figures}."
        return f"{self.b} is {self.verdict} than {self.a}: {figures}."


def compare_paired(
    a: str, b: str, values_a: Sequence[float], values_b: Sequence[float], *, single: bool, num_comparisons: int = 1
) -> Paired:
    """Judge B against A at the 5 % level, divided by the number of comparisons (Bonferroni).

    Args:
        values_a: share of correct completions of every shared problem, in the same order as ``values_b``.
        single: both have one completion per problem.

    Raises:
        ValueError: there are no problems, or the lengths differ.
    """
    if len(values_a) != len(values_b) or not len(values_a):
        raise ValueError(f"both must have values of the same problems, got {len(values_a)} and {len(values_b)}")
    array_a, array_b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    change = array_b - array_a
    alpha = 0.05 / num_comparisons
    interval = percentile_interval(_bootstrap_means(change.tolist()), 1 - alpha)
    only_a, only_b = float(np.maximum(-change, 0).sum()), float(np.maximum(change, 0).sum())
    test, p = (
        ("McNemar", mcnemar_p(round(only_a), round(only_b))) if single else ("sign-flip", sign_flip_p(change.tolist()))
    )
    differs = p < alpha
    verdict = "cannot tell" if not differs else "better" if change.mean() > 0 else "worse"
    return Paired(
        a=a,
        b=b,
        num_problems=len(change),
        accuracy_a=float(array_a.mean()),
        accuracy_b=float(array_b.mean()),
        interval=interval,
        test=test,
        p=p,
        num_only_a=only_a,
        num_only_b=only_b,
        verdict=verdict,
        confidence=1 - alpha,
    )
