"""`python -m tfkfin.data download`: its options, the downloads of a database, and checks of its archives."""
