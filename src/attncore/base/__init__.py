"""What every other room stands on: arrays of either library, and what may be given."""
