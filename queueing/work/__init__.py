"""Work: the mechanism that claims, does and settles rows (work.py), and the processes that run it. Other packages own the rows."""
