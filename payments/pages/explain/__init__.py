"""Explain the state of a payment: what happened, what it means for the money, and the safe actions. Pure functions of its facts."""
