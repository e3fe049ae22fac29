"""Work of several processes on one or many machines."""
