"""Bytes and pixels; knows no model."""
