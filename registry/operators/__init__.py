"""The operators' tools that all apps share: roles, guarded actions with a confirmation page, decisions about rows, admin lists. No models."""
