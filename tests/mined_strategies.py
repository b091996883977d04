"""Any mined lists, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from skylink.mined import MapPlace, Measured, MinedCandidate, MinedList
from skylink.types import CameraPose, Telemetry

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
number = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | number
poses = st.builds(
    CameraPose, altitude_m=number, heading_deg=number, tilt_deg=number, hfov_deg=number
)
places = st.builds(
    MapPlace,
    area=st.integers(0, 9),
    level=st.integers(0, 9),
    x_m=number,
    y_m=number,
    lon=st.floats(-180, 180),
    lat=st.floats(-90, 90),
    pose=st.none() | poses,
)
telemetries = st.builds(
    Telemetry,
    relative_altitude_m=st.none() | st.floats(1, 1000),
    heading_deg=maybe,
    camera_tilt_from_nadir_deg=st.none() | st.floats(0, 80),
)


@st.composite
def mined_lists(draw, query: str) -> MinedList:
    k = draw(st.integers(2, 5))
    ids = draw(st.lists(text, min_size=k, max_size=k, unique=True))
    ranks = sorted(draw(st.lists(st.integers(1, 50), min_size=k, max_size=k, unique=True)))
    scores = sorted(draw(st.lists(number, min_size=k, max_size=k)), reverse=True)
    forced = draw(st.booleans())
    right = k - 1 if forced else draw(st.integers(0, k - 1))
    made = []
    for i in range(k):
        last = forced and i == k - 1
        place = draw(st.none() | places)
        made.append(
            MinedCandidate(
                id=ids[i],
                path=draw(text) if place is None else None,
                window=draw(st.none() | st.just((0, 512, 256, 256))),
                place=place,
                base_score=draw(st.none() | st.just(scores[i])) if last else scores[i],
                rank=None if last else ranks[i],
                is_ground_truth=i == right,
                label=1.0 if i == right else draw(st.floats(0, 1)),
                measured=Measured(overlap=draw(maybe), distance_m=draw(maybe)),
            )
        )
    telemetry = draw(st.none() | telemetries)
    return MinedList(query=query, path=draw(text), telemetry=telemetry, candidates=tuple(made))
