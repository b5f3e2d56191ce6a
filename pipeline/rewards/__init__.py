"""Rewards of completions: functions and classes looked up by name, their weighted sum, its gate, and their history."""
