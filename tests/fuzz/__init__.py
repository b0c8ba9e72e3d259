"""Stress tests of xpmlp: bad input, changed files, kills, long runs, removed checks."""
