"""Kinds of jobs that come with queueing, one file each."""
