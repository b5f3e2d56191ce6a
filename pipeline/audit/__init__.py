"""Was the reward earned? Stored completions are scored again by a second, strict scorer, and looked through for tricks.

``strict`` shares no code with ``pipeline.verifier`` or ``pipeline.training.rewards``, so it does not repeat their
mistakes.
"""
