"""The rewards of written problems. Each is in [0, 1]."""
