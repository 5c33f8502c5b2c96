"""Pictures with class masks, whatever their layout on disk, and what a protocol trains on."""

from training.datasets.folds import SPLITS, Fold, classes_of, fold_by_split, fold_of
from training.datasets.indexed import Dataset
from training.datasets.open import LAYOUTS, open_dataset
from training.datasets.sample import IGNORE, DataError, Problem, Sample
from training.datasets.skipping import SkipLog

__all__ = [
    "IGNORE",
    "LAYOUTS",
    "SPLITS",
    "DataError",
    "Dataset",
    "Fold",
    "Problem",
    "Sample",
    "SkipLog",
    "classes_of",
    "fold_by_split",
    "fold_of",
    "open_dataset",
]
