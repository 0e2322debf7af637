"""The kills of `streamq chaos`, inflicted on workers of other queues: what each lost, and what it ran twice."""
