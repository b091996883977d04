"""Scoring by large vision-language models, run here: loading, features, the exact fast path.

Only modules of this package (and training) import torch and transformers, and only when a model
is loaded; `options.py` and `presets.py` import neither.
"""
