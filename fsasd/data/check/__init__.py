"""Checks of a data set: its contents, and errors in it, before hours of training are spent.

Every recording is read once: decoded in full, or only its header. An *error* spoils a run or its
numbers; a *warning* may be as it should be.
"""
