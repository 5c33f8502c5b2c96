"""OSLSM: a network reads one masked example and writes the classifier of every pixel."""
