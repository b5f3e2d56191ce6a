"""Was the reward earned? Stored completions are scored again by a second, strict scorer, and looked through for tricks.

``strict`` shares no code with ``pipeline.verifier`` and ``pipeline.training.rewards``: a mistake of theirs is not repeated here.
"""
