"""What a batch is, its loss, its prediction, its metrics: one file per task."""
