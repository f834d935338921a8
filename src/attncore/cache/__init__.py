"""Keys and values kept for decoding."""
