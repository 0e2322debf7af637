"""`streamq demo`: the main job, shown in under a minute."""
