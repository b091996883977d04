"""Training of retrievers: an image encoder learns to put a photo beside its own tile.

    config.py     what can be chosen
    examples.py   photos, tiles, and who is right for whom: of a benchmark or of mined lists
    pictures.py   their pictures, turned
    batches.py    what a step sees; the hardest tiles of each photo
    trainer.py    descriptors with gradients, loss, validation; `training/loop.py` runs it
    finish.py     the finished folder, loaded as `trained:FOLDER`

`skylink train-retriever` is the command line of it. Only `config.py` can be imported without torch.
"""
