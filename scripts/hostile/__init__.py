"""Hostile inputs as data: what is given, and what must come of it.

The tests and scripts/hostile_inputs.py read the same list: `arrays.CASES` for whatever takes
arrays, `tables.CASES` for the command line.
"""
