"""Explicit memory: a bank of knowledge entries that a frozen decoder of the transformers library reads.

``bank.py`` holds the entries, ``slots.py`` assigns them to the slots of ``product_keys.py``, ``modules.py`` has the
trained modules, ``router.py`` the query of a whole prompt, ``memory.py`` puts them together, ``attach.py`` attaches
them to a backbone. docs/memory.md.
"""
