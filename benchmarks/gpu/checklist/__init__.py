"""The checks of the GPU path, by topic.

A check is a function of a Setting that returns figures and a verdict, or raises.
`scripts/gpu_check.py` runs them.
"""
