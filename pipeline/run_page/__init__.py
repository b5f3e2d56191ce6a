"""The page of a run: static, as its report, and live, while the run works.

- state.py: what the page shows, read piece by piece while the run writes
- completions.py: the stored completions of a step, with their rewards
- sections.py: the other sections of a report
- page.py, static/: the file
- server.py: the live page
"""
