"""Ablations: one file of choices in, a table of what each of them is worth out.

    grid.py          what is compared; grid_file.py: as TOML; example.toml: one to begin with
    held_out.py      test lists, what a ranking of them is worth, and which belong together
    result.py        a cell's result as a JSON file, written when it is finished
    cell.py          what kinds of cells are given and hand over, and how all are measured
    lvlm_cell.py     cells with a vision-language model, trained or not
    pairs_cell.py    the control without one: a head on descriptors
    fixed_cell.py    what is never trained: edges or features compared with the map's
    run.py           runs cells one after another, and goes on after a kill
    summary.py       rows: means, spread over seeds, paired intervals, stability
    report.py        ablation.json, ablation.md and ablation.png; table.py, figure.py

`skylink ablate` is the command line of it. `grid.py` and `grid_file.py` import no torch.
"""
