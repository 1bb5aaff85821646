"""Measurements that print tables; see RESULTS.md for the figures they gave."""

import os

from rapidin.support.environment import VARIABLES

# As rapidin's program does, before torch is imported; every method gains by it.
os.environ.update(VARIABLES | os.environ)
