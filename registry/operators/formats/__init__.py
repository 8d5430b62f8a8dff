"""Formats of values that Django writes itself, by language (FORMAT_MODULE_PATH)."""
