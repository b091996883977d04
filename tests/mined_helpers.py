"""Mined lists that nobody mined."""

from __future__ import annotations

from skylink.mined import Measured, MinedCandidate, MinedList, Provenance
from skylink.soft_labels import SoftLabels

PROVENANCE = Provenance(
    base="global",
    base_fingerprint="sha256:1234",
    dataset="University-1652 D2S",
    split="train",
    gallery="sha256:5678",
    k=3,
    seed=7,
    ground_truth="appended",
    labels=SoftLabels(source="cosine", threshold=0.8),
)


def candidate(name: str, rank: int | None, **changes) -> MinedCandidate:
    known = {
        "id": name,
        "path": f"satellite/{name}.jpg",
        "base_score": None if rank is None else 1 - rank / 10,
        "rank": rank,
        "is_ground_truth": False,
        "label": 0.0,
    }
    return MinedCandidate(**(known | changes))


def mined(query: str = "0839/a.jpg", **changes) -> MinedList:
    candidates = (
        candidate("0840", 1, label=0.5, measured=Measured(cosine=0.85)),
        candidate("0839", 2, is_ground_truth=True, label=1.0, measured=Measured(cosine=1.0)),
        candidate("0841", 3, measured=Measured(cosine=-0.1)),
    )
    known = {"query": query, "path": f"drone/{query}", "candidates": candidates}
    return MinedList(**(known | changes))


def others(*names: str) -> list[MinedList]:
    return [mined(name) for name in names]
