"""Fine-tuning on the labelled pictures themselves: the last layers of a trained encoder."""
