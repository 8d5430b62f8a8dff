"""Child processes of jobs: forked by a server, limited in time and memory, killed as a whole."""
