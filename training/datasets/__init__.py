"""Pictures with class masks, whatever their layout on disk, and what a protocol trains on."""

from training.datasets.folds import SPLITS, Fold, fold_of
from training.datasets.indexed import IGNORE, Dataset, Sample

__all__ = ["IGNORE", "SPLITS", "Dataset", "Fold", "Sample", "fold_of"]
