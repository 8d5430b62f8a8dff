"""Which processor a payment goes to: accounts, rules, what is known of each endpoint."""
