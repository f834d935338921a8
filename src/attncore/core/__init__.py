"""Attention itself: what a call is, the routes it can take, and the formula."""
