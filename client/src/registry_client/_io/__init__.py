"""What differs between the two halves of the client, written twice under the same names: asynchronous.py and blocking.py."""
