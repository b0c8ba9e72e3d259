"""Hostile inputs as data: the arguments, and the expected outcome.

The tests and tests/fuzz/bad_inputs.py read the same list: `runs.ARRAYS` for whatever takes
arrays, `tables.CASES` for the command line.
"""
