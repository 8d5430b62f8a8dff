"""What is measured of money that goes back."""
