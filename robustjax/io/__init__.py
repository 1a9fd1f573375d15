"""Files: checkpoints, results, logs. Nothing numeric is computed here."""
