"""Grading a file of completions, JSONL or parquet, in chunks: a file of any size takes little memory.

The process that reads and writes never looks inside a chunk. Workers, in other processes or on other machines, parse a
chunk, grade it and return the rows to write.

- run.py: grades a whole file
- tables.py: reads and writes the two formats, chunk by chunk
- chunks.py: grades one chunk, in a worker
- tally.py: counts of verdicts
- processes.py: spreads chunks over processes of this machine; actors/grading.py spreads them over a Ray cluster
"""
