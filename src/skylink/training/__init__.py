"""Training: candidate lists in, a finished folder of a re-ranker or a retriever out.

    config.py        what can be chosen; config_file.py: as TOML or YAML
    data.py          mined lists, their order, and which candidates of a list a step sees
    pictures.py      the lists' photos and candidates as visual features, each computed once
    groups.py        states of one list with gradients, its shared beginning computed once
    model.py         what is trained: LoRA weights, value head, or the head alone
    scoring.py       scores of lists; a frozen model's states computed once
    processes.py     one process or several
    state.py         checkpoints from which a killed run goes on to the same losses
    journal.py       log.jsonl and TensorBoard
    loop.py          steps, checkpoints, validations of any training; draws.py: its random numbers
    trainer.py       the re-ranker under training
    validation.py    scores and recall on validation lists
    fusion.py        weight, gate and temperature, fitted on those
    finish.py        the finished folder

    retriever/       training of image encoders, by the same loop

`skylink train` and `skylink train-retriever` are the command lines of it. Only `config*.py` can be
imported without torch.
"""
