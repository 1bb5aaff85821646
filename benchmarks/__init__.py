"""Measurements that print tables; see RESULTS.md for the figures they gave."""
