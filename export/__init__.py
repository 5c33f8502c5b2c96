"""Checkpoints to bundles: torch -> ONNX -> storage precision -> parity -> `.fsseg`.

Runs from a checkout; the installed package never imports it.
"""
