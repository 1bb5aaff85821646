"""Results of searches as one HTML page that opens from disk, asks nothing of a network and can be mailed.

Knows records; not where their numbers come from.
"""

from rapidin.report.facts import report_facts
from rapidin.report.page import render_report
from rapidin.report.writing import write_report

__all__ = ["render_report", "report_facts", "write_report"]
