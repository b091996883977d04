"""Asking a vision-language model that an OpenAI-compatible server holds (vLLM first).

Imported only when a server is asked for; `httpx2` comes with the `[remote]` extra.
"""
