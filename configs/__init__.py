"""Configurations: plain data, one file for each method and data set."""
