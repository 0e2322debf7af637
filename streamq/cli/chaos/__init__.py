"""`streamq chaos`: faults on purpose, and the proof of what came of them."""
