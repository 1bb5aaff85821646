"""The stage of ``rapidin demo``: a small data set with a planted backdoor, and a tiny model trained on it.

Knows nothing of gradients, stores or searches.
"""

from rapidin.demo.data import TRIGGER, DemoData, write_demo_data
from rapidin.demo.training import train_demo_model

__all__ = ["TRIGGER", "DemoData", "train_demo_model", "write_demo_data"]
