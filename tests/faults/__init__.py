"""Faults that a run survives, a file for each section of the matrix in tools/fault_matrix.py.

Rows that another test proves already carry their mark there. A test with `control=True` switches a
detector off and shows that the proof would then fail.
"""
