"""What the admin pages of all apps share: who sees whose rows, actions that ask why, lists of any length. No models."""
