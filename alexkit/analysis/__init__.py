"""What layers have in common: arrays in, numbers out."""
