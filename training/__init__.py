"""Training code: encoders, episodes, trainers, evaluation.

Runs from a checkout; the installed package never imports it.
"""
