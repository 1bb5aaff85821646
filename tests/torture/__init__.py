"""Torture of stores: every file operation fails or is the last one, power fails, bytes change, many use one store.

``make torture`` runs it at length and prints a table; `test_torture` runs a little of it with the other tests.
"""
