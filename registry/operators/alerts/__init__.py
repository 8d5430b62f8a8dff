"""Alerts of the operators: rules over the service's own metrics, who evaluates them, what they are and who is told."""
