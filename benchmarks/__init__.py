"""What the SDK costs, and how well it does.

``python -m benchmarks kernels|pipeline|accuracy|memory``
"""
