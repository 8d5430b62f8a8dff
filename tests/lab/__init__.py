"""`make lab`: a service of several hosts on one Linux machine, each host a network namespace, and strikes against all of its parts."""
