"""The commands that check whether the right samples are found: ``rapidin evaluate …``."""
