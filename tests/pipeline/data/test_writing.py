"""Problems as tasks to write problems."""

from pipeline.config import DataConfig, WritingConfig
from pipeline.data import load_problems
from pipeline.data.table import load_table
from pipeline.data.writing import new_task, writing_tasks, written_text
from pipeline.types import Problem, WritingTask

STORY = "Mia has 5 jars with 11 stones in each jar. How many stones does Mia have?"


def solved(question: str) -> Problem:
    return Problem(
        id="p", prompt=({"role": "user", "content": question},), gold="55", level="1", type="stones", source="set"
    )


def test_a_problem_is_the_example_of_a_new_one_and_the_original_of_its_variations():
    config = WritingConfig(levels={"1": "in 1 step"}, system_prompt="")
    tasks = {task.source: task for task in writing_tasks(solved(STORY), "5 * 11 = 55", config)}
    assert list(tasks) == ["new", "parameters", "context", "practical"]
    assert tasks["new"].prompt == ({"role": "user", "content": "Write a math problem about stones, in 1 step."},)
    assert tasks["new"].solution == (
        f"<problem>\n{STORY}\n</problem>\n<solution>\n5 * 11 = 55\n</solution>\n<answer>55</answer>"
    )
    assert tasks["new"].writing == WritingTask("new")
    for kind in ("parameters", "context", "practical"):
        assert STORY in tasks[kind].question and "in 1 step" in tasks[kind].question
        assert tasks[kind].writing == WritingTask(kind, STORY, "55")
        assert tasks[kind].id == f"p-{kind}" and tasks[kind].level == "1"
        assert STORY not in (tasks[kind].solution or STORY)


def test_only_stories_have_examples_of_variations_and_only_solved_problems_of_new_ones():
    tasks = list(writing_tasks(solved("Prove that there are 55 of them."), None, WritingConfig()))
    assert [task.solution for task in tasks] == [None] * 4
    assert all(task.prompt[0]["role"] == "system" for task in tasks)


def test_prompts_choose_the_kinds_and_braces_in_a_problem_stay():
    config = WritingConfig(prompts={"context": "Other names:\n{original}"}, system_prompt="")
    (task,) = writing_tasks(solved(r"Find \frac{1}{2} of {x}."), None, config)
    assert task.question == "Other names:\nFind \\frac{1}{2} of {x}."


def test_a_task_can_be_made_of_a_topic_and_a_level():
    task = new_task("fruit", "2", WritingConfig(system_prompt=""), "t1")
    assert (task.id, task.question, task.solution) == ("t1", "Write a math problem about fruit, 2.", None)
    assert (task.type, task.level, task.writing) == ("fruit", "2", WritingTask("new"))


def test_a_prompt_without_a_level_has_no_hole():
    config = WritingConfig(levels={"unrated": ""}, system_prompt="")
    assert new_task("fruit", "unrated", config).question == "Write a math problem about fruit."
    assert new_task("", "", config).question == "Write a math problem about any topic."


def test_tasks_survive_a_table(tmp_path):
    config = DataConfig.model_validate(
        {"name": "embedded:stories", "write": {}, "arithmetic": {"train_per_level": 2, "eval_per_level": 2}}
    )
    problems = load_problems(config, "train")
    assert list(load_table(config, "train", tmp_path)) == problems
    assert len(problems) == 3 * 2 * 4 and len({problem.id for problem in problems}) == 24


def test_the_text_of_a_problem_is_stripped():
    assert (
        written_text(" a\n", "b ", " 1") == "<problem>\na\n</problem>\n<solution>\nb\n</solution>\n<answer>1</answer>"
    )
