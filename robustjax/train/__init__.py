"""Training: a configuration becomes an experiment (`build`), one pure step (`step`) and a loop that can be killed (`loop`)."""
