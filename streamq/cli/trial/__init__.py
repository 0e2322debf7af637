"""What a trial of streamq stands on, `streamq demo` and `streamq chaos`: books kept outside of it, workers, a judge."""
