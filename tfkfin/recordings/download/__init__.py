"""Behind `python -m tfkfin.data download`: an order, transfers that resume, archives that are checked."""
