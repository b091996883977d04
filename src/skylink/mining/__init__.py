"""Mining candidate lists: what a base finds for queries whose place is known.

`benchmark.py` mines a published dataset, `gallery.py` one's own map and photos; `lists.py` forces
the truth in, labels and writes; `split.py` holds places back.
"""
