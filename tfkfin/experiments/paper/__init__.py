"""What reproduces the paper: its printed figures, its models, its protocol, and labels ahead of time."""
