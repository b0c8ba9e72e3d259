"""Hostile inputs as data: what is given, and what must come of it.

The tests and tests/fuzz/bad_inputs.py read the same list: `runs.ARRAYS` for whatever takes
arrays, `tables.CASES` for the command line.
"""
