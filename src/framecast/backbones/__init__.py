"""Pixels to features: `forward_features`, `feature_dim`, `stride`."""
