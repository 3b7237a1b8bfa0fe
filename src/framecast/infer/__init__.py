"""From a trained model, or none, to results: prediction, streaming, segmentation without training."""
