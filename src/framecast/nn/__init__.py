"""Layers: tensors in, tensors out. They take numbers, never a run's configuration."""
