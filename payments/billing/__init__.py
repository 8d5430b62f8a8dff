"""What tenants pay us: plans, subscriptions and what follows when one is not paid; their way in; and what a live tenant needs."""
