import sys

import pytest

from pipeline.config import RewardConfig, RewardTerm
from pipeline.config.engines import ZScoreConfig
from pipeline.errors import ClusterError, RewardError
from pipeline.rewards.registry import resolve
from pipeline.rewards.scoring import Scorer, call
from pipeline.types import Completion, Problem, RolloutGroup, WeightId
from pipeline.verifier import Grader

DEFAULT_TERMS = RewardConfig().functions


def make_group(*texts: str, gold: str = "72") -> RolloutGroup:
    problem = Problem(id="p0", prompt=({"role": "user", "content": "How many?"},), gold=gold)
    completions = tuple(Completion.of((1, 2), (-0.5, -0.5), text, "stop") for text in texts)
    return RolloutGroup(problem, (1,), completions, WeightId(0, 0))


def score_group(group, terms, grader):
    verdicts = grader.grade_batch([(completion.text, group.problem.gold) for completion in group.completions])
    return Scorer(RewardConfig(functions=terms)).score(group, verdicts)


@pytest.fixture(scope="module")
def grader():
    with Grader() as shared:
        yield shared


@pytest.mark.parametrize(
    ("text", "correctness", "num_tags", "outcome"),
    [
        ("<reasoning>48 + 24</reasoning>\n<answer>72</answer>", 2.0, 4, "correct"),
        ("<reasoning>48 + 24</reasoning>\n<answer>72.0</answer>", 1.5, 4, "correct"),
        ("<reasoning>48 + 24</reasoning>\n<answer>48 + 24 = 72</answer>", 1.5, 4, "correct"),
        ("<reasoning>48 + 25</reasoning>\n<answer>73</answer>", 0.0, 4, "incorrect"),
        ("<reasoning>48 + 24</reasoning>\n<answer></answer>", 0.0, 4, "unparsed"),
        ("48 + 24 = 72\n<answer>72</answer>", 2.0, 2, "correct"),
        ("<reasoning>48 + 24 = 72, so <answer>72", 0.0, 2, "unparsed"),
        ("#### 72", 2.0, 0, "correct"),
        ("I do not know.", 0.0, 0, "unparsed"),
        ("", 0.0, 0, "unparsed"),
    ],
)
def test_default_reward_is_correctness_plus_a_fifth_per_tag(text, correctness, num_tags, outcome, grader):
    (breakdown,) = score_group(make_group(text), DEFAULT_TERMS, grader)
    assert breakdown.parts == {"correctness": correctness, "format": pytest.approx(0.2 * num_tags)}
    assert breakdown.total == pytest.approx(correctness + 0.2 * num_tags)
    assert breakdown.outcome == outcome


def test_parts_are_unweighted_and_the_total_is_weighted(grader):
    terms = [RewardTerm(name="correctness", weight=0.5), RewardTerm(name="format", weight=-1.0)]
    first, second = score_group(make_group("<answer>72</answer>", "7"), terms, grader)
    assert first.parts == {"correctness": 2.0, "format": pytest.approx(0.4)}
    assert first.total == pytest.approx(0.6)  # 0.5 x 2.0 - 0.4
    assert (second.parts, second.total) == ({"correctness": 0.0, "format": 0.0}, 0.0)


def test_bad_gold_is_never_rewarded(grader):
    for gold in ("", "  ", "$"):
        (breakdown,) = score_group(make_group("<answer>$</answer>", gold=gold), DEFAULT_TERMS, grader)
        assert (breakdown.outcome, breakdown.parts["correctness"]) == ("bad_gold", 0.0)


PLUGIN = """
def rank(group, verdicts):
    return [index / len(group.completions) for index in range(len(verdicts))]

def short(group, verdicts): return [1.0]
def huge(group, verdicts): return [1e39] * len(verdicts)
def digits(group, verdicts): return [10**400] * len(verdicts)
def large(group, verdicts): return [3e38] * len(verdicts)
def infinite(group, verdicts): return [float("inf")] * len(verdicts)
def words(group, verdicts): return ["high"] * len(verdicts)
def nothing(group, verdicts): return None
limit = 3
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(PLUGIN)
    (tmp_path / "broken_rewards.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_rewards", None)


def test_plugin_sees_the_whole_group(plugin, grader):
    scored = score_group(make_group("1", "2", "3", "4"), [RewardTerm(name="my_rewards:rank", weight=4.0)], grader)
    assert [breakdown.total for breakdown in scored] == [0.0, 1.0, 2.0, 3.0]
    assert scored[1].parts == {"my_rewards:rank": 0.25}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("short", "must return 2 values, one per completion, got 1"),
        ("infinite", "finite"),
        ("huge", "finite in float32"),
        ("digits", "one number per completion"),
        ("words", "one number per completion"),
        ("nothing", "one number per completion, got None"),
    ],
)
def test_wrong_values_of_a_plugin_are_an_error_that_names_it(name, reason, plugin, grader):
    with pytest.raises(RewardError, match=reason) as error:
        score_group(make_group("1", "2"), [RewardTerm(name=f"my_rewards:{name}")], grader)
    assert f"my_rewards:{name}" in str(error.value)


def test_a_total_that_is_not_finite_in_float32_is_an_error_that_names_its_terms(plugin, grader):
    terms = [RewardTerm(name="my_rewards:large", weight=2.0), RewardTerm(name="format")]
    with pytest.raises(RewardError, match=r"weighted sum of rewards \(2 my_rewards:large, 1 format\) must be finite"):
        score_group(make_group("1"), terms, grader)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("corectness", "Did you mean correctness?"),
        ("zzz", "checked or correctness or"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("my_rewards:absent", "has no attribute 'absent'"),
        ("my_rewards:", "has no attribute ''"),
        (":f", "Empty module name"),
        ("broken_rewards:f", "ZeroDivisionError"),
        ("my_rewards:limit", "must be a function or a class, got int"),
    ],
)
def test_unknown_reward_is_a_one_line_error_that_names_it(name, reason, plugin):
    with pytest.raises(RewardError) as error:
        resolve(name)
    message = str(error.value)
    assert name in message and reason in message and "\n" not in message


def test_ordinary_rewards_are_normalised_part_by_part(grader):
    config = RewardConfig(normalize="zscore", zscore=ZScoreConfig(warmup=2))
    raw = {"correctness": [0.0, 2.0], "format": [0.4, 0.8]}  # means 1 and 0.6, deviations 1 and 0.2
    group = make_group("<answer>72</answer>", "7")
    verdicts = grader.grade_batch([(completion.text, group.problem.gold) for completion in group.completions])
    first, second = Scorer(config).score(group, verdicts, {"raw": raw})
    assert first.parts == {"correctness": 2.0, "format": pytest.approx(0.4)}  # raw
    assert [first.total, second.total] == pytest.approx([1.0 - 1.0, -1.0 - 3.0])
    plain, _ = Scorer(RewardConfig()).score(group, verdicts, {"raw": raw})
    assert plain.total == pytest.approx(2.4)  # off by default


def test_a_failure_of_the_cluster_stays_one_so_that_the_stage_restarts():
    def asks_an_engine(group, verdicts):
        raise ClusterError("no engine answers")

    with pytest.raises(ClusterError, match="no engine answers"):
        call("solvable", asks_an_engine, make_group("1"), [])
