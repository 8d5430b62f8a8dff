"""Money that goes back: refunds as debts, how they are paid, and disputes, which a payer's bank decides."""
