"""`streamq bench`: the measurements of streamq alone, for the server of whoever asks."""
