from pathlib import Path

import pytest

from pipeline.curriculum.chain_results import require_chains
from pipeline.curriculum.findings import judge
from tests.support.search_files import FORGETS_HALF, FORGETS_LITTLE, MIXED, SearchFiles, finished_search


def statements(run_dir: Path) -> list[str]:
    return judge(require_chains(run_dir)).statements


def test_the_statements_compare_and_give_the_trend(tmp_path):
    compared, sloped = statements(finished_search(tmp_path))
    assert compared.startswith("Best by average accuracy: replay_ratio=0.5, +20.0 points against level_order=mixed [")
    # 20 points less at 0.5 than at 0
    assert sloped.startswith("Forgetting falls as the replay ratio rises: -4.0 points for each 0.1 [")


def test_settings_that_did_not_finish_are_left_out_of_the_trend(tmp_path):
    search = SearchFiles(tmp_path).add("r0", FORGETS_HALF, ratio=0.0).add("r5", FORGETS_LITTLE, ratio=0.5)
    run_dir = search.add("r9", FORGETS_LITTLE, ratio=0.9, num_done=1).write()
    assert statements(run_dir)[1].endswith("Settings that did not finish are left out.")


@pytest.mark.parametrize(
    ("chains", "compared", "sloped"),
    [
        ([("a", 0, 0.1, False, 2)], "There is no baseline", "a +55.0 points"),
        ([("a", 0, 0.1, False, 2), ("m", 0, None, True, 0)], "no chain of m has finished", "a +55.0"),
        ([("a", 0, 0.1, False, 0), ("m", 0, None, True, 2)], "only baselines have finished", "m +55.0"),
        ([("a", 0, 0.1, False, 2), ("b", 0, 0.2, False, 1)], "no baseline", "fewer than two replay ratios"),
        ([("a", 0, 0.1, False, 2), ("b", 1, 0.2, False, 2)], "no baseline", "a seed in common"),
        ([("a", 0, 0.1, False, 2), ("m", 1, None, True, 2)], "must have a seed in common", "; m +55.0"),
    ],
)
def test_the_statements_give_the_reason_if_there_is_nothing_to_compare(tmp_path, chains, compared, sloped):
    search = SearchFiles(tmp_path)
    for setting, seed, ratio, baseline, num_done in chains:
        search.add(setting, FORGETS_HALF, seed, ratio=ratio, baseline=baseline, num_done=num_done)
    first, second = statements(search.write())
    assert compared in first and sloped in second


def test_a_search_that_varies_no_replay_ratio_says_what_every_setting_gained(tmp_path):
    search = SearchFiles(tmp_path)
    for seed, right in ((0, 6), (1, 8)):
        search.add("written", [[1, right], [0, right]], seed).add("real", [[1, 5], [0, 5]], seed, baseline=True)
    _, gained = statements(search.write())
    # written: 60 or 80 % of both levels, from 10 and 0 %; real: 50 %
    written, real = gained.removeprefix("Average accuracy gained in training: ").split("; ")
    assert written.startswith("written +65.0 points [+") and written.endswith("] (by seed +55.0, +75.0)")
    assert real.startswith("real +45.0 points [+") and real.endswith("] (by seed +45.0, +45.0).")


def test_a_search_of_several_settings_says_which_are_better_than_the_baseline(tmp_path):
    search = SearchFiles(tmp_path)
    for seed in (0, 1):
        search.add("uniform", [[1, 3], [0, 3]], seed, baseline=True)
        search.add("pools", [[1, 9], [0, 9]], seed).add("bandit", [[1, 3], [0, 3]], seed)
    best, verdict, _ = statements(search.write())
    assert best.startswith("Best by average accuracy: pools, +60.0 points against uniform")
    assert verdict.startswith("Better than uniform beyond the noise: pools +60.0 [")
    assert "; not to be told apart from uniform: bandit +0.0 [" in verdict


