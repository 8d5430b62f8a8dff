"""Generated from _async by client/tools/generate.py: change it there."""
