"""Attention over many keys: block by block, by features, or over some pairs only."""
