"""Everything that runs under Ray: rollout, reward and weight actors, the learner loops, launching."""
