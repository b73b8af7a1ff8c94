"""Frameworks' models to our operators; only here are the frameworks imported."""
