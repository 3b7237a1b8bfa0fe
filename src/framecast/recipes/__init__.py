"""Typed Python functions that say what to train, what result to expect, what it costs, and the command."""
