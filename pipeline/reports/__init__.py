"""The parts that reports are made of. ``pipeline.report.write_report`` puts them together.

- page.py: the HTML page that all reports share; all text is escaped there
- drawing.py: the style that all plots share
- statistics.py: pass@k, maj@k, intervals and paired comparisons
- run_summary.py, accuracy.py: the numbers of a run
- run_page.py, samples.py, plots.py: its page, the completions on it, and its plots
"""
