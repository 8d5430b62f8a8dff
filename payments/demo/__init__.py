"""The demo: a tenant with sandbox processors, and payments that look like a shop's."""
