"""Evaluation: which models answer which problems, what their answers are worth, and how sure that is.

- settings.py: the configuration of jobs/evaluate.py
- datasets.py: the registered data sets, and the problems of any
- models.py: what a user may call a model, as a directory that an engine loads
- prompts.py: how a problem is asked
- scoring.py: one completion: three scores and an outcome
- overlap.py: test problems that are in a run's training data
- record.py, results.py: evaluation.json and eval_results.jsonl, with which a killed evaluation goes on
- summary.py: what the rows come to; the statistics are in pipeline/reports/statistics.py
- report.py, browser.py, static/: the table, the plot and the page
- comparison.py: several evaluations side by side
"""
