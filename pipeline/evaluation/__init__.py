"""Evaluation: which models answer which problems, how good their answers are, and how certain that is.

Its settings are in pipeline/config/evaluation.py, the job that runs it in actors/driver/evaluate.py.

Before:
- registry.py, datasets.py, problems.py: the registered data sets; how any data set is loaded; which problems are asked
- models.py, merging.py: the models that a user names; merging adapters and checkpoints for an engine
- prompts.py: how a problem is asked
- overlap.py: test problems that the training data contains

After each completion:
- scoring.py: three scores and an outcome
- record.py, results.py: evaluation.json and eval_results.jsonl, from which an evaluation is resumed after a kill

At the end:
- summary.py, comparison.py: statistics of the rows, of each model and between models
- evaluation_report.py, evaluation_page.py, browser.py, static/, plots.py: the report
- side_by_side.py: several evaluations compared

Apart from these:
- held_out.py: accuracy on held-out problems while a run trains
- chat.py: a finished run answers a question
"""
