"""Rewards of completions: functions and classes looked up by name, their weighted sum, gates and history."""
