"""Writing problems: the tasks for a policy, the rewards of the problems it writes, and the choice of those to keep.

Nothing here evaluates a text as code.
"""
