"""Evaluation of a model with an explicit memory on questions with options.

``conditions.py`` says what the model may read, ``asking.py`` asks, ``matching.py`` compares answers, ``summary.py``
counts, ``forgetting.py`` measures the perplexity of other texts, ``lookups.py`` and ``memory_page.py`` show which
entries were read, ``loading.py`` finds the model, ``run.py`` puts it together. docs/memory_evaluation.md.
"""
