"""Videos, features, labels: what is on disk and how it is read."""
