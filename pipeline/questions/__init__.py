"""Writing problems: the tasks a policy is given, the rewards of what it writes, and what is kept of it.

Nothing in here evaluates a text as code.
"""
