"""Networks, their weights and their layers."""
