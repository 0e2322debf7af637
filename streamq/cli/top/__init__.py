"""`streamq top`: queues, workers and running jobs, live."""
