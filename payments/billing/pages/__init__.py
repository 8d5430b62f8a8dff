"""The pages of the sign-up and of the plan."""
