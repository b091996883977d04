"""Retrievers: propose candidates."""