def test_a_search_that_was_cut_short_names_the_same_best_twice(tmp_path):
    search = SearchFiles(tmp_path)
    for seed, (uniform, pools) in enumerate([(2, 3), (6, 7)]):
        search.add("uniform", [[1, uniform], [0, uniform]], seed, baseline=True)
        search.add("pools", [[1, pools], [0, pools]], seed)
    search.add("dynamic", [[1, 4], [0, 4]]).add("bandit", [[1, 9], [0, 9]], 2)
    best, verdict, _ = statements(search.write())
    assert best.startswith("Best by average accuracy: dynamic, +20.0 points against uniform")
    assert "; not decided against uniform, for lack of a second seed: dynamic +20.0 [" in verdict


def test_a_search_in_progress_counts_the_settings_to_come(tmp_path):
    def interval(search: SearchFiles) -> tuple[float, float]:
        comparison = judge(require_chains(search.write())).comparison
        assert comparison is not None
        return comparison.interval

    search = SearchFiles(tmp_path)
    for seed in (0, 1):
        search.add("uniform", [[1, 3], [0, 3]], seed, baseline=True).add("pools", [[1, 9], [0, 9]], seed)
    low, high = interval(search)
    for setting in ("bandit", "dynamic", "schedule"):
        search.add(setting, [[1, 3], [0, 3]], num_done=0)
    wider_low, wider_high = interval(search)
    assert wider_low < low and wider_high > high


def test_chains_that_sampled_other_than_the_budget_are_named(tmp_path):
    search = SearchFiles(tmp_path).add_grpo("uniform", 1000, budget=1000, baseline=True)
    search.add_grpo("pools", 1050, budget=1000).add_grpo("dynamic", 1240, budget=1000)
    search.add_grpo("bandit", 940, budget=1000)
    assert statements(search.write())[-1] == (
        "Tokens sampled by GRPO, against the budget of 1,000 (grpo.max_sampled_tokens): dynamic,seed=0 1,240 "
        "(+24.0 %); bandit,seed=0 940 (-6.0 %); all others within 5 %."
    )


def test_without_a_budget_tokens_are_compared_with_the_baseline(tmp_path):
    search = SearchFiles(tmp_path)
    for seed, tokens in enumerate((900, 1100)):
        search.add_grpo("uniform", tokens, seed, baseline=True).add_grpo("pools", 1000, seed)
    assert statements(search.write())[-1] == (
        "Tokens sampled by GRPO, against 1,000, the mean of uniform: uniform,seed=0 900 (-10.0 %); uniform,seed=1 "
        "1,100 (+10.0 %); all others within 5 %."
    )


def test_equal_tokens_are_stated(tmp_path):
    search = SearchFiles(tmp_path).add_grpo("uniform", 1049, budget=1000, baseline=True)
    search.add_grpo("pools", 951, budget=1000).add("sft", MIXED)
    assert statements(search.write())[-1].endswith("(grpo.max_sampled_tokens): all within 5 %.")


def test_a_search_without_a_finished_chain_has_nothing_to_compare(tmp_path):
    run_dir = SearchFiles(tmp_path).add("a", FORGETS_HALF, num_done=0).write()
    assert statements(run_dir) == ["No chain has finished: there is nothing to compare yet."]


def test_without_an_evaluation_before_training_trained_forgetting_is_judged(tmp_path):
    search = SearchFiles(tmp_path)
    for seed in (0, 1):
        search.add("r0", FORGETS_HALF, seed, ratio=0.0, before=False)
        search.add("r5", FORGETS_LITTLE, seed, ratio=0.5, before=False)
    _, sloped, missing = statements(search.write())
    assert sloped.startswith("Trained forgetting falls as the replay ratio rises: -8.0 points for each 0.1")
    assert missing.startswith("The model was not evaluated before training")


def test_one_seed_cannot_rule_out_noise(tmp_path):
    search = SearchFiles(tmp_path).add("a", FORGETS_LITTLE, ratio=0.5).add("b", FORGETS_HALF, ratio=0.0)
    run_dir = search.add("m", MIXED, baseline=True).write()
    assert all(each.endswith("]; with one seed, noise cannot be ruled out.") for each in statements(run_dir))


def test_the_first_baseline_is_the_reference_and_no_baseline_competes(tmp_path):
    search = SearchFiles(tmp_path).add("m", MIXED, baseline=True).add("n", [[1, 10], [0, 10]], baseline=True)
    run_dir = search.add("a", FORGETS_LITTLE).write()
    assert statements(run_dir)[0].startswith("Best by average accuracy: a, +20.0 points against m")
