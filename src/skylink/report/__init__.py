"""One page about one or more evaluations, and what evaluations leave of each query for it.

write_report(["results.json", "other.json"], "report.html")
"""

from __future__ import annotations

from skylink.report.collect import write_benchmark_details, write_gallery_details
from skylink.report.details import Details, Header, Place, QueryDetails, ReportError, read_details
from skylink.report.page import write_report

__all__ = [
    "Details",
    "Header",
    "Place",
    "QueryDetails",
    "ReportError",
    "read_details",
    "write_benchmark_details",
    "write_gallery_details",
    "write_report",
]
