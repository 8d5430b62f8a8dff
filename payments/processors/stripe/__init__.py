"""Processors of kind `stripe`."""
