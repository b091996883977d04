"""Training views: pairs of a map and a drone's view of a part of it, with the place known.

satellite image ----- changes (changes.py), camera (synthetic.py) ----> view, mask, place
overlapping drone photos --- verified homography (overlaps.py, overlap_pool.py) ---> the same
"""

from skylink.views.overlap_pool import OverlapPool
from skylink.views.overlaps import Overlap, find_overlaps
from skylink.views.pool import MapPool
from skylink.views.sample import Sample
from skylink.views.synthetic import Difficulty, synthetic_sample

__all__ = [
    "Difficulty",
    "MapPool",
    "Overlap",
    "OverlapPool",
    "Sample",
    "find_overlaps",
    "synthetic_sample",
]
