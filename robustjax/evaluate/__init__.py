"""Evaluation: a checkpoint becomes a logits function (`load`), then items of a suite (`run`), then a report (`report`)."""
