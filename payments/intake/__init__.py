"""The way in: requests become payments, many with one commit."""
